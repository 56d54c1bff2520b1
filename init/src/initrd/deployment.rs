//! Finds the ostree deployment to boot (`ostree=` on the kernel command line).

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlink};

/// A deployment below the mounted root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deployment {
    /// Its directory in the initrd: `/sysroot/ostree/deploy/OS/deploy/COMMIT.SERIAL`.
    pub(crate) path: PathBuf,
    /// The OS's /var: `/sysroot/ostree/deploy/OS/var`.
    pub(crate) var: PathBuf,
    /// `COMMIT.SERIAL`.
    pub(crate) name: String,
}

/// Why there is no deployment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeploymentError {
    /// The path does not lead anywhere within the root file system.
    #[error("deployment ostree={request}: open: {source}")]
    Open { request: String, source: nix::Error },
    /// It leads to something that is not a deployment.
    #[error(
        "deployment ostree={request}: leads to {found}, \
         expected /ostree/deploy/<os>/deploy/<commit>.<serial>"
    )]
    Place { request: String, found: String },
}

/// Follows `request` (also through the symbolic links of /ostree/boot.N) within `sysroot`, which
/// no link can leave.
pub(crate) fn resolve(sysroot: &Path, request: &str) -> Result<Deployment, DeploymentError> {
    let open_error = |source| DeploymentError::Open {
        request: request.to_owned(),
        source,
    };
    let root = File::open(sysroot).map_err(|_| open_error(nix::Error::ENOENT))?;
    // With RESOLVE_IN_ROOT an absolute path or link begins at the root file system's root, and
    // `..` stops there.
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let directory = openat2(&root, request, how).map_err(open_error)?;
    let link = format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&directory)
    );
    let path = PathBuf::from(readlink(link.as_str()).map_err(open_error)?);
    let relative = path.strip_prefix(sysroot).unwrap_or(&path);
    let Some((os, name)) = parts(relative) else {
        return Err(DeploymentError::Place {
            request: request.to_owned(),
            found: format!("/{}", relative.display()),
        });
    };
    Ok(Deployment {
        var: sysroot.join("ostree/deploy").join(os).join("var"),
        name,
        path,
    })
}

/// Splits `ostree/deploy/OS/deploy/COMMIT.SERIAL`.
fn parts(relative: &Path) -> Option<(String, String)> {
    let mut names = Vec::new();
    for component in relative.components() {
        let Component::Normal(name) = component else {
            return None;
        };
        names.push(name.to_str()?);
    }
    let [first, second, os, third, name] = names.as_slice() else {
        return None;
    };
    if (*first, *second, *third) != ("ostree", "deploy", "deploy") {
        return None;
    }
    let (commit, serial) = name.split_once('.')?;
    let commit_is_hex = !commit.is_empty() && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let serial_is_number = !serial.is_empty() && serial.bytes().all(|b| b.is_ascii_digit());
    (commit_is_hex && serial_is_number).then(|| ((*os).to_owned(), (*name).to_owned()))
}

/// Content of `/run/ostree-booted`, from which libostree knows that the machine was booted from a
/// deployment, and which one: a GVariant of type `a{sv}` with one entry,
/// `backing-root-device-inode`, holding the deployment directory's device and inode as `(tt)`.
pub(crate) fn booted_marker(deployment: &Path) -> std::io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(deployment)?;
    Ok(encode_marker(metadata.dev(), metadata.ino()))
}

fn encode_marker(device: u64, inode: u64) -> Vec<u8> {
    let key = b"backing-root-device-inode\0";
    let mut bytes = key.to_vec();
    // The variant is aligned to 8 bytes, as is the tuple in it.
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&device.to_le_bytes());
    bytes.extend_from_slice(&inode.to_le_bytes());
    bytes.extend_from_slice(b"\0(tt)");
    // Framing: where the key ends within the entry, then where the entry ends within the array.
    let entry_end = bytes.len() as u8 + 1;
    bytes.push(key.len() as u8);
    bytes.push(entry_end);
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const COMMIT: &str = "ab12";

    fn sysroot() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let deploy = root.path().join("ostree/deploy/keelson/deploy/ab12.0");
        std::fs::create_dir_all(&deploy).unwrap();
        std::fs::create_dir_all(root.path().join("ostree/boot.1.1/keelson/cafe")).unwrap();
        symlink("boot.1.1", root.path().join("ostree/boot.1")).unwrap();
        symlink(
            "../../../deploy/keelson/deploy/ab12.0",
            root.path().join("ostree/boot.1.1/keelson/cafe/0"),
        )
        .unwrap();
        symlink(
            "/../../../../../../../../../ostree/deploy/keelson/deploy/ab12.0",
            root.path().join("absolute"),
        )
        .unwrap();
        symlink("/etc", root.path().join("out")).unwrap();
        root
    }

    #[test]
    fn directly_and_through_links() {
        let root = sysroot();
        let base = root.path().canonicalize().unwrap();
        for request in [
            "/ostree/deploy/keelson/deploy/ab12.0",
            "ostree/deploy/keelson/deploy/ab12.0/",
            "/ostree/boot.1/keelson/cafe/0",
            "/absolute",
            "/../../ostree/deploy/keelson/deploy/ab12.0",
        ] {
            let found = resolve(&base, request).unwrap();
            assert_eq!(found.name, format!("{COMMIT}.0"), "{request}");
            assert_eq!(found.var, base.join("ostree/deploy/keelson/var"));
            assert!(found.path.starts_with(&base));
        }
    }

    #[test]
    fn nothing_outside_and_nothing_else() {
        let root = sysroot();
        let base = root.path().canonicalize().unwrap();
        assert!(matches!(
            resolve(&base, "/out"),
            Err(DeploymentError::Open { .. })
        ));
        for request in ["/ostree", "/", "/ostree/deploy/keelson/deploy"] {
            assert!(
                matches!(resolve(&base, request), Err(DeploymentError::Place { .. })),
                "{request}"
            );
        }
    }

    #[test]
    fn marker_has_the_layout_of_a_gvariant() {
        let bytes = encode_marker(0xfe02, 77);
        assert_eq!(bytes.len(), 55);
        assert_eq!(&bytes[32..40], &0xfe02u64.to_le_bytes());
        assert_eq!(&bytes[40..48], &77u64.to_le_bytes());
        assert_eq!(&bytes[48..], b"\0(tt)\x1a\x36");
    }
}

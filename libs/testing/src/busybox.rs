//! The static busybox that tests run in containers.
//!
//! The file `/bin/busybox` is only read. Its mode does not matter, because other programs change
//! it. One that needs libraries is refused, because containers have none.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::elf;

/// Names the file to use instead of the installed one.
pub const VARIABLE: &str = "KEELSON_BUSYBOX";

/// Where distributions install it.
const PLACES: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];

/// Why there is no busybox to use.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    /// None is installed.
    #[error(
        "no busybox at {}: install the package busybox-static, or set KEELSON_BUSYBOX",
        PLACES.join(" or ")
    )]
    Missing,
    /// It needs a dynamic loader, or is not an executable of this machine.
    #[error("{} is no static executable: install the package busybox-static", .0.display())]
    NotStatic(PathBuf),
    /// It doesn't list its applets.
    #[error("list the applets of busybox: {0}")]
    List(#[source] io::Error),
    /// It can't be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The copy can't be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The executable's bytes.
///
/// # Errors
/// There is none, it can't be read, or it is not static.
pub fn bytes() -> Result<Vec<u8>, BusyboxError> {
    let path = match std::env::var_os(VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => PLACES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or(BusyboxError::Missing)?,
    };
    read(&path)
}

fn read(path: &Path) -> Result<Vec<u8>, BusyboxError> {
    let bytes = fs::read(path).map_err(|source| BusyboxError::Read {
        path: path.to_owned(),
        source,
    })?;
    if elf::asks_for_loader(&bytes) != Some(false) {
        return Err(BusyboxError::NotStatic(path.to_owned()));
    }
    Ok(bytes)
}

/// Writes an executable copy with mode 0755 that belongs to the caller.
///
/// # Errors
/// See [`bytes`]; or the copy can't be written.
pub fn install(path: &Path) -> Result<(), BusyboxError> {
    write(path, &bytes()?)
}

/// The names of its applets, as it lists them itself.
///
/// # Errors
/// See [`bytes`]; or it can't be executed.
pub fn applets() -> Result<Vec<String>, BusyboxError> {
    let directory = tempfile::tempdir().map_err(BusyboxError::List)?;
    let copy = directory.path().join("busybox");
    install(&copy)?;
    let mut tries = 0;
    let output = loop {
        match Command::new(&copy).arg("--list").output() {
            // Another thread forked while the copy was open for writing, and has not executed yet.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 100 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => break other.map_err(BusyboxError::List)?,
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if !output.status.success() || names.len() < 10 {
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BusyboxError::List(io::Error::other(message)));
    }
    Ok(names)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BusyboxError> {
    fs::write(path, bytes)
        // Set afterwards, because the umask changes the mode of creation.
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|source| BusyboxError::Write {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::elf;

    #[test]
    fn the_mode_and_the_kind_of_the_source_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("busybox");
        let copy = directory.path().join("copy");
        fs::write(&source, elf(0)).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o600)).unwrap();
        write(&copy, &read(&source).unwrap()).unwrap();
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);

        fs::write(&source, elf(3)).unwrap();
        let refused = read(&source).unwrap_err().to_string();
        assert!(refused.contains("busybox-static"), "{refused}");
        let missing = read(&directory.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}

//! Writes the files that the configuration declares.
//!
//! Every directory on the way is opened by itself and without following links, so that no link leads
//! out of the root, whoever made it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use keelson_model::host::FileConfig;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// Largest file that content is added to, in bytes.
const MAX_APPENDED: u64 = 64 << 20;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{operation} {part:?}: {source}")]
    System {
        operation: &'static str,
        part: String,
        source: io::Error,
    },
    #[error("{0:?} is a symbolic link or no directory")]
    NoDirectory(String),
    #[error("it is no plain file")]
    NoFile,
    #[error("it is larger than 64 MiB, too large for append")]
    TooLarge,
    #[error("there is no {what} {name:?} in {file}: use a number, or a name that is there")]
    Unknown {
        what: &'static str,
        name: String,
        file: &'static str,
    },
    #[error("its content is not base64: {0}")]
    Base64(base64::DecodeError),
    #[error("its path or mode is wrong")]
    Unchecked,
}

fn failed<E: Into<io::Error>>(
    operation: &'static str,
    part: &str,
) -> impl FnOnce(E) -> FileError + use<E> {
    let part = part.to_owned();
    move |source| FileError::System {
        operation,
        part,
        source: source.into(),
    }
}

/// Writes all files below `root` and returns a sentence for each that could not be written.
pub(crate) fn write_all(root: &Path, files: &[FileConfig]) -> Vec<String> {
    files
        .iter()
        .filter_map(|file| {
            let error = write(root, file).err()?;
            Some(format!("file {} is not written: {error}", file.path))
        })
        .collect()
}

fn write(root: &Path, file: &FileConfig) -> Result<(), FileError> {
    let mode = match &file.mode {
        Some(text) => keelson_config::parse_mode(text).ok_or(FileError::Unchecked)?,
        None => 0o644,
    };
    let (user, group) = owner(root, file.owner.as_deref().unwrap_or("root"))?;
    let content = match (&file.contents, &file.base64) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => {
            let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            BASE64_STANDARD.decode(digits).map_err(FileError::Base64)?
        }
        (None, None) => Vec::new(),
    };
    let path = file.path.strip_prefix('/').ok_or(FileError::Unchecked)?;
    let (parents, name) = path.rsplit_once('/').ok_or(FileError::Unchecked)?;
    let directory = open_directory(root, parents)?;
    let old = read_old(directory.as_fd(), name)?;
    let content = match (file.append, &old) {
        (true, Some(old)) if contains(&old.content, &content) => old.content.clone(),
        (true, Some(old)) => [old.content.as_slice(), &content].concat(),
        _ => content,
    };
    let wanted = Old {
        content,
        mode,
        user,
        group,
    };
    match old {
        Some(old) if old == wanted => Ok(()),
        _ => replace(directory.as_fd(), name, &wanted),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// Opens the directory, and makes what is missing on the way.
fn open_directory(root: &Path, parents: &str) -> Result<OwnedFd, FileError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let mut directory =
        rustix::fs::open(root, flags, Mode::empty()).map_err(failed("open", "/"))?;
    for part in parents.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(FileError::Unchecked);
        }
        match rustix::fs::mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make", part)(error)),
        }
        let opened = rustix::fs::openat(&directory, part, flags | OFlags::NOFOLLOW, Mode::empty());
        directory = match opened {
            Ok(opened) => opened,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(FileError::NoDirectory(part.to_owned()));
            }
            Err(error) => return Err(failed("open", part)(error)),
        };
    }
    Ok(directory)
}

/// What a file is, or is to be.
#[derive(PartialEq, Eq)]
struct Old {
    content: Vec<u8>,
    mode: u32,
    user: u32,
    group: u32,
}

fn read_old(directory: BorrowedFd<'_>, name: &str) -> Result<Option<Old>, FileError> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed("read", name)(error)),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NoFile);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed("open", name))?;
    let mut content = Vec::new();
    fs::File::from(file)
        .take(MAX_APPENDED + 1)
        .read_to_end(&mut content)
        .map_err(failed("read", name))?;
    if content.len() as u64 > MAX_APPENDED {
        return Err(FileError::TooLarge);
    }
    Ok(Some(Old {
        content,
        mode: stat.st_mode & 0o7777,
        user: stat.st_uid,
        group: stat.st_gid,
    }))
}

/// Writes beside the file and renames: a crash leaves the old or the new one.
fn replace(directory: BorrowedFd<'_>, name: &str, wanted: &Old) -> Result<(), FileError> {
    let fresh = format!(".new-configure-{name}");
    // Left by a boot that ended in a power cut.
    match rustix::fs::unlinkat(directory, &fresh, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed("remove", &fresh)(error)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &fresh, flags, Mode::from_raw_mode(0o600))
        .map_err(failed("make", &fresh))?;
    let mut file = fs::File::from(file);
    let written = (|| {
        file.write_all(&wanted.content)
            .map_err(failed("write", &fresh))?;
        let (user, group) = (Uid::from_raw(wanted.user), Gid::from_raw(wanted.group));
        rustix::fs::fchown(&file, Some(user), Some(group)).map_err(failed("chown", &fresh))?;
        // After the owner: a change of owner drops set-user-id bits.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted.mode))
            .map_err(failed("chmod", &fresh))?;
        file.sync_all().map_err(failed("fsync", &fresh))?;
        rustix::fs::renameat(directory, &fresh, directory, name).map_err(failed("rename", name))
    })();
    if written.is_err() {
        let _ = rustix::fs::unlinkat(directory, &fresh, AtFlags::empty());
    }
    written?;
    rustix::fs::fsync(directory).map_err(failed("fsync the directory of", name))
}

/// User and group in `user` or `user:group`. Without a group, the group of the same number.
fn owner(root: &Path, owner: &str) -> Result<(u32, u32), FileError> {
    let (user, group) = match owner.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (owner, None),
    };
    let user = id(root, "user", user, "/etc/passwd")?;
    match group {
        Some(group) => Ok((user, id(root, "group", group, "/etc/group")?)),
        None => Ok((user, user)),
    }
}

fn id(root: &Path, what: &'static str, name: &str, file: &'static str) -> Result<u32, FileError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    if name == "root" {
        return Ok(0);
    }
    let text = fs::read_to_string(root.join(file.trim_start_matches('/'))).unwrap_or_default();
    keelson_linux::accounts::id(&text, name).ok_or_else(|| FileError::Unknown {
        what,
        name: name.to_owned(),
        file,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn file(path: &str, contents: &str) -> FileConfig {
        FileConfig {
            path: path.to_owned(),
            contents: Some(contents.to_owned()),
            base64: None,
            mode: None,
            // Tests also run as others than root.
            owner: Some(format!(
                "{}:{}",
                rustix::process::getuid().as_raw(),
                rustix::process::getgid().as_raw()
            )),
            append: false,
        }
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        root
    }

    #[test]
    fn files_and_directories_are_made_once() {
        let root = root();
        let declared = [
            FileConfig {
                mode: Some("0600".to_owned()),
                ..file("/etc/a/b/secret", "x")
            },
            FileConfig {
                contents: None,
                base64: Some("AAEC\n/w==".to_owned()),
                ..file("/etc/binary", "")
            },
        ];
        assert_eq!(write_all(root.path(), &declared), Vec::<String>::new());
        let path = root.path().join("etc/a/b/secret");
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.permissions().mode() & 0o7777, 0o600);
        assert_eq!(
            fs::read(root.path().join("etc/binary")).unwrap(),
            [0, 1, 2, 255]
        );
        // What is right already stays the same file.
        assert!(write_all(root.path(), &declared).is_empty());
        assert_eq!(fs::metadata(&path).unwrap().ino(), before.ino());
        fs::write(&path, "changed").unwrap();
        assert!(write_all(root.path(), &declared).is_empty());
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }

    #[test]
    fn content_is_added_once() {
        let root = root();
        fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        let line = FileConfig {
            append: true,
            ..file("/etc/hosts", "192.0.2.1 gate\n")
        };
        for _ in 0..2 {
            assert!(write_all(root.path(), std::slice::from_ref(&line)).is_empty());
        }
        let text = fs::read_to_string(root.path().join("etc/hosts")).unwrap();
        assert_eq!(text, "127.0.0.1 localhost\n192.0.2.1 gate\n");
    }

    #[test]
    fn links_lead_nowhere_and_one_failure_leaves_the_others() {
        let root = root();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("etc/out")).unwrap();
        fs::write(outside.path().join("target"), "old").unwrap();
        symlink(outside.path().join("target"), root.path().join("etc/link")).unwrap();
        fs::create_dir(root.path().join("etc/directory")).unwrap();
        let problems = write_all(
            root.path(),
            &[
                file("/etc/out/x", "x"),
                file("/etc/link", "x"),
                file("/etc/directory", "x"),
                file("/etc/../../x", "x"),
                FileConfig {
                    owner: Some("nobody-has-this".to_owned()),
                    ..file("/etc/owned", "x")
                },
                file("/etc/good", "x"),
            ],
        );
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert!(!outside.path().join("x").exists());
        assert_eq!(
            fs::read_to_string(outside.path().join("target")).unwrap(),
            "old"
        );
        assert!(root.path().join("etc/good").is_file());
        let left = fs::read_dir(root.path().join("etc")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            left.iter()
                .all(|name| !name.to_string_lossy().starts_with(".new")),
            "{left:?}"
        );
    }

    #[test]
    fn names_are_looked_up_below_the_root() {
        let root = root();
        fs::write(root.path().join("etc/passwd"), "core:x:500:501:::\n").unwrap();
        fs::write(root.path().join("etc/group"), "wheel:x:10:\n").unwrap();
        assert_eq!(owner(root.path(), "core").unwrap(), (500, 500));
        assert_eq!(owner(root.path(), "core:wheel").unwrap(), (500, 10));
        assert_eq!(owner(root.path(), "7:8").unwrap(), (7, 8));
        let error = owner(root.path(), "core:nobody").unwrap_err();
        assert!(error.to_string().contains("/etc/group"), "{error}");
    }
}

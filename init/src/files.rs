//! Small files.

use std::fs;
use std::path::{Path, PathBuf};

use keelson_files::{Durability, FileError};

/// Replaces `path` by `content` with the given mode. Leftovers of a power cut beside it are
/// removed.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    if let Some(directory) = path.parent() {
        // The write reports a full or a bad disk.
        let _ = keelson_files::sweep_dead(directory);
    }
    keelson_files::write(path, content, mode, Durability::Flushed)
}

/// The paths of what is in a directory; none when it can't be read.
pub(crate) fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect()
}

/// The first line of a small text file, without blanks around it; `None` when it can't be read.
pub(crate) fn first_line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn replaces_content_and_mode_over_a_leftover() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine-id");
        fs::write(directory.path().join(".new-machine-id-99999999-0"), "torn").unwrap();
        fs::write(&path, "old").unwrap();
        replace(&path, b"new", 0o444).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o444
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

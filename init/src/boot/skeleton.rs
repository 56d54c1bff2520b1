//! Directories that must exist: /var is empty on the first boot, /run on every one.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;

/// Path and mode, parents first.
const DIRECTORIES: &[(&str, u32)] = &[
    ("run/lock", 0o1777),
    // All users may pass through it, because /etc/resolv.conf is a link to a file in it.
    ("run/keelson", 0o755),
    ("var/cache", 0o755),
    ("var/home", 0o755),
    ("var/lib", 0o755),
    ("var/lib/keelson", 0o700),
    ("var/lib/keelson/host", 0o700),
    ("var/log", 0o755),
    ("var/roothome", 0o700),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Link and target.
const LINKS: &[(&str, &str)] = &[("var/run", "../run"), ("var/lock", "../run/lock")];

/// Makes missing directories and links below `root`. The mode of an existing directory is not
/// changed: the operator may have set it.
pub(crate) fn make(root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, mode) in DIRECTORIES {
        let path = root.join(path);
        if let Err(error) = make_directory(&path, *mode) {
            problems.push(format!("create {}: {error}", path.display()));
        }
    }
    for (link, target) in LINKS {
        let link = root.join(link);
        match symlink(target, &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                problems.push(format!("symlink {}: {error}", link.display()));
            }
            _ => {}
        }
    }
    problems
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        // On some file systems mkdir(2) ignores the sticky bit, and it applies the umask.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_directories_once_and_leaves_modes_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        assert_eq!(make(root.path()), Vec::<String>::new());
        let mode = |path: &str| {
            let metadata = fs::metadata(root.path().join(path)).unwrap();
            metadata.permissions().mode() & 0o7777
        };
        assert_eq!(mode("var/tmp"), 0o1777);
        assert_eq!(mode("var/lib/keelson"), 0o700);
        fs::set_permissions(root.path().join("var/log"), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(make(root.path()), Vec::<String>::new());
        assert_eq!(mode("var/log"), 0o700);
        let run = fs::read_link(root.path().join("var/run")).unwrap();
        assert_eq!(run, Path::new("../run"));
    }

    #[test]
    fn a_file_in_the_way_is_a_problem_and_the_rest_is_made() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        fs::write(root.path().join("var/log"), "").unwrap();
        assert_eq!(make(root.path()).len(), 1);
        assert!(root.path().join("var/tmp").is_dir());
    }
}

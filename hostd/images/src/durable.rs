//! Synchronises staged objects before they are moved to their place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use keelson_sys::writeback;

use crate::error::ImageError;

/// If there are more objects than this (unpacked layers), the whole file system is synchronised.
const MAX_OBJECTS: usize = 128;

/// Writes these files and directories with their contents to disk. The whole file system of `root`
/// is synchronised only if listing the objects costs too much: on a busy machine that may mean
/// gigabytes of other programs' data.
pub(crate) fn sync(root: &Path, paths: Vec<PathBuf>) -> Result<(), ImageError> {
    match gather(paths).map_err(ImageError::io("list the objects to synchronise in", root))? {
        Some(objects) => objects.flush(),
        None => File::open(root)
            .and_then(|directory| Ok(rustix::fs::syncfs(&directory)?))
            .map_err(ImageError::io("sync", root)),
    }
}

/// Opens everything below some paths. Open files stay reachable: another commit may move a layer
/// that both wanted to its place at any time.
#[derive(Default)]
struct Objects {
    files: Vec<(PathBuf, File)>,
    directories: Vec<(PathBuf, File)>,
}

/// `None`: there are too many objects, or some that can't be opened without side effects, or one
/// was moved already.
fn gather(mut paths: Vec<PathBuf>) -> io::Result<Option<Objects>> {
    let mut objects = Objects::default();
    let mut add = |path: PathBuf, more: &mut Vec<PathBuf>| -> io::Result<bool> {
        if objects.files.len() + objects.directories.len() >= MAX_OBJECTS {
            return Ok(false);
        }
        let kind = fs::symlink_metadata(&path)?.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                more.push(entry?.path());
                if more.len() > MAX_OBJECTS {
                    return Ok(false);
                }
            }
            let directory = File::open(&path)?;
            objects.directories.push((path, directory));
        } else if kind.is_file() {
            let file = File::open(&path)?;
            objects.files.push((path, file));
        } else {
            return Ok(false);
        }
        Ok(true)
    };
    while let Some(path) = paths.pop() {
        match add(path, &mut paths) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(objects))
}

impl Objects {
    /// All data first, then the metadata: so the first fsync commits the journal for all files, and
    /// the others find nothing to do.
    fn flush(self) -> Result<(), ImageError> {
        for (_, file) in &self.files {
            writeback::start(file, 0, 0);
        }
        each(&self.files, writeback::wait)?;
        each(&self.files, File::sync_all)?;
        each(&self.directories, File::sync_all)
    }
}

fn each(objects: &[(PathBuf, File)], act: fn(&File) -> io::Result<()>) -> Result<(), ImageError> {
    objects
        .iter()
        .try_for_each(|(path, file)| act(file).map_err(ImageError::io("sync", path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(directory: &Path) -> Option<(usize, usize)> {
        let objects = gather(vec![directory.to_owned()]).unwrap();
        objects.map(|objects| (objects.files.len(), objects.directories.len()))
    }

    #[test]
    fn finds_files_and_directories() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("layer");
        fs::create_dir(&inside).unwrap();
        for name in ["a", "layer/b", "layer/c"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        assert_eq!(gathered(directory.path()), Some((3, 2)));
        sync(directory.path(), vec![inside]).unwrap();
    }

    #[test]
    fn leaves_the_rest_to_the_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("tree");
        fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("/", inside.join("link")).unwrap();
        assert_eq!(gathered(directory.path()), None);
        fs::remove_file(inside.join("link")).unwrap();
        for number in 0..MAX_OBJECTS {
            fs::write(inside.join(number.to_string()), "").unwrap();
        }
        assert_eq!(gathered(directory.path()), None);
        assert_eq!(gathered(&directory.path().join("gone")), None);
        sync(directory.path(), vec![inside]).unwrap();
    }
}

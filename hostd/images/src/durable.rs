//! What was staged reaches the disk before it gets its place.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use keelson_sys::writeback;

use crate::error::ImageError;

/// More objects than this (layers that are unpacked) are synced with all of their file system.
const MAX_OBJECTS: usize = 128;

/// Writes these files, and folders with all that is inside, to disk. Only what cannot be told
/// apart cheaply is synced together with what others write to the file system of `root`: a busy
/// machine may have gigabytes of that.
pub(crate) fn sync(root: &Path, paths: Vec<PathBuf>) -> Result<(), ImageError> {
    match gather(paths).map_err(ImageError::io("look for what is to be synced in", root))? {
        Some(objects) => objects.flush(),
        None => File::open(root)
            .and_then(|folder| Ok(rustix::fs::syncfs(&folder)?))
            .map_err(ImageError::io("sync", root)),
    }
}

/// Everything below some paths, opened: another commit may move a layer that both wanted to its
/// place at any time.
#[derive(Default)]
struct Objects {
    files: Vec<(PathBuf, File)>,
    folders: Vec<(PathBuf, File)>,
}

/// `None`: there are many, or some that cannot be opened without effect, or one was moved already.
fn gather(mut paths: Vec<PathBuf>) -> io::Result<Option<Objects>> {
    let mut objects = Objects::default();
    let mut add = |path: PathBuf, more: &mut Vec<PathBuf>| -> io::Result<bool> {
        if objects.files.len() + objects.folders.len() >= MAX_OBJECTS {
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
            let folder = File::open(&path)?;
            objects.folders.push((path, folder));
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
    /// All data first, then everything that describes them: so the first fsync commits the journal
    /// for all, and the others find nothing to do.
    fn flush(self) -> Result<(), ImageError> {
        for (_, file) in &self.files {
            writeback::start(file, 0, 0);
        }
        each(&self.files, writeback::wait)?;
        each(&self.files, File::sync_all)?;
        each(&self.folders, File::sync_all)
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

    fn gathered(folder: &Path) -> Option<(usize, usize)> {
        let objects = gather(vec![folder.to_owned()]).unwrap();
        objects.map(|objects| (objects.files.len(), objects.folders.len()))
    }

    #[test]
    fn finds_files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("layer");
        fs::create_dir(&inside).unwrap();
        for name in ["a", "layer/b", "layer/c"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        assert_eq!(gathered(folder.path()), Some((3, 2)));
        sync(folder.path(), vec![inside]).unwrap();
    }

    #[test]
    fn leaves_the_rest_to_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("tree");
        fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("/", inside.join("link")).unwrap();
        assert_eq!(gathered(folder.path()), None);
        fs::remove_file(inside.join("link")).unwrap();
        for number in 0..MAX_OBJECTS {
            fs::write(inside.join(number.to_string()), "").unwrap();
        }
        assert_eq!(gathered(folder.path()), None);
        assert_eq!(gathered(&folder.path().join("gone")), None);
        sync(folder.path(), vec![inside]).unwrap();
    }
}

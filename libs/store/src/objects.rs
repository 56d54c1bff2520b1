//! A directory per object.
//!
//! ```text
//! BASE/<name>/            everything that belongs to the object
//! BASE/<name>/<document>  its document
//! BASE/<name>/.unsettled  a symbolic link whose target is the boot in which the object was made;
//!                         there until its document is on the disk
//! BASE/.trash/<unique>    removed objects whose files are not deleted yet, and new ones without a mark
//! ```
//!
//! An object exists once its document is written, and is removed by one rename into the trash. If a
//! crash leaves a directory without a document, [`Objects::open`] removes it. It recognises it by
//! the mark `.unsettled` (a link, because a link's target is stored with its name: a power cut
//! leaves both or neither). A directory without the mark was a complete object once, whatever is
//! left of its document. It stays, and the code that reads it reports the problem.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{StoreError, file};

const TRASH: &str = ".trash";
const UNSETTLED: &str = ".unsettled";

/// A directory of objects.
#[derive(Debug)]
pub struct Objects {
    base: PathBuf,
    document: &'static str,
    boot: String,
    counter: AtomicU64,
}

impl Objects {
    /// Opens the directory, makes it when it does not exist, and cleans up after a crash: objects
    /// that were certainly never completed and leftover temporary files are removed, and the trash
    /// is emptied. Entries that can't be read or removed are left for the next time. `boot`
    /// identifies the running boot of the kernel.
    ///
    /// # Errors
    /// [`StoreError::Io`], when the directory itself can't be made or read.
    pub fn open(base: &Path, document: &'static str, boot: &str) -> Result<Self, StoreError> {
        let trash = base.join(TRASH);
        fs::create_dir_all(&trash).map_err(StoreError::io("create directory", &trash))?;
        let objects = Self {
            base: base.to_owned(),
            document,
            boot: boot.to_owned(),
            counter: AtomicU64::new(0),
        };
        for name in objects.names()? {
            if objects.was_never_made(&name) {
                tracing::info!(name, "an object that was never made is removed");
                if let Err(error) = objects.discard(&name) {
                    tracing::warn!(name, %error, "object that was never made not removed");
                }
            } else if let Err(error) = file::sweep(&base.join(&name)) {
                tracing::warn!(name, %error, "temporary files not removed");
            }
        }
        match fs::read_dir(&trash) {
            Ok(entries) => {
                for entry in entries.flatten() {
                    if let Err(error) = remove_tree(&entry.path()) {
                        tracing::warn!(%error, "trash not emptied");
                    }
                }
            }
            Err(error) => tracing::warn!(trash = %trash.display(), %error, "trash not emptied"),
        }
        Ok(objects)
    }

    /// The names of all objects, sorted.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let read = StoreError::io("read directory", &self.base);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.base).map_err(read)? {
            let entry = entry.map_err(StoreError::io("read directory", &self.base))?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The directory of an object, whether it exists or not.
    ///
    /// # Errors
    /// [`StoreError::Name`] for a name that is not a plain file name.
    pub fn directory(&self, name: &str) -> Result<PathBuf, StoreError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(StoreError::Name {
                name: name.to_owned(),
            });
        }
        Ok(self.base.join(name))
    }

    /// Makes the directory of a new object. The object exists only once its document is written.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory exists already or cannot be made.
    pub fn prepare(&self, name: &str) -> Result<PathBuf, StoreError> {
        let directory = self.directory(name)?;
        // Made and marked in the trash, which a start of the engine empties. It must not appear
        // under its name without the mark, because nobody could know then that it was never
        // completed.
        let made = self.make_in_trash(name)?;
        let mark = made.join(UNSETTLED);
        let moved = std::os::unix::fs::symlink(&self.boot, &mark)
            .map_err(StoreError::io("mark", &mark))
            .and_then(|()| {
                renameat_with(CWD, &made, CWD, &directory, RenameFlags::NOREPLACE)
                    .map_err(|error| StoreError::io("create directory", &directory)(error.into()))
            });
        if let Err(error) = moved {
            // If it can't be removed now, the next start removes it.
            let _ = remove_tree(&made);
            return Err(error);
        }
        Ok(directory)
    }

    /// A new empty directory in the trash.
    fn make_in_trash(&self, name: &str) -> Result<PathBuf, StoreError> {
        loop {
            let target = self.in_trash(name);
            match fs::create_dir(&target) {
                Ok(()) => return Ok(target),
                // Left by an earlier run of the process: numbers start at 0 each time.
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(StoreError::io("create directory", &target)(error)),
            }
        }
    }

    /// A path in the trash that this process has not used yet.
    fn in_trash(&self, name: &str) -> PathBuf {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        self.base.join(TRASH).join(format!("{name}-{number}"))
    }

    /// Removes the mark, because the object's document is on the disk or need not be. From now on
    /// the object never counts as incomplete. If the mark can't be removed, that does no harm while
    /// the document is readable.
    pub fn settle(&self, name: &str) {
        let removed = self.directory(name).and_then(|directory| {
            let mark = directory.join(UNSETTLED);
            fs::remove_file(&mark).map_err(StoreError::io("remove", &mark))
        });
        match removed {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(name, %error, "mark of a new object not removed");
            }
            _ => {}
        }
    }

    /// The path of an object's document.
    ///
    /// # Errors
    /// As for [`Objects::directory`].
    pub fn document(&self, name: &str) -> Result<PathBuf, StoreError> {
        Ok(self.directory(name)?.join(self.document))
    }

    /// Removes an object by one rename. Returns the path of its files, to be deleted with
    /// [`remove_tree`]. `None` if it did not exist.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn discard(&self, name: &str) -> Result<Option<PathBuf>, StoreError> {
        let directory = self.directory(name)?;
        loop {
            let target = self.in_trash(name);
            match fs::rename(&directory, &target) {
                Ok(()) => return Ok(Some(target)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                // Left by an earlier run of the process: numbers start at 0 each time.
                Err(error) if is_taken(&error) => {}
                Err(error) => return Err(StoreError::io("rename", &directory)(error)),
            }
        }
    }

    /// Whether [`Objects::settle`] was called for an object, as far as known.
    pub fn is_settled(&self, name: &str) -> bool {
        fs::read_link(self.base.join(name).join(UNSETTLED)).is_err()
    }

    /// Whether the object was certainly never completed: it has the mark, and its document is
    /// missing, or empty as a power cut since then may leave it. In doubt it counts as complete.
    fn was_never_made(&self, name: &str) -> bool {
        let directory = self.base.join(name);
        let Ok(boot) = fs::read_link(directory.join(UNSETTLED)) else {
            return false;
        };
        match fs::symlink_metadata(directory.join(self.document)) {
            Err(error) => error.kind() == ErrorKind::NotFound,
            Ok(found) => {
                found.is_file() && found.len() == 0 && boot.as_os_str() != self.boot.as_str()
            }
        }
    }
}

/// How often deleting a tree is tried again if others add files to it.
const ATTEMPTS: usize = 16;

fn is_taken(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
    )
}

/// Deletes a file, or a directory with its contents, without following symbolic links. It is no
/// error if it does not exist. Files that others add meanwhile are deleted, too, within limits.
///
/// # Errors
/// [`StoreError::Io`].
pub fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let remove = || match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    let mut result = remove();
    for _ in 1..ATTEMPTS {
        match &result {
            // Another process has added a file to a directory that was empty before.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => result = remove(),
            _ => break,
        }
    }
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Durability;

    fn open(base: &Path) -> Objects {
        open_in(base, "boot-1")
    }

    fn open_in(base: &Path, boot: &str) -> Objects {
        Objects::open(base, "object.json", boot).unwrap()
    }

    fn make(objects: &Objects, name: &str) {
        objects.prepare(name).unwrap();
        let path = objects.document(name).unwrap();
        file::write(&path, b"{\"version\":1}", 0o600, Durability::Relaxed).unwrap();
        objects.settle(name);
    }

    #[test]
    fn an_object_exists_from_its_document_to_its_removal() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(directory.path());
        make(&objects, "a");
        make(&objects, "b");
        assert!(objects.prepare("a").is_err());
        let trash = objects.discard("a").unwrap().unwrap();
        assert_eq!(objects.names().unwrap(), ["b"]);
        assert!(trash.join("object.json").exists());
        remove_tree(&trash).unwrap();
        remove_tree(&trash).unwrap();
        assert_eq!(objects.discard("a").unwrap(), None);
        // The name is free again.
        make(&objects, "a");
        assert_eq!(open(directory.path()).names().unwrap(), ["a", "b"]);
    }

    #[test]
    fn every_state_that_a_crash_leaves_is_cleaned() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(directory.path());
        make(&objects, "whole");
        fs::write(directory.path().join("whole/.new-object.json-1-1"), "{").unwrap();
        // Killed after the directory was made.
        objects.prepare("bare").unwrap();
        // Killed before the new directory had its mark, or before it had its name.
        fs::create_dir(directory.path().join(TRASH).join("unmarked-0")).unwrap();
        // Killed with files in it, and with a half-written document.
        let half = objects.prepare("half").unwrap();
        fs::create_dir(half.join("upper")).unwrap();
        fs::write(half.join(".new-object.json-7-0"), "{\"ver").unwrap();
        // Killed after the document was written, before it was on the disk.
        let written = objects.prepare("written").unwrap();
        fs::write(written.join("object.json"), "{\"version\":1}").unwrap();
        // The power failed after a relaxed write.
        let empty = objects.prepare("empty").unwrap();
        fs::write(empty.join("object.json"), "").unwrap();
        // Killed after the removing rename, before the files were deleted.
        make(&objects, "gone");
        objects.discard("gone").unwrap();

        // The same boot can't have left an empty document.
        let objects = open(directory.path());
        assert_eq!(objects.names().unwrap(), ["empty", "whole", "written"]);
        let objects = open_in(directory.path(), "boot-2");
        assert_eq!(objects.names().unwrap(), ["whole", "written"]);
        let left = fs::read_dir(directory.path().join("whole"))
            .unwrap()
            .count();
        assert_eq!(left, 1, "the temporary file is gone, the document is not");
        let trash = fs::read_dir(directory.path().join(TRASH)).unwrap().count();
        assert_eq!(trash, 0);
    }

    #[test]
    fn completed_objects_are_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(directory.path());
        for name in ["empty", "missing", "folder", "loop", "unsettled-folder"] {
            make(&objects, name);
            fs::write(directory.path().join(name).join("kept"), "kept").unwrap();
            let document = objects.document(name).unwrap();
            fs::remove_file(&document).unwrap();
            match name {
                "empty" => fs::write(&document, "").unwrap(),
                "loop" => std::os::unix::fs::symlink("object.json", &document).unwrap(),
                "missing" => {}
                _ => fs::create_dir(&document).unwrap(),
            }
        }
        let mark = directory.path().join("unsettled-folder").join(UNSETTLED);
        std::os::unix::fs::symlink("boot-1", mark).unwrap();
        let before = objects.names().unwrap();
        let objects = open_in(directory.path(), "boot-2");
        assert_eq!(objects.names().unwrap(), before);
        for name in before {
            assert!(directory.path().join(&name).join("kept").exists(), "{name}");
        }
    }

    #[test]
    fn files_added_while_a_tree_is_removed_are_removed_too() {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("run");
        for _ in 0..200 {
            fs::create_dir_all(run.join("execs")).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..8 {
                        // Fails as soon as the directory is gone.
                        let _ = fs::write(run.join("execs").join(number.to_string()), "x");
                    }
                });
                remove_tree(&run).unwrap();
            });
            remove_tree(&run).unwrap();
            assert!(!run.exists());
        }
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(directory.path());
        for name in ["", ".", "..", ".trash", "a/b", "../a", "a\0b"] {
            assert!(objects.prepare(name).is_err(), "{name:?}");
            assert!(objects.discard(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn trash_of_an_earlier_run_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path());
        let second = open(directory.path());
        make(&first, "a");
        first.discard("a").unwrap();
        make(&first, "a");
        assert!(second.discard("a").unwrap().is_some());
    }
}

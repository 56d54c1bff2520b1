//! Where things lie, and how they come to lie there: staging folder, sync of what is in it, renames
//! in the order in which things refer to each other.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use keelson_oci::config::ImageConfig;
use keelson_oci::digest::Digest;
use keelson_store::file::Prepared;
use keelson_store::{Durability, FileLock, document, file};

use crate::error::ImageError;
use crate::layer::{LayerRecord, RECORD};
use crate::records::{ImageRecord, Repositories};
use crate::reserve::Reserve;
use crate::state::{Entry, State};

/// The folders of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    counter: AtomicU64,
    /// What makes removals possible on a full disk.
    pub reserve: Reserve,
    /// Held as long as the store is open: two processes would sweep each other's staging folders.
    _lock: FileLock,
}

impl Disk {
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        for name in ["", "staging", "layers", "blobs", "images"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(ImageError::io("create folder", &path))?;
        }
        let lock = FileLock::take(&root.join("images.lock"))?;
        let disk = Self {
            root: root.to_owned(),
            counter: AtomicU64::new(0),
            reserve: Reserve::new(root),
            _lock: lock,
        };
        disk.sweep_staging()?;
        Ok(disk)
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.hex())
    }

    /// Reads a blob.
    pub(crate) fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(digest);
        fs::read(&path).map_err(ImageError::io("read", &path))
    }

    pub(crate) fn image(&self, id: &Digest) -> PathBuf {
        self.root.join("images").join(format!("{}.json", id.hex()))
    }

    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.join("repositories.json")
    }

    fn sweep_staging(&self) -> Result<(), ImageError> {
        for path in names(&self.root.join("staging"))? {
            remove_tree(&path)?;
        }
        Ok(())
    }

    /// A new staging folder; dropping it removes it with all that is still inside.
    pub(crate) fn stage(&self) -> Result<Staging, ImageError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("staging").join(number.to_string());
        fs::create_dir(&path).map_err(ImageError::io("create folder", &path))?;
        Ok(Staging { path })
    }

    /// Reads everything that was committed. What a crash left without a document that refers to
    /// it is removed.
    pub(crate) fn read(&self) -> Result<State, ImageError> {
        let mut state = State::default();
        for path in names(&self.root.join("layers"))? {
            // Besides, a killed process may have been writing its record again.
            if path.is_dir() {
                file::sweep(&path)?;
            }
            match read_or_damaged::<LayerRecord>(&path.join(RECORD))? {
                Some(record) => {
                    state.layers.insert(record.diff_id, record);
                }
                None => remove_tree(&path)?,
            }
        }
        file::sweep(&self.root)?;
        file::sweep(&self.root.join("images"))?;
        for path in names(&self.root.join("images"))? {
            let Some(record) = read_or_damaged::<ImageRecord>(&path)? else {
                file::remove(&path)?;
                continue;
            };
            match self.read_image(&record, &state) {
                Ok(entry) => {
                    state.images.insert(record.id, entry);
                }
                Err(error) => {
                    tracing::warn!(image = %record.id, %error, "removing a damaged image");
                    file::remove(&path)?;
                }
            }
        }
        state.repositories = read_or_damaged(&self.repositories())?.unwrap_or_default();
        let images = &state.images;
        state
            .repositories
            .references
            .retain(|_, tagged| images.contains_key(&tagged.id));
        for path in names(&self.root.join("blobs"))? {
            let used = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| Digest::from_hex(name).ok())
                .is_some_and(|digest| {
                    state.images.values().any(|entry| {
                        entry.record.id == digest || entry.record.manifest == Some(digest)
                    })
                });
            if !used {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        Ok(state)
    }

    fn read_image(&self, record: &ImageRecord, state: &State) -> Result<Entry, ImageError> {
        let path = self.blob(&record.id);
        let raw = fs::read(&path).map_err(ImageError::io("read", &path))?;
        if Digest::of(&raw) != record.id {
            return Err(ImageError::Damaged(format!(
                "{} does not have the digest that it is named by",
                path.display()
            )));
        }
        let config =
            ImageConfig::parse(&raw).map_err(|error| ImageError::Damaged(error.to_string()))?;
        for diff_id in &config.rootfs.diff_ids {
            if !state.layers.contains_key(diff_id) {
                return Err(ImageError::Damaged(format!("layer {diff_id} is missing")));
            }
        }
        Ok(Entry::new(record.clone(), config, raw))
    }

    /// Moves a staged layer to its place. False when it is there already.
    pub(crate) fn place_layer(&self, staged: &Path, diff_id: &Digest) -> Result<bool, ImageError> {
        let target = self.layer(diff_id);
        match fs::rename(staged, &target) {
            Ok(()) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(ImageError::io("rename to", &target)(error)),
        }
    }

    /// Moves a staged blob to its place.
    pub(crate) fn place_blob(&self, staged: &Path, digest: &Digest) -> Result<(), ImageError> {
        let target = self.blob(digest);
        fs::rename(staged, &target).map_err(ImageError::io("rename to", &target))
    }

    /// Moves a staged image record to its place, which makes the image exist.
    pub(crate) fn place_image(&self, staged: &Path, id: &Digest) -> Result<(), ImageError> {
        let target = self.image(id);
        fs::rename(staged, &target).map_err(ImageError::io("rename to", &target))
    }

    pub(crate) fn write_image(&self, record: &ImageRecord) -> Result<(), ImageError> {
        Ok(document::write(
            &self.image(&record.id),
            record,
            Durability::Flushed,
        )?)
    }

    /// Writes a layer's record again.
    pub(crate) fn write_layer(&self, record: &LayerRecord) -> Result<(), ImageError> {
        Ok(document::write(
            &self.layer(&record.diff_id).join(RECORD),
            record,
            Durability::Flushed,
        )?)
    }

    /// Writes a blob again. The staging folder is where it can be torn without harm.
    pub(crate) fn restore_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let staging = self.stage()?;
        let path = staging.path.join("blob");
        file::write(&path, bytes, 0o600, Durability::Flushed)?;
        self.place_blob(&path, digest)?;
        Ok(file::flush_folder(&self.root.join("blobs"))?)
    }

    pub(crate) fn write_repositories(&self, repositories: &Repositories) -> Result<(), ImageError> {
        Ok(self.prepare_repositories(repositories)?.place()?)
    }

    /// Brings the names to the disk, so that they only need their place.
    pub(crate) fn prepare_repositories(
        &self,
        repositories: &Repositories,
    ) -> Result<Prepared, ImageError> {
        Ok(document::prepare(&self.repositories(), repositories)?)
    }

    /// Makes the renames of a commit survive a power cut.
    pub(crate) fn flush(&self) -> Result<(), ImageError> {
        for name in ["layers", "blobs", "images"] {
            file::flush_folder(&self.root.join(name))?;
        }
        Ok(())
    }

    /// Removes an image's record, and then its blobs.
    pub(crate) fn remove_image(&self, record: &ImageRecord) -> Result<(), ImageError> {
        file::remove(&self.image(&record.id))?;
        for digest in [Some(record.id), record.manifest].into_iter().flatten() {
            self.remove_blob(&digest);
        }
        Ok(())
    }

    /// Removes a blob that nothing refers to any more. One that stays is swept by the next start.
    pub(crate) fn remove_blob(&self, digest: &Digest) {
        let path = self.blob(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a blob could not be removed");
            }
            _ => {}
        }
    }

    /// Removes a layer: out of sight by one rename, into the folder given back, which is to be
    /// dropped where time does not matter.
    pub(crate) fn remove_layer(&self, diff_id: &Digest) -> Result<Staging, ImageError> {
        let staging = self.reserve.with(|| self.stage())?;
        let path = self.layer(diff_id);
        match fs::rename(&path, staging.path.join("layer")) {
            Ok(()) => Ok(staging),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(staging),
            Err(error) => Err(ImageError::io("remove", &path)(error)),
        }
    }
}

/// A folder for things that are not committed yet.
#[derive(Debug)]
pub(crate) struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(%error, "a staging folder is left until the next start");
        }
    }
}

/// Reads a document. One that the disk damaged counts as none: a flipped bit in one image must not
/// keep all others from being used. One of a newer release is an error.
fn read_or_damaged<T: document::Document>(path: &Path) -> Result<Option<T>, ImageError> {
    match document::read(path) {
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "a document of the image store is damaged, and passed over");
            Ok(None)
        }
        other => Ok(other?),
    }
}

fn names(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let failed = || ImageError::io("read folder", folder);
    fs::read_dir(folder)
        .map_err(failed())?
        .map(|entry| entry.map(|entry| entry.path()).map_err(failed()))
        .collect()
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(ImageError::io("remove", path))
        }
        Err(error) => Err(ImageError::io("remove folder", path)(error)),
    }
}

//! The directories of the store, and how objects get there: files are written to a staging
//! directory, synchronised, and renamed in the order in which they refer to each other.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keelson_oci::config::ImageConfig;
use keelson_oci::digest::Digest;
use keelson_store::file::Prepared;
use keelson_store::{Durability, Era, FileLock, StoreError, document, file};

use crate::error::ImageError;
use crate::layer::{LayerForm, LayerRecord, RECORD, erofs};
use crate::records::{ImageRecord, Repositories};
use crate::reserve::Reserve;
use crate::state::{Entry, State};
use crate::unreadable::Unreadable;

/// Directory for objects that were moved aside because they could not be read.
const ASIDE: &str = "unreadable";
/// How the names of such layers and of image records begin there.
const LAYER_ASIDE: &str = "layer-";
const IMAGE_ASIDE: &str = "image-";
/// Name of a document of names that was moved aside.
const NAMES_ASIDE: &str = "repositories.json.unreadable";

/// The directories of a store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// The release that documents are written for.
    pub era: Era,
    counter: AtomicU64,
    /// Whether the document of names exists but can't be read.
    names_unreadable: AtomicBool,
    /// The reserved space that makes removals possible on a full disk.
    pub reserve: Reserve,
    /// Held while the store is open: two processes would delete each other's staging directories.
    _lock: FileLock,
}

/// What was moved aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsideKind {
    /// A layer.
    Layer,
    /// The record of an image.
    Image,
}

impl Disk {
    pub(crate) fn open(root: &Path, era: Era) -> Result<Self, ImageError> {
        for name in ["", "staging", "layers", "blobs", "images"] {
            let path = root.join(name);
            fs::create_dir_all(&path).map_err(ImageError::io("create directory", &path))?;
        }
        let lock = FileLock::take(&root.join("images.lock"))?;
        let disk = Self {
            root: root.to_owned(),
            era,
            counter: AtomicU64::new(0),
            names_unreadable: AtomicBool::new(false),
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

    /// A new staging directory. Dropping it removes it with its contents.
    pub(crate) fn stage(&self) -> Result<Staging, ImageError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("staging").join(number.to_string());
        fs::create_dir(&path).map_err(ImageError::io("create directory", &path))?;
        Ok(Staging { path })
    }

    /// The best way to keep layers that this machine has.
    pub(crate) fn best_form(&self) -> LayerForm {
        // A full disk does not mean that the kernel lacks EROFS.
        let probed = self
            .reserve
            .with(|| self.stage().and_then(|staging| erofs::probe(&staging.path)));
        self.reserve.restore();
        match probed {
            Ok(()) => LayerForm::Erofs,
            Err(error) => {
                tracing::info!(%error, "layers are unpacked to directories");
                LayerForm::Directory
            }
        }
    }

    /// Reads everything that was committed. Unreadable objects are kept and remembered; only
    /// objects that belong to no image are removed.
    pub(crate) fn read(&self) -> Result<State, ImageError> {
        let mut state = State::default();
        for path in names(&self.root.join("layers"))? {
            let Some(diff_id) = digest_of(&path, "") else {
                continue;
            };
            // A killed process may have been rewriting the record.
            if let Err(error) = file::sweep(&path) {
                tracing::warn!(path = %path.display(), %error, "not swept");
            }
            match read_document::<LayerRecord>(&path.join(RECORD)) {
                Ok(record) if record.diff_id == diff_id => {
                    state.layers.insert(diff_id, record);
                }
                Ok(_) => state
                    .unreadable
                    .layer(diff_id, "its record is another layer's"),
                Err(error) => state.unreadable.layer(diff_id, &error.to_string()),
            }
        }
        file::sweep(&self.root)?;
        file::sweep(&self.root.join("images"))?;
        for path in names(&self.root.join("images"))? {
            let Some(id) = digest_of(&path, ".json") else {
                continue;
            };
            let (record, reason) = match read_document::<ImageRecord>(&path) {
                Ok(record) if record.id == id => (Some(record), String::new()),
                Ok(_) => (None, format!("{}: it is another image's", path.display())),
                Err(error) => (None, error.to_string()),
            };
            match (self.read_image(id, record, reason), &mut state) {
                (Ok(entry), state) => match state.has_layers(&entry) {
                    Ok(()) => {
                        state.images.insert(id, entry);
                    }
                    Err(lack) => {
                        let reason = lack.to_string();
                        let unreadable = Unreadable::of(&entry.record, entry.diff_ids(), reason);
                        state.unreadable.image(id, unreadable);
                    }
                },
                (Err(unreadable), state) => state.unreadable.image(id, *unreadable),
            }
        }
        self.read_names(&mut state)?;
        self.sweep_blobs(&state)?;
        Ok(state)
    }

    /// The names. An unreadable document is not overwritten, see [`Self::prepare_repositories`].
    fn read_names(&self, state: &mut State) -> Result<(), ImageError> {
        let path = self.repositories();
        match document::read::<Repositories>(&path) {
            Ok(found) => state.repositories = found.unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "the names of images can't be read");
                self.names_unreadable.store(true, Ordering::Relaxed);
                state.unreadable.names = Some((path, error.to_string()));
            }
        }
        let readable = state.unreadable.names.is_none();
        let mut taken_back = Vec::new();
        for path in names(&self.root)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| name.starts_with(NAMES_ASIDE)) {
                continue;
            }
            // A document that an older release moved aside as too new, if this release can read it.
            if readable && let Ok(Some(found)) = document::read::<Repositories>(&path) {
                for (name, tagged) in found.references {
                    state.repositories.references.entry(name).or_insert(tagged);
                }
                taken_back.push(path);
                continue;
            }
            let reason = "names that could not be read were put aside here; when none of them is \
                          missed, remove the file";
            state.unreadable.names = Some((path, reason.to_owned()));
        }
        let State {
            repositories,
            images,
            unreadable,
            ..
        } = state;
        repositories.references.retain(|name, tagged| {
            let known =
                images.contains_key(&tagged.id) || unreadable.images.contains_key(&tagged.id);
            if !known {
                tracing::warn!(name, image = %tagged.id, "a name of no image is dropped");
            }
            known
        });
        if !taken_back.is_empty() {
            self.write_repositories(&state.repositories)?;
        }
        for path in taken_back {
            tracing::info!(path = %path.display(), "names that were put aside are taken back");
            file::remove(&path)?;
        }
        Ok(())
    }

    /// Removes blobs that no image refers to, if all images are known.
    fn sweep_blobs(&self, state: &State) -> Result<(), ImageError> {
        if state
            .unreadable
            .images
            .values()
            .any(|one| one.record.is_none())
        {
            return Ok(());
        }
        let records = state.images.values().map(|entry| &entry.record);
        let unreadable = state.unreadable.images.values();
        let records = records.chain(unreadable.filter_map(|one| one.record.as_ref()));
        let used: HashSet<Digest> = records
            .flat_map(|record| [Some(record.id), record.manifest])
            .flatten()
            .collect();
        for path in names(&self.root.join("blobs"))? {
            if let Some(digest) = digest_of(&path, "")
                && !used.contains(&digest)
            {
                self.remove_blob(&digest);
            }
        }
        Ok(())
    }

    /// Reads an image's configuration. `record` is missing for this `reason`.
    pub(crate) fn read_image(
        &self,
        id: Digest,
        record: Option<ImageRecord>,
        reason: String,
    ) -> Result<Entry, Box<Unreadable>> {
        let path = self.blob(&id);
        let wrong = |reason: String| format!("{}: {reason}", path.display());
        let read = || {
            let raw = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
            if Digest::of(&raw) != id {
                return Err(wrong("it has another digest than its name says".to_owned()));
            }
            let config = ImageConfig::parse_stored(&raw);
            Ok((config.map_err(|error| wrong(error.to_string()))?, raw))
        };
        match (read(), record) {
            (Ok((config, raw)), Some(record)) => Ok(Entry::new(record, config, raw)),
            (Ok((config, _)), None) => Err(Box::new(Unreadable {
                reason,
                record: None,
                layers: Some(config.rootfs.diff_ids),
            })),
            (Err(config), record) => Err(Box::new(Unreadable {
                reason: match record {
                    Some(_) => config,
                    None => reason,
                },
                record,
                layers: None,
            })),
        }
    }

    /// Moves a layer's unreadable directory aside, to a place where no layers are looked for.
    pub(crate) fn put_layer_aside(&self, diff_id: &Digest) -> Result<PathBuf, ImageError> {
        let directory = self.root.join(ASIDE);
        fs::create_dir_all(&directory).map_err(ImageError::io("create directory", &directory))?;
        let target = free_name(&directory.join(format!("{LAYER_ASIDE}{}", diff_id.hex())));
        let path = self.layer(diff_id);
        fs::rename(&path, &target).map_err(ImageError::io("put aside", &path))?;
        tracing::warn!(to = %target.display(), "an unreadable layer is put aside");
        Ok(target)
    }

    /// Moves an image's record aside that a newer release wrote, because a new one will replace it.
    pub(crate) fn spare_newer_image(&self, id: &Digest) -> Result<(), ImageError> {
        let path = self.image(id);
        let found = document::read::<ImageRecord>(&path);
        if !found.is_err_and(|error| error.is_too_new()) {
            return Ok(());
        }
        let directory = self.root.join(ASIDE);
        fs::create_dir_all(&directory).map_err(ImageError::io("create directory", &directory))?;
        let target = free_name(&directory.join(format!("{IMAGE_ASIDE}{}.json", id.hex())));
        fs::rename(&path, &target).map_err(ImageError::io("put aside", &path))?;
        tracing::warn!(to = %target.display(), "the record of a newer release is put aside");
        Ok(())
    }

    /// The objects that were moved aside because they could not be read, with their kinds.
    pub(crate) fn aside(&self) -> Vec<(AsideKind, PathBuf)> {
        let paths = names(&self.root.join(ASIDE)).unwrap_or_default();
        let kind = |path: &Path| {
            let name = path.file_name().map(|name| name.to_string_lossy());
            match name.is_some_and(|name| name.starts_with(IMAGE_ASIDE)) {
                true => AsideKind::Image,
                false => AsideKind::Layer,
            }
        };
        paths.into_iter().map(|path| (kind(&path), path)).collect()
    }

    /// Moves a staged layer to its place. False if it is there already.
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
            self.era,
            Durability::Flushed,
        )?)
    }

    /// Writes a layer's record again.
    pub(crate) fn write_layer(&self, record: &LayerRecord) -> Result<(), ImageError> {
        Ok(document::write(
            &self.layer(&record.diff_id).join(RECORD),
            record,
            self.era,
            Durability::Flushed,
        )?)
    }

    /// Writes a blob again. It is written in the staging directory, where an incomplete file does
    /// no harm.
    pub(crate) fn restore_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let staging = self.stage()?;
        let path = staging.path.join("blob");
        file::write(&path, bytes, 0o600, Durability::Flushed)?;
        self.place_blob(&path, digest)?;
        Ok(file::flush_directory(&self.root.join("blobs"))?)
    }

    pub(crate) fn write_repositories(&self, repositories: &Repositories) -> Result<(), ImageError> {
        Ok(self.prepare_repositories(repositories)?.place()?)
    }

    /// Writes the names to a staged file and synchronises it, so that only the rename is left.
    pub(crate) fn prepare_repositories(
        &self,
        repositories: &Repositories,
    ) -> Result<Prepared, ImageError> {
        let path = self.repositories();
        if self.names_unreadable.load(Ordering::Relaxed) {
            let target = free_name(&self.root.join(NAMES_ASIDE));
            fs::rename(&path, &target).map_err(ImageError::io("put aside", &path))?;
            tracing::warn!(to = %target.display(), "unreadable names are put aside");
            self.names_unreadable.store(false, Ordering::Relaxed);
        }
        Ok(document::prepare(&path, repositories, self.era)?)
    }

    /// Synchronises directories, so that the renames of a commit survive a power cut.
    pub(crate) fn flush(&self) -> Result<(), ImageError> {
        for name in ["layers", "blobs", "images"] {
            file::flush_directory(&self.root.join(name))?;
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

    /// Removes a blob that nothing refers to any more. If that fails, the next start removes it.
    pub(crate) fn remove_blob(&self, digest: &Digest) {
        let path = self.blob(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a blob could not be removed");
            }
            _ => {}
        }
    }

    /// Removes a layer: one rename moves it into the returned directory. Drop that where time does
    /// not matter.
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

/// A directory for objects that are not committed yet.
#[derive(Debug)]
pub(crate) struct Staging {
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(%error, "a staging directory is left until the next start");
        }
    }
}

/// Why a document that must exist can't be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{}: it is missing", .0.display())]
    Missing(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Reads a document that must exist.
fn read_document<T: document::Document>(path: &Path) -> Result<T, ReadError> {
    let found = document::read(path)?;
    found.ok_or_else(|| ReadError::Missing(path.to_owned()))
}

/// The digest that a file is named after. Files with other names are not ours, and are left alone.
fn digest_of(path: &Path, ending: &str) -> Option<Digest> {
    let name = path.file_name()?.to_str()?;
    let digest = Digest::from_hex(name.strip_suffix(ending)?).ok();
    if digest.is_none() {
        tracing::warn!(path = %path.display(), "not an object of the image store; left alone");
    }
    digest
}

/// An unused name: `path.0`, `path.1`, ….
fn free_name(path: &Path) -> PathBuf {
    let mut number = 0_u64;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        let name = PathBuf::from(name);
        if name.symlink_metadata().is_err() {
            return name;
        }
        number += 1;
    }
}

fn names(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let failed = || ImageError::io("read directory", directory);
    fs::read_dir(directory)
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
        Err(error) => Err(ImageError::io("remove directory", path)(error)),
    }
}

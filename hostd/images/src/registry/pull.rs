//! Pulling an image: manifest, configuration and layers, each checked against the digest that the
//! one before names; then one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use keelson_blocking::{TaskDied, blocking};
use keelson_model::error::ErrorKind;
use keelson_oci::config::{ImageConfig, MAX_CONFIG_SIZE};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::{Descriptor, DocumentKind, names_other_format};
use keelson_oci::reference::Reference;
use keelson_registry::{Client, Manifest, Repository};
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::downloads::{Download, Downloads};
use super::layers::LayerPull;
use super::platform::WantedPlatform;
use super::remote::{Source, parse, parse_config, root_manifest, wrong};
use super::{PARALLEL, PullOptions, Pulled, Registries, pull_failed, tell};
use crate::disk::Staging;
use crate::error::ImageError;
use crate::store::{Before, MAX_LAYERS, NewImage, Pins, Store};
use crate::types::{ImageAction, Progress, Step};

/// How many levels of indexes are followed.
const MAX_NESTING: u32 = 3;

/// Pulls an image. If `progress` is closed, the pull is cancelled, and nothing is left of it.
pub(crate) async fn pull(
    store: &Arc<Store>,
    registries: &Registries,
    name: &str,
    options: PullOptions,
    progress: &mpsc::Sender<Progress>,
) -> Result<Pulled, ImageError> {
    let reference = name.parse::<Reference>()?.with_default_tag();
    if reference.familiar_name() == "scratch" {
        return Err(ImageError::Invalid(
            "'scratch' is a reserved name".to_owned(),
        ));
    }
    let staging = {
        let store = Arc::clone(store);
        Arc::new(blocking(move || store.disk.stage()).await??)
    };
    let mut pull = Pull {
        store: Arc::clone(store),
        staging,
        running: Arc::clone(&registries.downloads),
        pins: Pins::new(store),
        staged: BTreeMap::new(),
        downloads: Vec::new(),
        configs: Vec::new(),
        directories: 0,
        progress: progress.clone(),
        wanted: WantedPlatform::parse(options.platform.as_deref())?,
        reference,
    };
    let fetched = tokio::select! {
        fetched = pull.fetch_anywhere(&registries.client, options) => fetched?,
        () = progress.closed() => {
            return Err(ImageError::Interrupted("the client went away".to_owned()));
        }
    };
    pull.commit(fetched).await
}

struct Pull {
    store: Arc<Store>,
    staging: Arc<Staging>,
    /// The downloads of this and other pulls.
    running: Arc<Downloads>,
    pins: Pins,
    staged: BTreeMap<Digest, PathBuf>,
    /// The downloads that staged the layers. They are held until the commit, so that other pulls
    /// find them.
    downloads: Vec<Arc<Download>>,
    /// Held as long as those.
    configs: Vec<Arc<OnceCell<Vec<u8>>>>,
    /// How many staging directories were made.
    directories: usize,
    progress: mpsc::Sender<Progress>,
    wanted: WantedPlatform,
    reference: Reference,
}

/// An image whose layers are staged or pinned.
struct Fetched {
    /// The digest that the name has in the registry.
    root: Digest,
    manifest: Vec<u8>,
    config: ImageConfig,
    raw: Vec<u8>,
    id: Digest,
}

impl Pull {
    /// Tries the mirrors of Docker Hub and then the registry itself.
    async fn fetch_anywhere(
        &mut self,
        client: &Client,
        options: PullOptions,
    ) -> Result<Fetched, ImageError> {
        for source in Source::all(client, &self.reference) {
            let opened = source
                .open(client, &self.reference, options.credentials.clone())
                .await;
            let attempt = match opened {
                Ok(repository) => self.fetch(repository).await,
                Err(error) => Err(pull_failed(&self.reference, error)),
            };
            match attempt {
                Err(error) if source.is_passed_over(&error) => {}
                outcome => return outcome,
            }
        }
        Err(self.wrong("it has no registry".to_owned()))
    }

    async fn fetch(&mut self, repository: Repository) -> Result<Fetched, ImageError> {
        let repository = Arc::new(repository);
        let root = root_manifest(&repository, &self.reference)
            .await
            .map_err(|error| pull_failed(&self.reference, error))?;
        let root_digest = root.digest;
        let (manifest, config, layers) = self.choose(&repository, root).await?;
        let label = match (self.reference.digest(), self.reference.tag()) {
            (None, Some(tag)) => tag.to_owned(),
            _ => self.reference.to_string(),
        };
        let from = Step::PullingFrom(self.reference.path().to_string());
        tell(&self.progress, &label, from).await;
        let (config, raw, id) = self.config(&repository, &config).await?;
        if layers.len() != config.rootfs.diff_ids.len() {
            return Err(self.wrong(format!(
                "the manifest has {} layers where the configuration has {} (rootfs.diff_ids)",
                layers.len(),
                config.rootfs.diff_ids.len()
            )));
        }
        let known = self.store.entry(&id).is_some();
        self.layers(&repository, &layers, &config.rootfs.diff_ids, known)
            .await?;
        Ok(Fetched {
            root: root_digest,
            manifest: manifest.bytes,
            config,
            raw,
            id,
        })
    }

    /// Follows indexes to an image's manifest.
    async fn choose(
        &self,
        repository: &Repository,
        root: Manifest,
    ) -> Result<(Manifest, Descriptor, Vec<Descriptor>), ImageError> {
        let mut manifest = root;
        for _ in 0..=MAX_NESTING {
            let index = match parse(&self.reference, &manifest)? {
                DocumentKind::Manifest(config, layers) => return Ok((manifest, config, layers)),
                DocumentKind::Index(index) => index,
            };
            let Some(entry) = self.wanted.choose(&index.entries) else {
                return Err(ImageError::Registry {
                    kind: ErrorKind::NotFound,
                    message: format!(
                        "no matching manifest for {} in the manifest list entries of {}{}",
                        self.wanted,
                        self.reference.familiar(),
                        index.remarks()
                    ),
                });
            };
            manifest = repository
                .manifest(&entry.digest.to_string(), Some(entry.digest))
                .await
                .map_err(|error| pull_failed(&self.reference, error))?;
            if manifest.bytes.len() as u64 != entry.size {
                return Err(self.wrong(format!(
                    "manifest {} has {} bytes where its index says {}",
                    entry.digest,
                    manifest.bytes.len(),
                    entry.size
                )));
            }
        }
        Err(self.wrong("too many indexes inside one another".to_owned()))
    }

    async fn config(
        &mut self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<(ImageConfig, Vec<u8>, Digest), ImageError> {
        let id = descriptor.digest;
        let known = self.store.entry(&id).map(|entry| entry.raw.to_vec());
        let raw = match known {
            Some(raw) => raw,
            None => {
                let cell = self.running.config(repository.host(), &id);
                self.configs.push(Arc::clone(&cell));
                let fetch = || repository.small_blob(id, descriptor.size, MAX_CONFIG_SIZE);
                cell.get_or_try_init(fetch)
                    .await
                    .map_err(|error| pull_failed(&self.reference, error))?
                    .clone()
            }
        };
        let config = parse_config(&self.reference, &raw)?;
        if self.wanted.asked && !self.wanted.fits_config(&config) {
            return Err(ImageError::Registry {
                kind: ErrorKind::NotFound,
                message: format!(
                    "image with reference {} was found but its platform ({}/{}) does not match \
                     the specified platform ({})",
                    self.reference.familiar(),
                    config.os,
                    config.architecture,
                    self.wanted
                ),
            });
        }
        Ok((config, raw, id))
    }

    /// Downloads the missing layers, each once.
    async fn layers(
        &mut self,
        repository: &Arc<Repository>,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        known: bool,
    ) -> Result<(), ImageError> {
        if layers.len() > MAX_LAYERS {
            return Err(self.wrong(format!("it has more than {MAX_LAYERS} layers")));
        }
        let mut seen = BTreeSet::new();
        let (mut missing, mut there) = (Vec::new(), Vec::new());
        for (layer, diff_id) in layers.iter().zip(diff_ids) {
            let id = layer.digest.short();
            if !seen.insert(*diff_id) {
                continue;
            }
            // Also pinned if it is not here yet, because another pull may bring it.
            if self.staged.contains_key(diff_id) || self.pins.expect(diff_id) {
                there.push(id);
                continue;
            }
            self.check_layer(layer)?;
            missing.push((layer.clone(), *diff_id));
        }
        // For an image that exists here, nothing is reported about its layers.
        if !known || !missing.is_empty() {
            for id in there {
                tell(&self.progress, &id, Step::AlreadyExists).await;
            }
        }
        for (layer, _) in &missing {
            tell(&self.progress, &layer.digest.short(), Step::PullingLayer).await;
        }
        let gate = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        for (at, (descriptor, diff_id)) in missing.into_iter().enumerate() {
            if at >= PARALLEL {
                tell(&self.progress, &descriptor.digest.short(), Step::Waiting).await;
            }
            let directory = self
                .staging
                .path
                .join(format!("layer-{}", self.directories));
            self.directories += 1;
            let pull = LayerPull {
                store: Arc::clone(&self.store),
                staging: Arc::clone(&self.staging),
                repository: Arc::clone(repository),
                reference: self.reference.clone(),
                descriptor,
                diff_id,
                directory,
            };
            let (gate, progress) = (Arc::clone(&gate), self.progress.clone());
            let running = Arc::clone(&self.running);
            tasks.spawn(async move {
                // The gate is never closed.
                let _permit = gate.acquire_owned().await;
                Ok((diff_id, fetch_layer(pull, &running, &progress).await?))
            });
        }
        let mut failure = None;
        while let Some(result) = tasks.join_next().await {
            let result = result.map_err(|error| TaskDied::from(error).into());
            match result.and_then(|result: Result<_, ImageError>| result) {
                // Kept even if another layer fails, because the next attempt needs it.
                Ok((diff_id, Some(download))) => {
                    self.staged.insert(diff_id, download.directory.clone());
                    self.downloads.push(download);
                }
                Ok((_, None)) => {}
                Err(error) => {
                    tasks.abort_all();
                    failure = failure.or(Some(error));
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn check_layer(&self, layer: &Descriptor) -> Result<(), ImageError> {
        // The content decides about all others.
        if names_other_format(&layer.media_type) {
            return Err(self.wrong(format!(
                "layer {} has media type {:?}, which is not that of a file system layer",
                layer.digest, layer.media_type
            )));
        }
        let limit = self.store.layers.limits.bytes;
        if layer.size > limit {
            return Err(self.wrong(format!(
                "layer {} has {} bytes, where at most {limit} are accepted",
                layer.digest, layer.size
            )));
        }
        Ok(())
    }

    fn wrong(&self, reason: String) -> ImageError {
        wrong(&self.reference, &reason)
    }

    /// Makes the image visible.
    async fn commit(self, fetched: Fetched) -> Result<Pulled, ImageError> {
        let by_digest = self.reference.with_digest(fetched.root);
        let mut references = Vec::new();
        if self.reference.digest().is_none() {
            references.push(self.reference.clone());
        }
        references.push(by_digest);
        let familiar = self.reference.familiar();
        let job = move || -> Result<Pulled, ImageError> {
            let mut pulled = Pulled {
                id: fetched.id,
                digest: fetched.root,
                reference: familiar.clone(),
                updated: true,
            };
            let whole = self.staged.is_empty();
            let before = self
                .store
                .before_pull(fetched.id, &references, whole, &familiar);
            let Before::Other { parent } = before else {
                pulled.updated = false;
                return Ok(pulled);
            };
            let image = NewImage {
                config: fetched.config,
                raw: fetched.raw,
                manifest: Some(fetched.manifest),
                parent,
                references,
            };
            let (staging, staged) = (&self.staging, &self.staged);
            self.store
                .commit(staging, staged, vec![image], ImageAction::Pull)
                .map_err(|error| error.during(format!("cannot pull {}", pulled.reference)))?;
            Ok(pulled)
        };
        blocking(job).await?
    }
}

/// Fetches a layer, by its own download or by that of another pull; if that one fails, by its own.
/// `None` if the other pull has committed the layer meanwhile.
async fn fetch_layer(
    pull: LayerPull,
    running: &Downloads,
    progress: &mpsc::Sender<Progress>,
) -> Result<Option<Arc<Download>>, ImageError> {
    let id = pull.descriptor.digest.short();
    let (store, diff_id) = (Arc::clone(&pull.store), pull.diff_id);
    loop {
        if Pins::new(&store).pin(&diff_id).is_some() {
            tell(progress, &id, Step::AlreadyExists).await;
            return Ok(None);
        }
        let (download, own) = running.join(pull.clone());
        if download.wait(&id, pull.descriptor.size, progress).await {
            let there = store.has_layer(&diff_id);
            // It may have been committed, and removed again.
            if there || download.directory.is_dir() {
                return Ok(Some(download));
            }
        } else if own {
            return Err(download.error());
        }
        running.forget(&download);
    }
}

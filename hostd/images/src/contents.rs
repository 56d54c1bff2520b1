//! The contents of an image archive, and the images in it. Pure: works on an archive that was read
//! completely.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

use keelson_model::error::ErrorKind;
use keelson_oci::config::{ConfigError, ImageConfig};
use keelson_oci::digest::Digest;
use keelson_oci::manifest::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_ORIGINAL, ANNOTATION_REF_NAME, ArchiveImage, Descriptor,
    DocumentKind, ManifestDocument, ManifestError, host_architecture, names_other_format,
};
use keelson_oci::reference::Reference;

use crate::archive_path::{follow, normal_name};
use crate::error::ImageError;
use crate::registry::WantedPlatform;
use crate::store::NewImage;

/// How many levels of indexes are followed.
const MAX_NESTING: u32 = 4;
/// How many bytes of documents are read, in addition to a few times the size of all documents. A
/// document counts each time that something refers to it: without this limit, a few small documents
/// that refer to each other many times would keep a processor busy for years.
const EXAMINED: u64 = 16 << 20;

/// Why an image of an archive can't be used, as the end of a sentence that names the image.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It does not fit to the rest of the archive, or to this machine.
    #[error("{0}")]
    Misfit(String),
}

impl From<String> for Unusable {
    fn from(text: String) -> Self {
        Self::Misfit(text)
    }
}

impl From<&str> for Unusable {
    fn from(text: &str) -> Self {
        Self::Misfit(text.to_owned())
    }
}

/// A layer of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the file in the archive.
    pub blob: Digest,
    /// Bytes of the file in the archive.
    pub blob_size: u64,
}

/// The files of an archive by path.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub documents: HashMap<String, Vec<u8>>,
    pub layers: HashMap<String, Result<LayerBlob, ImageError>>,
    pub links: HashMap<String, String>,
    /// Bytes of documents that may still be read.
    pub examinable: Cell<u64>,
}

/// A manifest of an archive that has `manifest.json`, too.
struct Candidate<'a> {
    bytes: &'a Vec<u8>,
    layers: Vec<Descriptor>,
    /// Whether its entry says that it is an image's original manifest.
    is_marked: bool,
}

/// The images that an index of an archive leads to.
#[derive(Default)]
struct Found {
    /// By the digest of the configuration.
    images: BTreeMap<Digest, NewImage>,
    /// What was skipped, as text for people.
    remarks: String,
}

impl Found {
    /// Longest text about what was skipped.
    const MAX_REMARKS: usize = 1000;

    fn pass_over(&mut self, descriptor: &Descriptor, why: &str) {
        tracing::info!(digest = %descriptor.digest, why, "an entry of an archive is passed over");
        if self.remarks.len() < Self::MAX_REMARKS {
            let digest = descriptor.digest.short();
            self.remarks
                .push_str(&format!("; {digest} is passed over: {why}"));
        }
    }
}

/// By the digest of the configuration.
type Candidates<'a> = HashMap<Digest, Vec<Candidate<'a>>>;

impl Contents {
    /// The images, checked against their digests.
    pub(crate) fn images(&self, wanted: &WantedPlatform) -> Result<Vec<NewImage>, ImageError> {
        let mut images = self.all_images(wanted)?;
        if wanted.asked {
            images.retain(|image| wanted.fits_config(&image.config));
            if images.is_empty() {
                return Err(ImageError::Registry {
                    kind: ErrorKind::NotFound,
                    message: format!(
                        "the image archive has no image for the specified platform ({wanted})"
                    ),
                });
            }
        }
        Ok(images)
    }

    fn all_images(&self, wanted: &WantedPlatform) -> Result<Vec<NewImage>, ImageError> {
        let all: u64 = self
            .documents
            .values()
            .map(|bytes| bytes.len() as u64)
            .sum();
        self.examinable.set(EXAMINED + 4 * all);
        if let Some(bytes) = self.document("manifest.json") {
            let list = ArchiveImage::parse_list(bytes).map_err(|error| {
                ImageError::Archive(format!("manifest.json of the image archive: {error}"))
            })?;
            if list.is_empty() && self.document("index.json").is_none() {
                return Err(ImageError::Archive(
                    "manifest.json of the image archive names no image".to_owned(),
                ));
            }
            if !list.is_empty() {
                return self.archive_images(&list);
            }
        }
        if let Some(bytes) = self.document("index.json") {
            let mut found = Found::default();
            self.index("index.json", bytes, None, (wanted, 0), &mut found)?;
            if found.images.is_empty() && !wanted.asked {
                return Err(ImageError::Archive(format!(
                    "index.json of the image archive has no image for linux/{}{}",
                    host_architecture(),
                    found.remarks
                )));
            }
            return Ok(found.images.into_values().collect());
        }
        Err(ImageError::Archive(
            "this is not an image archive: it has neither manifest.json nor index.json. \
             To make an image of a root file system, import it"
                .to_owned(),
        ))
    }

    /// The images of `manifest.json`.
    fn archive_images(&self, list: &[ArchiveImage]) -> Result<Vec<NewImage>, ImageError> {
        let mut candidates = Candidates::new();
        if let Some(index) = self.document("index.json") {
            self.candidates(index, 0, &mut HashSet::new(), &mut candidates);
        }
        let mut images: Vec<NewImage> = Vec::new();
        let mut known = HashMap::new();
        let mut parents = Vec::new();
        for image in list {
            let parent = image.parent.as_deref().and_then(|id| id.parse().ok());
            let mut image = self.archive_image(image)?;
            let id = Digest::of(&image.raw);
            parents.extend(parent.map(|parent: Digest| (id, parent)));
            // Some programs list an image once for each of its names.
            match known.get(&id).and_then(|at: &usize| images.get_mut(*at)) {
                Some(other) => other.references.extend(image.references),
                None => {
                    image.manifest = self.original(&image, candidates.get(&id));
                    known.insert(id, images.len());
                    images.push(image);
                }
            }
        }
        for (id, parent) in parents {
            let place = |id: &Digest| known.get(id).copied();
            let (Some(child), Some(of)) = (place(&id), place(&parent)) else {
                continue;
            };
            let is_child = images.get(of).zip(images.get(child));
            let is_child = is_child.is_some_and(|(of, child)| grew(&of.config, &child.config));
            if let Some(child) = images.get_mut(child).filter(|_| is_child) {
                child.parent = Some(parent);
            }
        }
        Ok(images)
    }

    fn document(&self, name: &str) -> Option<&Vec<u8>> {
        self.documents.get(&*follow(&self.links, name))
    }

    /// Counts a document that is read.
    fn examine(&self, document: &[u8]) -> Result<(), Unusable> {
        let left = self.examinable.get().checked_sub(document.len() as u64);
        self.examinable.set(left.unwrap_or(0));
        let refuse = || "the documents of the archive refer to each other too often".into();
        left.map(|_| ()).ok_or_else(refuse)
    }

    fn archive_image(&self, image: &ArchiveImage) -> Result<NewImage, ImageError> {
        let names = &image.repo_tags;
        let label = names.first().unwrap_or(&image.config);
        let wrong = |reason: Unusable| ImageError::Archive(format!("image {label:?}: {reason}"));
        let references = names
            .iter()
            .map(|name| match name.parse::<Reference>() {
                Ok(reference) if reference.digest().is_none() => Ok(reference.with_default_tag()),
                _ => Err(wrong(format!("its name {name:?} is not valid").into())),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let path = normal_name(&image.config).unwrap_or_default();
        let raw = self
            .document(&path)
            .ok_or_else(|| format!("its configuration {path:?} is not in the archive").into())
            .map_err(wrong)?;
        self.examine(raw).map_err(wrong)?;
        // All known programs name it by its digest.
        let file = path.rsplit('/').next().unwrap_or_default();
        let named = file.strip_suffix(".json").unwrap_or(file);
        if let Ok(expected) = Digest::from_hex(named) {
            check_digest("configuration", &path, &expected, &Digest::of(raw)).map_err(wrong)?;
        }
        let config = parse_config(raw).map_err(wrong)?;
        self.check_layers(&config, image.layers.iter().map(String::as_str))
            .map_err(wrong)?;
        Ok(NewImage {
            config,
            raw: raw.clone(),
            manifest: None,
            parent: None,
            references,
        })
    }

    /// The original manifest of an image of `manifest.json`, if the archive is an OCI layout, too.
    fn original(
        &self,
        image: &NewImage,
        candidates: Option<&Vec<Candidate<'_>>>,
    ) -> Option<Vec<u8>> {
        let diff_ids = &image.config.rootfs.diff_ids;
        let fits = |candidate: &&Candidate<'_>| {
            candidate.layers.len() == diff_ids.len()
                && (candidate.is_marked || !is_plain(&candidate.layers, diff_ids))
                && self.has_blobs(&candidate.layers, diff_ids)
        };
        Some(candidates?.iter().find(fits)?.bytes.clone())
    }

    /// Collects the manifests of an index. Manifests for other platforms may be missing in the
    /// archive.
    fn candidates<'a>(
        &'a self,
        index: &[u8],
        depth: u32,
        seen: &mut HashSet<Digest>,
        candidates: &mut Candidates<'a>,
    ) {
        let Ok(DocumentKind::Index(index)) = ManifestDocument::parse(index) else {
            return;
        };
        for entry in index.entries {
            if !seen.insert(entry.digest) {
                continue;
            }
            let Ok(bytes) = self.blob(&entry, "manifest") else {
                continue;
            };
            match ManifestDocument::parse(bytes) {
                Ok(DocumentKind::Index(_)) if depth < MAX_NESTING => {
                    self.candidates(bytes, depth + 1, seen, candidates);
                }
                Ok(DocumentKind::Manifest(config, layers)) => {
                    candidates
                        .entry(config.digest)
                        .or_default()
                        .push(Candidate {
                            bytes,
                            layers,
                            is_marked: entry.annotation(ANNOTATION_ORIGINAL).is_some(),
                        });
                }
                _ => {}
            }
        }
    }

    /// Whether the archive has these layers as described.
    fn has_blobs(&self, layers: &[Descriptor], diff_ids: &[Digest]) -> bool {
        layers.iter().zip(diff_ids).all(|(layer, diff_id)| {
            let wanted = LayerBlob {
                diff_id: *diff_id,
                blob: layer.digest,
                blob_size: layer.size,
            };
            let found = self.layer(&blob_path(&layer.digest));
            found.is_ok_and(|layer| layer == wanted)
        })
    }

    /// Checks that the layers are those that the configuration names.
    fn check_layers<'a>(
        &self,
        config: &ImageConfig,
        paths: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<(), Unusable> {
        let diff_ids = &config.rootfs.diff_ids;
        if paths.len() != diff_ids.len() {
            return Err(format!(
                "the manifest has {} layers where the configuration has {} (rootfs.diff_ids)",
                paths.len(),
                diff_ids.len()
            )
            .into());
        }
        for (path, diff_id) in paths.zip(diff_ids) {
            let layer = self.layer(path)?;
            check_digest("layer", path, diff_id, &layer.diff_id)?;
        }
        Ok(())
    }

    fn layer(&self, path: &str) -> Result<LayerBlob, Unusable> {
        let name = normal_name(path).unwrap_or_default();
        match self.layers.get(&*follow(&self.links, &name)) {
            Some(Ok(layer)) => Ok(*layer),
            Some(Err(error)) => Err(format!("layer {path:?}: {error}").into()),
            None if self.document(&name).is_some() => {
                Err(format!("layer {path:?} is not a tar archive").into())
            }
            None => Err(format!("layer {path:?} is not in the archive").into()),
        }
    }

    /// Collects the images of an index of an OCI layout.
    fn index(
        &self,
        label: &str,
        bytes: &[u8],
        outer_name: Option<&Reference>,
        (wanted, depth): (&WantedPlatform, u32),
        found: &mut Found,
    ) -> Result<(), ImageError> {
        let wrong = |reason: Unusable| ImageError::Archive(format!("{label}: {reason}"));
        let index = match ManifestDocument::parse(bytes).map_err(|error| wrong(error.into()))? {
            DocumentKind::Index(index) => index,
            DocumentKind::Manifest(..) => {
                return Err(wrong("it is an image's manifest, not an index".into()));
            }
        };
        if depth > MAX_NESTING {
            return Err(wrong("too many indexes inside one another".into()));
        }
        found.remarks.push_str(&index.remarks());
        for descriptor in &index.entries {
            let fits = match wanted.asked {
                true => wanted.fits(descriptor),
                false => descriptor.fits(host_architecture()),
            };
            if !fits || descriptor.is_attestation() {
                continue;
            }
            if descriptor.is_other_than_image() {
                found.pass_over(descriptor, "it is no image");
                continue;
            }
            let own_name = name_of(descriptor);
            let name = own_name.as_ref().or(outer_name);
            let label = name.map_or_else(|| descriptor.digest.to_string(), Reference::familiar);
            let wrong =
                |reason: Unusable| ImageError::Archive(format!("image {label:?}: {reason}"));
            let bytes = self.blob(descriptor, "manifest").map_err(wrong)?;
            let document = match ManifestDocument::parse(bytes) {
                Err(error) if error.is_other_kind() => {
                    found.pass_over(descriptor, &error.to_string());
                    continue;
                }
                other => other.map_err(|error| {
                    wrong(format!("manifest {}: {error}", descriptor.digest).into())
                })?,
            };
            match document {
                DocumentKind::Index(_) => {
                    self.index(&label, bytes, name, (wanted, depth + 1), found)?;
                }
                DocumentKind::Manifest(config, layers) => {
                    // For example, a signature that claims to be an image.
                    if let Some(other) = layers.iter().find(|l| names_other_format(&l.media_type)) {
                        found.pass_over(
                            descriptor,
                            &format!("it has content of type {:?}", other.media_type),
                        );
                        continue;
                    }
                    let raw = self.blob(&config, "configuration").map_err(wrong)?;
                    if let Ok(config) = ImageConfig::parse(raw)
                        && !is_for_linux(&config)
                    {
                        found.pass_over(descriptor, &format!("it is for {:?}", config.os));
                        continue;
                    }
                    let mut image = self.layout_image(bytes, raw, &layers).map_err(wrong)?;
                    let is_marked = descriptor.annotation(ANNOTATION_ORIGINAL).is_some();
                    if !is_marked && is_plain(&layers, &image.config.rootfs.diff_ids) {
                        image.manifest = None;
                    }
                    let id = config.digest;
                    let image = found.images.entry(id).or_insert(image);
                    if let Some(name) = name
                        && !image.references.contains(name)
                    {
                        image.references.push(name.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn layout_image(
        &self,
        manifest: &[u8],
        raw: &[u8],
        layers: &[Descriptor],
    ) -> Result<NewImage, Unusable> {
        for layer in layers {
            let path = blob_path(&layer.digest);
            let found = match self.layer(&path) {
                Err(_) if layer.is_foreign() => {
                    return Err(format!(
                        "layer {} is a foreign one that is not in the archive; \
                         from other places none is fetched",
                        layer.digest
                    )
                    .into());
                }
                found => found?,
            };
            check_digest("layer", &path, &layer.digest, &found.blob)?;
            if layer.size != found.blob_size {
                return Err(format!(
                    "layer {} has {} bytes where the manifest says {}",
                    layer.digest, found.blob_size, layer.size
                )
                .into());
            }
        }
        let config = parse_config(raw)?;
        let paths: Vec<String> = layers
            .iter()
            .map(|layer| blob_path(&layer.digest))
            .collect();
        self.check_layers(&config, paths.iter().map(String::as_str))?;
        Ok(NewImage {
            config,
            raw: raw.to_vec(),
            manifest: Some(manifest.to_vec()),
            parent: None,
            references: Vec::new(),
        })
    }

    fn blob(&self, descriptor: &Descriptor, what: &str) -> Result<&Vec<u8>, Unusable> {
        let path = blob_path(&descriptor.digest);
        let bytes = self
            .document(&path)
            .ok_or_else(|| format!("its {what} {path:?} is not in the archive"))?;
        self.examine(bytes)?;
        check_digest(what, &path, &descriptor.digest, &Digest::of(bytes))?;
        Ok(bytes)
    }
}

/// Whether all layers are uncompressed. Such a manifest was usually made only for an archive, and
/// is not the image's original one. With it, a push would send uncompressed layers.
fn is_plain(layers: &[Descriptor], diff_ids: &[Digest]) -> bool {
    let mut pairs = layers.iter().zip(diff_ids);
    pairs.all(|(layer, diff_id)| layer.digest == *diff_id)
}

fn parse_config(raw: &[u8]) -> Result<ImageConfig, Unusable> {
    let config = ImageConfig::parse(raw)?;
    if !is_for_linux(&config) {
        return Err(format!(
            "it is for operating system {:?}; only linux images run here",
            config.os
        )
        .into());
    }
    Ok(config)
}

fn is_for_linux(config: &ImageConfig) -> bool {
    config.os.is_empty() || config.os == "linux"
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn check_digest(what: &str, path: &str, expected: &Digest, found: &Digest) -> Result<(), Unusable> {
    if expected == found {
        return Ok(());
    }
    Err(format!(
        "{what} {path:?} is corrupt: its digest is {found} where {expected} is expected. \
         Make the archive again"
    )
    .into())
}

/// Whether an image can have been made from another: it has that image's layers and steps, and more
/// steps. This is checked because an archive may claim anything.
fn grew(parent: &ImageConfig, child: &ImageConfig) -> bool {
    child.history.len() > parent.history.len()
        && child.history.starts_with(&parent.history)
        && child.rootfs.diff_ids.starts_with(&parent.rootfs.diff_ids)
}

/// The name of an index entry's image: a full name, or `None` if it is only a tag.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let text = descriptor.annotation(ANNOTATION_IMAGE_NAME).or_else(|| {
        descriptor
            .annotation(ANNOTATION_REF_NAME)
            .filter(|name| name.contains([':', '/']))
    })?;
    let reference = text.parse::<Reference>().ok()?;
    match reference.tag() {
        Some(tag) => reference.with_tag(tag).ok(),
        None if reference.digest().is_some() => None,
        None => Some(reference.with_default_tag()),
    }
}

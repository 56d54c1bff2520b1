//! Makes an image from a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use keelson_oci::compression::Compression;
use keelson_oci::config::{ContainerDefaults, History, ImageConfig, RootFs};
use keelson_oci::manifest::host_architecture;
use keelson_oci::reference::Reference;

use crate::changes;
use crate::error::ImageError;
use crate::layer::ingest::Ingest;
use crate::store::{NewImage, Pins, Store};
use crate::types::{CommitOptions, ImageAction, ImageId, Loaded};
use crate::writable::{TarStream, WritableLayer};

/// The options, checked before the container is touched.
#[derive(Debug)]
pub(crate) struct CheckedCommit {
    parent: ImageId,
    reference: Option<Reference>,
    author: String,
    comment: String,
    command: String,
    defaults: ContainerDefaults,
}

/// Checks the options.
pub(crate) fn check(options: CommitOptions) -> Result<CheckedCommit, ImageError> {
    let reference = match options.reference.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Some(changes::new_name(name)?),
        None => None,
    };
    let mut defaults = options.defaults;
    changes::apply(&mut defaults, &options.changes)?;
    changes::inherit(&mut defaults, options.container);
    Ok(CheckedCommit {
        parent: options.parent,
        reference,
        author: options.author,
        comment: options.comment,
        command: options.command,
        defaults,
    })
}

/// Reads the writable layer and commits the image. After everything was read, `wanted` says whether
/// it is complete. Blocks.
pub(crate) fn commit(
    store: &Arc<Store>,
    layer: &WritableLayer,
    options: CheckedCommit,
    wanted: &dyn Fn() -> bool,
) -> Result<Loaded, ImageError> {
    let staging = store.disk.stage()?;
    let mut pins = Pins::new(store);
    let parent = store.hold_parent(options.parent)?;
    let below = Arc::clone(&parent.config);
    for diff_id in &below.rootfs.diff_ids {
        pins.pin(diff_id)
            .ok_or_else(|| ImageError::Damaged(format!("layer {diff_id} is missing")))?;
    }
    let mut ingest = Ingest::start(
        staging.path.join("layer"),
        Compression::Plain,
        &store.layers,
    )?;
    let mut send = |piece: Bytes| ingest.write(&piece);
    let mut stream = TarStream::new(&mut send);
    let packed = layer.pack(&mut stream).and_then(|changed| {
        stream.end()?;
        Ok(changed)
    });
    let changed = match packed {
        // The layer's reader failed first and knows why.
        Err(ImageError::Interrupted(reason)) => {
            ingest.finish()?;
            return Err(ImageError::Interrupted(reason));
        }
        other => other?,
    };
    let mut layers = BTreeMap::new();
    let mut diff_ids = below.rootfs.diff_ids.clone();
    if changed {
        let layer = ingest.finish()?;
        if pins.pin(&layer.diff_id).is_none() {
            layers.insert(layer.diff_id, layer.directory);
        }
        diff_ids.push(layer.diff_id);
    } else {
        drop(ingest);
    }
    if !wanted() {
        return Err(ImageError::Conflict(
            "the container was removed while it was read".to_owned(),
        ));
    }
    let mut options = options;
    // The container's specification does not have the image's value.
    let health = &mut options.defaults.healthcheck;
    *health = health.take().or_else(|| below.config.healthcheck.clone());
    let image = image(options, parent.id, &below, diff_ids, !changed)?;
    let references = image.references.iter().map(Reference::familiar).collect();
    let id = store
        .commit(&staging, &layers, vec![image], ImageAction::Commit)?
        .pop()
        .ok_or_else(|| ImageError::Damaged("the commit made no image".to_owned()))?;
    Ok(Loaded {
        id,
        references,
        replaced: Vec::new(),
    })
}

fn image(
    options: CheckedCommit,
    parent: Option<ImageId>,
    below: &ImageConfig,
    diff_ids: Vec<keelson_oci::digest::Digest>,
    empty_layer: bool,
) -> Result<NewImage, ImageError> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let created = Timestamp::now().to_string();
    let mut history = below.history.clone();
    history.push(History {
        created: Some(created.clone()),
        created_by: some(options.command),
        author: some(options.author.clone()),
        comment: some(options.comment),
        empty_layer,
    });
    let config = ImageConfig {
        created: Some(created),
        author: some(options.author),
        architecture: match below.architecture.as_str() {
            "" => host_architecture().to_owned(),
            architecture => architecture.to_owned(),
        },
        variant: below.variant.clone(),
        os: "linux".to_owned(),
        os_version: below.os_version.clone(),
        config: options.defaults,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids,
        },
        history,
        ..ImageConfig::default()
    };
    let raw = serde_json::to_vec(&config)
        .map_err(|error| ImageError::Damaged(format!("the new configuration: {error}")))?;
    Ok(NewImage {
        config,
        raw,
        manifest: None,
        parent,
        references: options.reference.into_iter().collect(),
    })
}

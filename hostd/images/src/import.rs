//! Makes an image from a root file system's archive.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_oci::compression::{Compression, DETECT_BYTES};
use keelson_oci::config::{ContainerDefaults, History, ImageConfig, RootFs};
use keelson_oci::manifest::Platform;
use keelson_oci::reference::Reference;

use crate::changes;
use crate::error::ImageError;
use crate::layer::ingest::Ingest;
use crate::pipe::PipeReader;
use crate::registry::WantedPlatform;
use crate::store::{NewImage, Pins, Store};
use crate::types::{ImageAction, ImageId, ImportOptions};

/// The options, checked before the first byte is read.
#[derive(Debug)]
pub(crate) struct CheckedImport {
    reference: Option<Reference>,
    message: String,
    /// The source of the archive, as text for people. `-` is the client itself.
    pub source: String,
    defaults: ContainerDefaults,
    platform: Platform,
}

/// Checks the options.
pub(crate) fn check(options: &ImportOptions) -> Result<CheckedImport, ImageError> {
    let reference = match options.reference.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Some(changes::new_name(name)?),
        None => None,
    };
    let platform = WantedPlatform::parse(options.platform.as_deref())?.named();
    let mut defaults = ContainerDefaults::default();
    changes::apply(&mut defaults, &options.changes)?;
    Ok(CheckedImport {
        reference,
        message: options.message.clone(),
        source: "-".to_owned(),
        defaults,
        platform,
    })
}

/// Reads the archive and commits the image. Blocks.
pub(crate) fn import(
    store: &Arc<Store>,
    mut reader: PipeReader,
    options: CheckedImport,
) -> Result<ImageId, ImageError> {
    let interrupted = |error: std::io::Error| ImageError::Interrupted(error.to_string());
    let staging = store.disk.stage()?;
    let mut pins = Pins::new(store);
    let start = reader.fill_buf().map_err(interrupted)?;
    let compression = Compression::detect(start.get(..DETECT_BYTES).unwrap_or(start))
        .map_err(|error| ImageError::Archive(format!("imported archive: {error}")))?;
    let directory = staging.path.join("layer");
    let mut ingest = Ingest::start(directory, compression, &store.layers)?;
    loop {
        let piece = reader.fill_buf().map_err(interrupted)?;
        if piece.is_empty() {
            break;
        }
        let taken = ingest.write(piece) && !ingest.is_refused();
        let length = piece.len();
        reader.consume(length);
        // The archive may be endless.
        if !taken {
            break;
        }
    }
    let layer = ingest.finish().map_err(|error| match error {
        ImageError::Archive(_) | ImageError::Layer(_) => {
            ImageError::Archive(format!("imported archive: {error}"))
        }
        other => other.during(match &options.reference {
            Some(name) => format!("cannot import {}", name.familiar()),
            None => "cannot import".to_owned(),
        }),
    })?;
    let mut layers = BTreeMap::new();
    if pins.pin(&layer.diff_id).is_none() {
        layers.insert(layer.diff_id, layer.directory);
    }
    let created = Timestamp::now().to_string();
    let config = ImageConfig {
        created: Some(created.clone()),
        architecture: options.platform.architecture,
        variant: options.platform.variant,
        os: options.platform.os,
        config: options.defaults,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![layer.diff_id],
        },
        history: vec![History {
            created: Some(created),
            comment: Some(if options.message.is_empty() {
                format!("Imported from {}", options.source)
            } else {
                options.message
            }),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    let raw = serde_json::to_vec(&config)
        .map_err(|error| ImageError::Damaged(format!("the new configuration: {error}")))?;
    let image = NewImage {
        config,
        raw,
        manifest: None,
        parent: None,
        references: options.reference.into_iter().collect(),
    };
    let ids = store.commit(&staging, &layers, vec![image], ImageAction::Import)?;
    ids.into_iter()
        .next()
        .ok_or_else(|| ImageError::Damaged("the import made no image".to_owned()))
}

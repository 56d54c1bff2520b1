//! Making an image of a root file system's archive.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_oci::compression::{Compression, DETECT_BYTES};
use keelson_oci::config::{ContainerDefaults, History, ImageConfig, RootFs};
use keelson_oci::manifest::host_architecture;
use keelson_oci::reference::Reference;

use crate::changes;
use crate::error::ImageError;
use crate::layer::ingest::Ingest;
use crate::pipe::PipeReader;
use crate::store::{NewImage, Pins, Store};
use crate::types::{ImageAction, ImageId, ImportOptions};

/// The options, checked before the first byte is read.
#[derive(Debug)]
pub(crate) struct Checked {
    reference: Option<Reference>,
    message: String,
    defaults: ContainerDefaults,
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Checks the options.
pub(crate) fn check(options: &ImportOptions) -> Result<Checked, ImageError> {
    let reference = match options.reference.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => Some(changes::new_name(name)?),
        None => None,
    };
    let platform = options.platform.as_deref().unwrap_or_default();
    let mut parts = platform.split('/').map(str::to_owned);
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let os = part().unwrap_or_else(|| "linux".to_owned());
    if os != "linux" {
        return Err(ImageError::Invalid(format!(
            "platform {platform:?}: operating system {os:?} is not supported, only linux is"
        )));
    }
    let architecture = part().unwrap_or_else(|| host_architecture().to_owned());
    let variant = part();
    let mut defaults = ContainerDefaults::default();
    changes::apply(&mut defaults, &options.changes)?;
    Ok(Checked {
        reference,
        message: options.message.clone(),
        defaults,
        os,
        architecture,
        variant,
    })
}

/// Reads the archive and commits the image. Blocks.
pub(crate) fn import(
    store: &Arc<Store>,
    mut reader: PipeReader,
    options: Checked,
) -> Result<ImageId, ImageError> {
    let interrupted = |error: std::io::Error| ImageError::Interrupted(error.to_string());
    let staging = store.disk.stage()?;
    let mut pins = Pins::new(store);
    let start = reader.fill_buf().map_err(interrupted)?;
    let compression = Compression::detect(start.get(..DETECT_BYTES).unwrap_or(start))
        .map_err(|error| ImageError::Archive(format!("imported archive: {error}")))?;
    let folder = staging.path.join("layer");
    let mut ingest = Ingest::start(folder, compression, store.form, &store.limits)?;
    loop {
        let piece = reader.fill_buf().map_err(interrupted)?;
        if piece.is_empty() {
            break;
        }
        ingest.write(piece);
        let length = piece.len();
        reader.consume(length);
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
        layers.insert(layer.diff_id, layer.folder);
    }
    let created = Timestamp::now().to_string();
    let config = ImageConfig {
        created: Some(created.clone()),
        architecture: options.architecture,
        variant: options.variant,
        os: options.os,
        config: options.defaults,
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![layer.diff_id],
        },
        history: vec![History {
            created: Some(created),
            comment: Some(if options.message.is_empty() {
                "Imported from -".to_owned()
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

//! Finds the root file system of a service.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hostd_images::{ImageError, ImageStore, PullOptions};
use keelson_model::error::ErrorKind;
use keelson_model::spec::RootSpec;
use tokio::sync::mpsc;

use crate::definition::{Definition, DefinitionError};

/// What an image says of its containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceImage {
    /// The root file system, writable if the service may write there.
    pub root: RootSpec,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Empty: root.
    pub user: String,
    /// Empty: `/`.
    pub working_directory: String,
    /// Changes when the image does.
    pub fingerprint: u64,
}

/// Why a service has no root file system now.
#[derive(Debug, thiserror::Error)]
pub enum ImageProblem {
    /// The configuration is wrong.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// The image can't be read.
    #[error(transparent)]
    Store(#[from] ImageError),
}

/// Finds the image of service `name`; pulls it if it is one of a registry that the machine does not
/// have. `layers`: the directory of the OS's layers.
///
/// # Errors
/// There is no image, or it can't be pulled. The text names file, field and remedy.
pub async fn find(
    name: &str,
    definition: &Definition,
    layers: &Path,
    store: &ImageStore,
) -> Result<ServiceImage, ImageProblem> {
    match &definition.config.image {
        Some(image) => of_registry(name, definition, image, store).await,
        None => Ok(of_os(name, definition, layers)?),
    }
}

fn of_os(
    name: &str,
    definition: &Definition,
    layers: &Path,
) -> Result<ServiceImage, DefinitionError> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut hasher = DefaultHasher::new();
    for (index, layer) in definition.config.layers.iter().enumerate() {
        let file = layers.join(format!("{layer}.erofs"));
        let metadata = fs::metadata(&file).map_err(|error| {
            definition.error(
                name,
                &format!("layers[{index}]"),
                format!("{}: {error}", file.display()),
                format!("this image has {}", available(layers)),
            )
        })?;
        (metadata.len(), metadata.ino(), metadata.mtime()).hash(&mut hasher);
        files.push(file);
    }
    let mut files = files.into_iter();
    let Some(path) = files.next() else {
        return Err(definition.error(
            name,
            "image",
            "the service has neither image nor layers",
            r#"name an image, such as "registry.lan/tools:3""#,
        ));
    };
    Ok(ServiceImage {
        root: RootSpec::System {
            path,
            lower: files.collect(),
            read_only: !definition.config.writable.unwrap_or_default(),
        },
        command: Vec::new(),
        environment: Vec::new(),
        user: String::new(),
        working_directory: String::new(),
        fingerprint: hasher.finish(),
    })
}

/// The layers that there are, for a message.
fn available(layers: &Path) -> String {
    let entries = fs::read_dir(layers).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".erofs")?.to_owned()))
        .collect();
    names.sort();
    match names.is_empty() {
        true => "no layers".to_owned(),
        false => format!("the layers {}", names.join(", ")),
    }
}

async fn of_registry(
    name: &str,
    definition: &Definition,
    reference: &str,
    store: &ImageStore,
) -> Result<ServiceImage, ImageProblem> {
    let image = match store.resolve(reference) {
        Ok(image) => image,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            pull(reference, store).await.map_err(|error| {
                definition.error(
                    name,
                    "image",
                    format!("{reference} can't be pulled: {error}"),
                    "check the name, the network and [registries], or load the image with docker load",
                )
            })?;
            store.resolve(reference)?
        }
        Err(error) => return Err(error.into()),
    };
    let defaults = &image.config.config;
    let command = [&defaults.entrypoint, &defaults.cmd].into_iter().flatten();
    let id = image.id.to_string();
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    Ok(ServiceImage {
        root: RootSpec::Image {
            id,
            name: reference.to_owned(),
            read_only: !definition.config.writable.unwrap_or_default(),
        },
        command: command.flatten().cloned().collect(),
        environment: defaults.env.clone().unwrap_or_default(),
        user: defaults.user.clone(),
        working_directory: defaults.working_dir.clone(),
        fingerprint: hasher.finish(),
    })
}

async fn pull(reference: &str, store: &ImageStore) -> Result<(), ImageError> {
    tracing::info!(image = reference, "pulling the image of a service");
    let (sender, mut progress) = mpsc::channel(16);
    let pull = store.pull(reference, PullOptions::default(), sender);
    tokio::pin!(pull);
    loop {
        tokio::select! {
            pulled = &mut pull => return pulled.map(drop),
            // Nobody looks at it; but a full queue would stop the pull.
            Some(_) = progress.recv() => {}
        }
    }
}

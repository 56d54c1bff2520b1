//! Images that are mounted in a container. They are held from its creation to its removal, and
//! mounted while it runs.
//!
//! The layers are assembled at a mount point of the engine, and the runtime binds from there, as
//! with parts of volumes ([`crate::subpath`]). Nobody can write to it.

use std::sync::Arc;

use hostd_images::{Holder, ImageError, ImageLease, RootfsLayers};
use keelson_model::spec::{
    BindMount, ContainerSpec, ImageMount, MountKind, MountSpec, Propagation, ReadOnly,
};
use keelson_model::users::UserRange;
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;

use crate::container::Container;
use crate::engine::Inner;
use crate::id_maps::IdMap;
use crate::subpath::SubpathPlaces;
use crate::{EngineError, overlay};

impl Inner {
    /// Finds and holds the images of a new container, and writes their identifiers into its
    /// specification.
    pub(crate) fn hold_images(
        &self,
        id: &str,
        spec: &mut ContainerSpec,
    ) -> Result<Vec<ImageLease>, EngineError> {
        let mounts = spec.images.iter_mut();
        let leases = mounts.map(|mount| {
            let holder = Holder::container(id);
            let (lease, image) = self.images.lease(&mount.name, holder).map_err(unfit)?;
            mount.id = image.id.to_string();
            Ok(lease)
        });
        leases.collect()
    }

    /// Holds the images of a container that an earlier engine has created.
    pub(crate) fn hold_images_again(&self, container: &Arc<Container>) {
        let snapshot = container.snapshot();
        let mounts = snapshot.spec.images.iter();
        let leases = mounts.map(|mount| {
            let holder = Holder::container(&snapshot.id);
            self.images.lease_again(mount.id.parse().ok(), holder)
        });
        container.hold_mounted(leases.collect());
    }

    /// Assembles the images. `users`: the container's user range, to which owners are mapped;
    /// `None`: owners are not mapped. `keep` receives the values that keep the layers mounted.
    pub(crate) fn mount_images(
        &self,
        spec: &ContainerSpec,
        places: &SubpathPlaces,
        users: Option<UserRange>,
        mut keep: impl FnMut(RootfsLayers),
    ) -> Result<Vec<MountSpec>, EngineError> {
        let mounts = spec.images.iter().enumerate();
        let mounts = mounts.map(|(index, mount)| {
            let of = || {
                format!(
                    "mount of image {} at {}",
                    mount.name,
                    mount.target.display()
                )
            };
            let id = mount
                .id
                .parse()
                .map_err(EngineError::image_id_of(of, &mount.id))?;
            let layers = self.images.mount(&id)?;
            let whole = places.make(whole_name(index))?;
            // An overlay needs two layers, and a single one would show its whiteouts.
            let empty = places.make("empty")?;
            let lower: Vec<_> = layers.lower.iter().cloned().chain([empty]).collect();
            let make = || {
                overlay::read_only(&lower).map_err(|error| {
                    EngineError::io("put the layers together at", &whole)(error.into())
                })
            };
            let tree = match users {
                Some(users) => IdMap::outwards(users)?.within(&layers.lower, make)?,
                None => make()?,
            };
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&tree, "", CWD, &whole, flags)
                .map_err(|error| EngineError::io("mount an image at", &whole)(error.into()))?;
            keep(layers);
            if let Some(subpath) = &mount.subpath {
                places.mount(part_name(index), &whole, subpath)?;
            }
            Ok(as_bind(mount, index, places))
        });
        mounts.collect()
    }
}

/// The mounts for the images of a running container.
pub(crate) fn image_mounts(spec: &ContainerSpec, places: &SubpathPlaces) -> Vec<MountSpec> {
    let mounts = spec.images.iter().enumerate();
    mounts
        .map(|(index, mount)| as_bind(mount, index, places))
        .collect()
}

fn whole_name(index: usize) -> String {
    format!("image-{index}")
}

fn part_name(index: usize) -> String {
    format!("image-{index}-part")
}

fn as_bind(mount: &ImageMount, index: usize, places: &SubpathPlaces) -> MountSpec {
    let name = match mount.subpath {
        Some(_) => part_name(index),
        None => whole_name(index),
    };
    MountSpec {
        target: mount.target.clone(),
        kind: MountKind::Bind(BindMount {
            source: places.place(name),
            create_source: false,
            recursive: true,
            read_only: ReadOnly::Recursive,
            propagation: Propagation::RecursivePrivate,
            // The layers are mapped, if necessary.
            mapped: false,
        }),
    }
}

/// Clients interpret a 404 of a creation as a missing image of the container itself.
fn unfit(error: ImageError) -> EngineError {
    match error {
        ImageError::NotFound(_) => {
            EngineError::Invalid(format!("invalid mount config for type \"image\": {error}"))
        }
        error => error.into(),
    }
}

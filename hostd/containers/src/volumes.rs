//! A container's volumes. They are created or found at its creation, held until its removal, and
//! used while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hostd_images::{Owners, RootfsLayers};
use hostd_volumes::{Force, NewVolume, Volume, VolumeError, VolumeLease, VolumeStore, VolumeUse};
use keelson_model::error::ErrorKind;
use keelson_model::spec::{
    BindMount, ContainerSpec, IpcMode, MountKind, MountSpec, Propagation, ReadOnly, RootSpec,
    VolumeMount,
};
use keelson_model::users::UserRange;

use crate::container::Container;
use crate::copy_up::copy_up;
use crate::engine::Inner;
use crate::held::Held;
use crate::image_mounts::image_mounts;
use crate::rootfs::Merged;
use crate::subpath::{SubpathPlaces, clear_strays};
use crate::types::Snapshot;
use crate::{Engine, EngineError};

/// The volumes of a container that is being created.
pub(crate) struct Made {
    pub(crate) leases: Vec<VolumeLease>,
    /// The anonymous volumes that were made for it.
    own: Vec<String>,
}

impl Engine {
    /// The volumes of this host.
    pub fn volumes(&self) -> &VolumeStore {
        &self.inner.volumes
    }
}

impl Inner {
    /// Creates or finds the volumes of a new container, fills the empty ones from its image, and
    /// writes their names into its specification. After an error only named volumes remain.
    pub(crate) fn make_volumes(
        &self,
        id: &str,
        spec: &mut ContainerSpec,
    ) -> Result<Made, EngineError> {
        let (mut leases, mut own) = (Vec::new(), Vec::new());
        let mut volumes = Vec::new();
        let (root, users) = (spec.root.clone(), spec.namespaces.users);
        let made = spec.volumes.iter_mut().try_for_each(|mount| {
            let (volume, lease, made) = self.volumes.create_held(new_volume(mount), id)?;
            leases.push(lease);
            mount.name.clone_from(&volume.name);
            if made && mount.anonymous {
                own.push(volume.name.clone());
            }
            volumes.push((volume, mount.clone()));
            Ok::<_, VolumeError>(())
        });
        let filled = made
            .map_err(unfit)
            .and_then(|()| self.fill_volumes(id, &root, users, &volumes));
        match filled {
            Ok(()) => Ok(Made { leases, own }),
            Err(error) => {
                self.unmake_volumes(Made { leases, own });
                Err(error)
            }
        }
    }

    /// Removes the volumes of a container whose creation failed.
    pub(crate) fn unmake_volumes(&self, made: Made) {
        drop(made.leases);
        self.remove_volumes(&made.own);
    }

    fn fill_volumes(
        &self,
        id: &str,
        root: &RootSpec,
        users: Option<UserRange>,
        volumes: &[(Arc<Volume>, VolumeMount)],
    ) -> Result<(), EngineError> {
        let RootSpec::Image { id: image, .. } = root else {
            return Ok(());
        };
        let mut layers = None;
        let wanted = |mount: &VolumeMount| !mount.no_copy && mount.subpath.is_none();
        for (volume, mount) in volumes.iter().filter(|(_, mount)| wanted(mount)) {
            let layers = match &layers {
                Some(layers) => layers,
                None => {
                    let image = image.parse().map_err(EngineError::image_id(id, image))?;
                    layers.insert(self.images.mount(&image)?)
                }
            };
            let merged = Merged::new(&layers.lower);
            let found = merged
                .directories(&mount.target.to_string_lossy())
                .map_err(EngineError::io("look up in the image", &mount.target))?;
            let Some(found) = found else {
                continue;
            };
            // The mounted directory is filled, not the one that it hides.
            let used = self.volumes.begin_use(&volume.name, id)?;
            let owners = Owners::from(users.filter(|_| !used.is_own()));
            let copied = self.volumes.fill(&used, |to: &Path| {
                copy_up(&found, to, owners)
                    .map_err(EngineError::io("copy the image's files to", to))
            });
            used.end_silently();
            copied?;
        }
        Ok(())
    }

    /// Removes anonymous volumes that nobody else holds.
    pub(crate) fn drop_anonymous(&self, volumes: &[VolumeMount]) {
        let anonymous = volumes.iter().filter(|mount| mount.anonymous);
        let names: Vec<_> = anonymous.map(|mount| mount.name.clone()).collect();
        self.remove_volumes(&names);
    }

    fn remove_volumes(&self, names: &[String]) {
        for name in names {
            match self.volumes.remove(name, Force::No) {
                Ok(()) | Err(VolumeError::InUse { .. } | VolumeError::NoSuchVolume(_)) => {}
                Err(error) => tracing::warn!(name, %error, "volume not removed"),
            }
        }
    }

    /// Holds the volumes of a container that an earlier engine has created, and uses them if it may
    /// run.
    pub(crate) fn hold_volumes_again(&self, container: &Container) {
        let snapshot = container.snapshot();
        let may_run = snapshot.run_directory.exists();
        let mut held = Held::default();
        for mount in &snapshot.spec.volumes {
            held.leases
                .push(self.volumes.hold(&mount.name, &snapshot.id));
            if may_run {
                match self.volumes.continue_use(&mount.name, &snapshot.id) {
                    Ok(used) => held.uses.push(used),
                    Err(error) => tracing::warn!(id = snapshot.id, %error, "volume not found"),
                }
            }
        }
        container.live().volumes = held;
    }

    /// Uses the volumes for a run, and returns their mounts.
    pub(crate) fn use_volumes(
        &self,
        container: &Container,
        snapshot: &Snapshot,
    ) -> Result<Vec<MountSpec>, EngineError> {
        // Left by an earlier run that was not cleaned up.
        end_uses(container);
        let places = places(container);
        let mut mounts = self.begin_uses(snapshot, &snapshot.id, &places, |mount, used| {
            used.announce(&mount.target.to_string_lossy(), !mount.read_only, "");
            container.live().volumes.uses.push(used);
        })?;
        let users = snapshot.spec.namespaces.users;
        mounts.extend(self.mount_images(&snapshot.spec, &places, users, |layers| {
            container.live().volumes.layers.push(layers);
        })?);
        Ok(mounts)
    }

    /// Uses the volumes of a stopped container while `work` runs, which gets their mounts. Owners
    /// are not mapped.
    pub(crate) fn with_volumes<T>(
        &self,
        snapshot: &Snapshot,
        work: impl FnOnce(&[MountSpec]) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        struct Using {
            uses: Vec<VolumeUse>,
            layers: Vec<RootfsLayers>,
            places: SubpathPlaces,
        }
        impl Drop for Using {
            fn drop(&mut self) {
                self.places.clear();
                self.uses.iter().for_each(VolumeUse::end_silently);
            }
        }
        // Use a separate name: a start at the same time has other mount points and uses.
        let user = format!("{}-copy-{}", snapshot.id, crate::names::new_id());
        let places = SubpathPlaces::of(self.run.parent().unwrap_or(&self.run), &user);
        let mut using = Using {
            uses: Vec::new(),
            layers: Vec::new(),
            places: places.clone(),
        };
        let mut mounts =
            self.begin_uses(snapshot, &user, &places, |_, used| using.uses.push(used))?;
        let keep = |layers| using.layers.push(layers);
        mounts.extend(self.mount_images(&snapshot.spec, &places, None, keep)?);
        work(&mounts)
    }

    /// Begins a use of each volume, which is passed to `keep` at once, and returns their mounts.
    fn begin_uses(
        &self,
        snapshot: &Snapshot,
        user: &str,
        places: &SubpathPlaces,
        mut keep: impl FnMut(&VolumeMount, VolumeUse),
    ) -> Result<Vec<MountSpec>, EngineError> {
        let mounts = snapshot.spec.volumes.iter().enumerate();
        let mounts = mounts.map(|(index, mount)| {
            let used = self.volumes.begin_use(&mount.name, user)?;
            let (whole, mapped) = (used.directory().to_owned(), used.is_own());
            keep(mount, used);
            let source = match &mount.subpath {
                Some(subpath) => places.mount(index, &whole, subpath)?,
                None => whole,
            };
            Ok(as_bind(mount, source, mapped))
        });
        mounts.collect()
    }

    /// The mounts for the volumes of a running container.
    pub(crate) fn volume_mounts(&self, snapshot: &Snapshot) -> Result<Vec<MountSpec>, EngineError> {
        let places = places_of(&snapshot.run_directory, &snapshot.id);
        let mounts = snapshot.spec.volumes.iter().enumerate();
        let mounts = mounts.map(|(index, mount)| {
            let source = match &mount.subpath {
                Some(_) => places.place(index),
                None => {
                    let directory = self.volumes.directory(&mount.name, &snapshot.id)?;
                    directory.ok_or_else(|| EngineError::VolumeNotMounted {
                        id: snapshot.id.clone(),
                        volume: mount.name.clone(),
                    })?
                }
            };
            // A mounted volume has its own owners.
            Ok(as_bind(mount, source, false))
        });
        let mut mounts = mounts.collect::<Result<Vec<_>, EngineError>>()?;
        mounts.extend(image_mounts(&snapshot.spec, &places));
        Ok(mounts)
    }

    /// Unmounts volumes that an earlier engine mounted for stopped containers.
    pub(crate) fn unmount_unused_volumes(&self) {
        if let Some(run) = self.run.parent() {
            clear_strays(run, |id| self.run.join(id).exists());
        }
        self.volumes.unmount_unused();
    }
}

/// Ends a container's use of its volumes and of its shared memory.
pub(crate) fn end_uses(container: &Container) {
    let spec = &container.snapshot().spec;
    let has_places = !spec.volumes.is_empty() || !spec.images.is_empty();
    if has_places || spec.namespaces.ipc == IpcMode::Shareable {
        places(container).clear();
    }
    let held = std::mem::take(&mut container.live().volumes.layers);
    // This may unmount them.
    drop(held);
    let uses = std::mem::take(&mut container.live().volumes.uses);
    uses.into_iter().for_each(VolumeUse::end);
}

/// The mount points of parts of a container's volumes and of its shared memory.
pub(crate) fn places(container: &Container) -> SubpathPlaces {
    places_of(&container.run_directory, &container.id)
}

/// `directory` is RUN/containers/ID.
fn places_of(directory: &Path, id: &str) -> SubpathPlaces {
    let run = directory.parent().and_then(Path::parent);
    SubpathPlaces::of(run.unwrap_or(directory), id)
}

fn new_volume(mount: &mut VolumeMount) -> NewVolume {
    NewVolume {
        name: mount.name.clone(),
        driver: std::mem::take(&mut mount.driver),
        options: std::mem::take(&mut mount.options),
        labels: std::mem::take(&mut mount.labels),
    }
}

/// Clients interpret a 404 of a creation as a missing image.
fn unfit(error: VolumeError) -> EngineError {
    match error.kind() {
        ErrorKind::NotFound => EngineError::Invalid(error.to_string()),
        _ => error.into(),
    }
}

fn as_bind(mount: &VolumeMount, source: PathBuf, mapped: bool) -> MountSpec {
    MountSpec {
        target: mount.target.clone(),
        kind: MountKind::Bind(BindMount {
            source,
            create_source: false,
            recursive: true,
            read_only: match mount.read_only {
                true => ReadOnly::Recursive,
                false => ReadOnly::No,
            },
            propagation: Propagation::RecursivePrivate,
            mapped,
        }),
    }
}

//! Creates and renames containers.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use hostd_images::{Holder, ImageLease};
use jiff::Timestamp;
use keelson_model::spec::{ContainerSpec, MountKind, MountSpec, RootSpec};
use keelson_store::document::Rest;
use keelson_store::{Durability, document};

use crate::container::{Beginning, Container};
use crate::document::{CONTAINER, ContainerDocument, Identity};
use crate::engine::{Inner, off_workers, require_readable};
use crate::machine::Found;
use crate::old::OldDocument;
use crate::spec::available::check_host;
use crate::spec::check::check;
use crate::types::{ContainerAction, CreateRequest, Created, Scope, Shown, Snapshot, State};
use crate::{Engine, EngineError, names};

/// How often another name is generated when the last one was taken.
const NAME_ATTEMPTS: u32 = 64;

/// The current log file of a container, in its directory.
pub(crate) const LOG: &str = "log/container.log";

impl Engine {
    /// Creates a container. Without a name it gets one of two words.
    ///
    /// # Errors
    /// The name is taken or invalid, or the specification contradicts itself or can't be
    /// fulfilled on this host.
    pub async fn create(
        &self,
        scope: Scope,
        name: Option<String>,
        request: CreateRequest,
    ) -> Result<Created, EngineError> {
        let inner = Arc::clone(&self.inner);
        Self::whole(async move { off_workers(|| inner.create(scope, name, request)) }).await
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// The container does not exist, or the name is taken or invalid.
    pub async fn rename(&self, scope: Scope, name: &str, new: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let new = names::check(new)?.to_owned();
        Self::whole(async move {
            let _guard = container.lock().await?;
            off_workers(|| inner.rename(&container, &new))?;
            inner.rename_in_networks(&container.snapshot()).await;
            Ok(())
        })
        .await
    }
}

impl Inner {
    fn create(
        &self,
        scope: Scope,
        name: Option<String>,
        request: CreateRequest,
    ) -> Result<Created, EngineError> {
        let CreateRequest {
            id,
            mut spec,
            shown,
            lease,
        } = request;
        let id = id.as_str();
        // Held from now on at the latest, so that nobody removes it meanwhile.
        let lease = match lease {
            None => self.lease(id, &spec.root)?,
            held => held,
        };
        check(&spec, &self.root)?;
        check_host(&spec, &self.facts)?;
        check_binds(&spec.mounts)?;
        let images = self.hold_images(id, &mut spec)?;
        let name = self.reserve(scope, name.as_deref(), id)?;
        let made = self.make_volumes(id, &mut spec).and_then(|volumes| {
            match self.make(scope, id, &name, spec, shown) {
                Ok(container) => Ok((container, volumes)),
                Err(error) => {
                    self.unmake_volumes(volumes);
                    Err(error)
                }
            }
        });
        match made {
            Ok((container, volumes)) => {
                let container = Arc::new(container);
                container.hold(lease);
                container.live().volumes.leases = volumes.leases;
                container.hold_mounted(images);
                self.with_mut(scope, |registry| {
                    registry.insert(id, Arc::clone(&container))
                });
                self.configure_networks(&container.snapshot());
                self.emit(&container, ContainerAction::Create);
                Ok(Created { id: id.to_owned() })
            }
            Err(error) => {
                self.with_mut(scope, |registry| registry.release(&name));
                if let Ok(Some(trash)) = self.objects.discard(id) {
                    // What cannot be deleted now is deleted at the next start.
                    let _ = keelson_store::objects::remove_tree(&trash);
                }
                Err(error)
            }
        }
    }

    /// Holds the image for a new container.
    fn lease(&self, id: &str, root: &RootSpec) -> Result<Option<ImageLease>, EngineError> {
        match root {
            RootSpec::Image { id: image, .. } => {
                let (lease, _) = self.images.lease(image, Holder::container(id))?;
                Ok(Some(lease))
            }
            RootSpec::System { .. } => Ok(None),
        }
    }

    fn reserve(&self, scope: Scope, name: Option<&str>, id: &str) -> Result<String, EngineError> {
        if let Some(name) = name {
            let name = names::check(name)?;
            self.with_mut(scope, |registry| registry.reserve(name, id))?;
            return Ok(name.to_owned());
        }
        for attempt in 0..NAME_ATTEMPTS {
            let name = names::generate(attempt);
            if self
                .with_mut(scope, |registry| registry.reserve(&name, id))
                .is_ok()
            {
                return Ok(name);
            }
        }
        // The identifier itself is a valid name that nobody else can have generated.
        let name = id.get(..12).unwrap_or(id).to_owned();
        self.with_mut(scope, |registry| registry.reserve(&name, id))?;
        Ok(name)
    }

    fn make(
        &self,
        scope: Scope,
        id: &str,
        name: &str,
        spec: ContainerSpec,
        shown: Option<Shown>,
    ) -> Result<Container, EngineError> {
        let directory = self.objects.prepare(id)?;
        // The container's files are not for other users of the machine; `upper` becomes the
        // container's root directory, which is.
        set_mode(&directory, 0o700)?;
        for (part, mode) in [("upper", 0o755), ("work", 0o700), ("log", 0o700)] {
            let path = directory.join(part);
            fs::DirBuilder::new()
                .mode(mode)
                .create(&path)
                .map_err(EngineError::io("mkdir", &path))?;
            set_mode(&path, mode)?;
        }
        let container = Container::new(
            self.snapshot((id, name, scope, Timestamp::now()), spec, shown)?,
            Beginning::New,
        );
        let snapshot = container.snapshot();
        let document = ContainerDocument::of(&snapshot)?;
        Identity::write(&directory, &document)?;
        self.write_document(&snapshot, &document)?;
        if snapshot.spec.auto_remove {
            // It does not outlive the machine's next start, so it is not flushed.
            self.objects.settle(id);
        }
        Ok(container)
    }

    /// Writes the document of a container.
    pub(crate) fn write_document(
        &self,
        snapshot: &Snapshot,
        document: &ContainerDocument,
    ) -> Result<(), EngineError> {
        let path = self.objects.document(&document.id)?;
        off_workers(|| document::write(&path, document, self.images.era(), Durability::Relaxed))?;
        if !snapshot.spec.auto_remove {
            let (objects, id) = (Arc::clone(&self.objects), document.id.clone());
            self.flusher.then(path, move || objects.settle(&id));
        }
        Ok(())
    }

    /// Makes a container in memory from what is on disk.
    pub(crate) fn load(
        &self,
        mut document: ContainerDocument,
        found: Found,
    ) -> Result<Container, EngineError> {
        let spec = match document.spec.take() {
            Some(spec) => spec,
            None => self.read_old(&document)?,
        };
        check(&spec, &self.root)?;
        let identity = (
            document.id.as_str(),
            document.name.as_str(),
            document.scope,
            document.created,
        );
        let mut snapshot = self.snapshot(identity, spec, document.shown())?;
        snapshot.rest = document.rest;
        Ok(Container::new(snapshot, Beginning::Found(found)))
    }

    /// Makes the specification of a container that was stored in a client's words.
    pub(crate) fn read_old(
        &self,
        document: &ContainerDocument,
    ) -> Result<ContainerSpec, EngineError> {
        (self.read_old)(&OldDocument {
            id: &document.id,
            root: document.root(),
            command: (&document.path, &document.args),
            config: &document.config,
            host_config: &document.host_config,
            facts: &self.facts,
            engine: &self.root,
        })
    }

    /// The parts of a container that is created or adopted.
    pub(crate) fn snapshot(
        &self,
        (id, name, scope, created): (&str, &str, Scope, Timestamp),
        spec: ContainerSpec,
        shown: Option<Shown>,
    ) -> Result<Snapshot, EngineError> {
        let directory = self.objects.directory(id)?;
        Ok(Snapshot {
            cgroup: self.cgroup(scope, id, spec.cgroup_parent.as_deref()),
            log_path: directory.join(LOG),
            id: id.to_owned(),
            name: name.to_owned(),
            scope,
            created,
            spec: Arc::new(spec),
            shown: shown.map(Arc::new),
            rest: Rest::default(),
            // The container's own is put in its place.
            state: State::default(),
            health: None,
            directory,
            run_directory: self.run.join(id),
        })
    }

    fn rename(&self, container: &Container, new: &str) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        require_readable(container)?;
        if snapshot.name == new {
            return Err(EngineError::Invalid(
                "Renaming a container with the same name as its current name".to_owned(),
            ));
        }
        self.with_mut(container.scope, |registry| {
            registry.reserve(new, &container.id)
        })?;
        let written = ContainerDocument::of(&snapshot).and_then(|mut document| {
            new.clone_into(&mut document.name);
            self.write_document(&snapshot, &document)?;
            Ok(document)
        });
        let document = written.inspect_err(|_| {
            self.with_mut(container.scope, |registry| registry.release(new));
        })?;
        if let Err(error) = Identity::write(&snapshot.directory, &document) {
            tracing::warn!(id = container.id, %error, "identity of a renamed container not written");
        }
        Arc::make_mut(&mut container.live().snapshot).name = new.to_owned();
        self.with_mut(container.scope, |registry| registry.release(&snapshot.name));
        let former = snapshot.name.clone();
        self.emit(container, ContainerAction::Rename { former });
        Ok(())
    }
}

/// Name of the document, for [`keelson_store::Objects`].
pub(crate) const DOCUMENT: &str = CONTAINER;

fn set_mode(path: &Path, mode: u32) -> Result<(), EngineError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(EngineError::io("chmod", path))
}

/// Sources of bind mounts must exist, unless they are created when missing.
pub(crate) fn check_binds(mounts: &[MountSpec]) -> Result<(), EngineError> {
    for mount in mounts {
        if let MountKind::Bind(bind) = &mount.kind
            && !bind.create_source
            && fs::symlink_metadata(&bind.source).is_err()
        {
            return Err(EngineError::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                bind.source.display()
            )));
        }
    }
    Ok(())
}

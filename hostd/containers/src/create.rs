//! Making and renaming containers.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use hostd_images::Image;
use jiff::Timestamp;
use keelson_store::{Durability, document};

use crate::container::Container;
use crate::document::{CONTAINER, ContainerDocument, Identity};
use crate::engine::{Inner, off_workers, require_readable};
use crate::spec::mounts::{self, Wanted, WantedKind};
use crate::types::{CreateRequest, Created, RootSource, Scope, Snapshot, State};
use crate::validate::{self, Completed, HostNames};
use crate::{Engine, EngineError, names};

/// How often another name is generated when the last one was taken.
const NAME_ATTEMPTS: u32 = 64;

/// The current log file of a container, in its folder.
pub(crate) const LOG: &str = "log/container.log";

impl Engine {
    /// Makes a container; without a name it gets one of two words.
    ///
    /// # Errors
    /// No such image, a name that is taken or not allowed, a bad value, or an option that is not
    /// implemented.
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
    /// No such container, a name that is taken or not allowed.
    pub async fn rename(&self, scope: Scope, name: &str, new: &str) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let new = names::check(new)?.to_owned();
        Self::whole(async move {
            let _guard = container.lock().await?;
            off_workers(|| inner.rename(&container, &new))
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
        let id = names::new_id();
        let image = match &request.root {
            RootSource::Image => Some(self.images.resolve(&request.config.image)?),
            RootSource::System(_) => None,
        };
        let machine = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        let mut completed = validate::complete(
            HostNames {
                own: id.get(..12).unwrap_or(&id),
                machine: &machine,
            },
            request.config,
            request.host_config,
            &request.networking,
            image.as_deref().map(|image| &image.config.config),
            &self.facts,
            &self.defaults,
        )?;
        mounts::guard_engine(&mut completed.mounts, &self.root)?;
        check_binds(&completed.mounts)?;
        let name = self.reserve(scope, name.as_deref(), &id)?;
        let warnings = completed.warnings.clone();
        let root = request.root;
        let made = self.make(scope, &id, &name, image.as_deref(), &root, completed);
        match made {
            Ok(container) => {
                let container = Arc::new(container);
                self.with_mut(scope, |registry| {
                    registry.insert(&id, Arc::clone(&container))
                });
                self.emit(&container, "create", &[]);
                Ok(Created { id, warnings })
            }
            Err(error) => {
                self.with_mut(scope, |registry| registry.release(&name));
                if let Ok(Some(trash)) = self.objects.discard(&id) {
                    // What cannot be deleted now is deleted at the next start.
                    let _ = keelson_store::objects::remove_tree(&trash);
                }
                Err(error)
            }
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
        image: Option<&Image>,
        root: &RootSource,
        completed: Completed,
    ) -> Result<Container, EngineError> {
        let folder = self.objects.prepare(id)?;
        // The container's files are not for other users of the machine; `upper` becomes the
        // container's root folder, which is.
        set_mode(&folder, 0o700)?;
        for (part, mode) in [("upper", 0o755), ("work", 0o700), ("log", 0o700)] {
            let path = folder.join(part);
            fs::DirBuilder::new()
                .mode(mode)
                .create(&path)
                .map_err(EngineError::io("mkdir", &path))?;
            set_mode(&path, mode)?;
        }
        let document = ContainerDocument {
            id: id.to_owned(),
            name: name.to_owned(),
            scope,
            created: Timestamp::now(),
            image_id: image.map(|image| image.id.to_string()).unwrap_or_default(),
            image: match root {
                RootSource::Image => completed.config.image.clone(),
                RootSource::System(path) => path.to_string_lossy().into_owned(),
            },
            path: completed.path,
            args: completed.args,
            config: completed.config,
            host_config: completed.host,
        };
        Identity::write(&folder, &document)?;
        self.write_document(&document)?;
        if document.host_config.auto_remove {
            // It does not outlive the machine's next start, so it is not flushed.
            self.objects.settle(id);
        }
        self.load(document, &completed.mounts, State::default())
    }

    pub(crate) fn write_document(&self, document: &ContainerDocument) -> Result<(), EngineError> {
        let path = self.objects.document(&document.id)?;
        off_workers(|| document::write(&path, document, self.images.era(), Durability::Relaxed))?;
        if !document.host_config.auto_remove {
            let (objects, id) = (Arc::clone(&self.objects), document.id.clone());
            self.flusher.then(path, move || objects.settle(&id));
        }
        Ok(())
    }

    /// Makes a container in memory from what is on disk.
    pub(crate) fn load(
        &self,
        document: ContainerDocument,
        mounts: &[Wanted],
        state: State,
    ) -> Result<Container, EngineError> {
        let folder = self.objects.folder(&document.id)?;
        let run_folder = self.run.join(&document.id);
        Ok(Container::new(
            Snapshot {
                cgroup: self.cgroup(document.scope, &document.id),
                log_path: folder.join(LOG),
                id: document.id,
                name: document.name,
                scope: document.scope,
                created: document.created,
                image_id: document.image_id,
                image: document.image,
                path: document.path,
                args: document.args,
                config: Arc::new(document.config),
                host_config: Arc::new(document.host_config),
                mounts: mounts.iter().map(Wanted::to_mount_point).collect(),
                state,
                folder,
                run_folder: run_folder.clone(),
            },
            run_folder,
        ))
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
        let mut document = ContainerDocument::of(&snapshot);
        new.clone_into(&mut document.name);
        if let Err(error) = self.write_document(&document) {
            self.with_mut(container.scope, |registry| registry.release(new));
            return Err(error);
        }
        if let Err(error) = Identity::write(&snapshot.folder, &document) {
            tracing::warn!(id = container.id, %error, "identity of a renamed container not written");
        }
        Arc::make_mut(&mut container.live().snapshot).name = new.to_owned();
        self.with_mut(container.scope, |registry| registry.release(&snapshot.name));
        self.emit(
            container,
            "rename",
            &[("oldName", format!("/{}", snapshot.name))],
        );
        Ok(())
    }
}

/// Name of the document, for [`keelson_store::Objects`].
pub(crate) const DOCUMENT: &str = CONTAINER;

fn set_mode(path: &Path, mode: u32) -> Result<(), EngineError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(EngineError::io("chmod", path))
}

/// Sources of bind mounts that are not made when they are missing must be there.
pub(crate) fn check_binds(mounts: &[Wanted]) -> Result<(), EngineError> {
    for mount in mounts {
        if let WantedKind::Bind {
            source,
            create: false,
            ..
        } = &mount.kind
            && fs::symlink_metadata(source).is_err()
        {
            return Err(EngineError::Invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                source.display()
            )));
        }
    }
    Ok(())
}

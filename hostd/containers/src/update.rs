//! Changes the limits and the restart policy of an existing container.

use std::sync::Arc;

use keelson_shim_protocol::Request;

use crate::container::Container;
use crate::document::ContainerDocument;
use crate::engine::{Inner, require_readable};
use crate::spec::available::{check_controllers, check_cpuset};
use crate::spec::check::check;
use crate::spec::limits;
use crate::types::{ContainerAction, Scope, Snapshot, SpecChange};
use crate::{Engine, EngineError, devices};

impl Engine {
    /// Changes limits and restart policy, also of a running container. `change` gets the container
    /// as it is, while nobody else changes it.
    ///
    /// # Errors
    /// The errors of `change`, a specification that contradicts itself, or a limit that the host
    /// can't set. Nothing is changed then.
    pub async fn update<E: From<EngineError> + Send + 'static>(
        &self,
        scope: Scope,
        name: &str,
        change: impl FnOnce(&Snapshot) -> Result<SpecChange, E> + Send + 'static,
    ) -> Result<(), E> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        let work = async move {
            let _guard = container.lock().await?;
            require_readable(&container)?;
            Ok(match change(&container.snapshot()) {
                Ok(change) => inner.update(&container, change).await.map_err(E::from),
                Err(error) => Err(error),
            })
        };
        Self::whole(work).await?
    }
}

impl Inner {
    async fn update(&self, container: &Container, change: SpecChange) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        check(&change.spec, &self.root)?;
        let limits = &change.spec.limits;
        check_controllers(limits, &self.facts)?;
        // What the container had may have been switched off since.
        if limits.cpu != snapshot.spec.limits.cpu {
            check_cpuset(&limits.cpu, &self.facts)?;
        }
        let changed = Snapshot {
            spec: Arc::new(change.spec),
            shown: change.shown.map(Arc::new),
            ..Snapshot::clone(&snapshot)
        };
        // Missing devices are detected before anything is changed.
        let io = limits::io_of_update(&snapshot.spec.limits.io, &changed.spec.limits.io);
        let devices = io.devices.iter().map(|device| devices::block(&device.node));
        let devices: Vec<_> = devices.collect::<Result<_, _>>()?;
        let resources = limits::for_update(&changed.spec.limits, &io, &devices);
        // The document first: when the engine is killed in between, the next start of the
        // container has the new limits.
        self.write_document(&changed, &ContainerDocument::of(&changed)?)?;
        if change.limits && snapshot.state.status.has_process() {
            self.weigh_disks(&io, &devices);
            let request = Request::Update { resources };
            if let Err(error) = container.shim().command("update", &request).await {
                self.write_document(&snapshot, &ContainerDocument::of(&snapshot)?)?;
                return Err(error);
            }
        }
        container.live().update(|current| {
            (current.spec, current.shown) = (changed.spec, changed.shown);
        });
        self.emit(container, ContainerAction::Update);
        Ok(())
    }
}

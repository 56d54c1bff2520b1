//! Changing the limits and the restart policy of a container that exists.

use std::sync::Arc;

use keelson_model::container::HostConfig;
use keelson_shim_protocol::Request;

use crate::document::ContainerDocument;
use crate::engine::require_readable;
use crate::types::Scope;
use crate::{Engine, EngineError, validate};

impl Engine {
    /// Changes limits and restart policy, also of a running container. Members of `request` that
    /// have their zero value stay as they are, as everywhere in Docker's API.
    ///
    /// # Errors
    /// A bad or contradictory value, a member that can't be changed, or a limit that the host
    /// can't set; nothing is changed then.
    pub async fn update(
        &self,
        scope: Scope,
        name: &str,
        request: HostConfig,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        Self::whole(async move {
            let _guard = container.lock().await?;
            let snapshot = container.snapshot();
            require_readable(&container)?;
            let before = &*snapshot.host_config;
            let update = validate::update(before, &request, &inner.facts)?;
            let mut document = ContainerDocument::of(&snapshot);
            document.host_config = update.host.clone();
            // The document first: when the engine is killed in between, the next start of the
            // container has the new limits.
            inner.write_document(&document)?;
            if let Some(resources) = update.resources
                && snapshot.state.status.has_process()
            {
                let request = Request::Update { resources };
                if let Err(error) = container.shim().command("update", &request).await {
                    inner.write_document(&ContainerDocument::of(&snapshot))?;
                    return Err(error);
                }
            }
            Arc::make_mut(&mut container.live().snapshot).host_config = Arc::new(update.host);
            inner.emit(&container, "update", &[]);
            Ok(())
        })
        .await
    }
}

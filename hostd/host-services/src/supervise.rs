//! Keeps one service running. Every service has one task for that.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hostd_containers::{
    AppArmorState, CreateRequest, DirectoryWatch, EngineError, ExecRequest, HealthStatus, Scope,
    WaitCondition,
};
use tokio::sync::broadcast::error::RecvError;

use crate::definition::{Definition, DefinitionError};
use crate::entry::{Attempt, Entry, Up};
use crate::image::{self, ImageProblem};
use crate::request::{FINGERPRINT, Ground, container, source};
use crate::services::Inner;

/// Changes when services' containers are made in another way, so that an update makes them anew.
const MAKING: u32 = 2;

/// Why a service's container was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Image(#[from] ImageProblem),
    #[error("mkdir {path}: {source}")]
    Mkdir { path: String, source: io::Error },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Inner {
    /// Waits for the predecessors, then keeps the service running.
    pub(crate) async fn keep(self: Arc<Self>, entry: Arc<Entry>) {
        self.wait_for_predecessors(&entry).await;
        loop {
            let attempt = self.attempt(&entry).await;
            match &attempt {
                Attempt::NotStarted { error } => {
                    tracing::warn!(service = entry.name, error, "service not started");
                }
                Attempt::Ended { code, .. } => {
                    tracing::warn!(service = entry.name, code, "service ended");
                }
            }
            let pause = entry.attempted(&attempt);
            // Nobody waits any longer for a first start.
            entry.up.send_if_modified(|up| {
                let was = std::mem::replace(up, Up::No);
                was != Up::No
            });
            let Some(pause) = pause else { return };
            tokio::time::sleep(pause).await;
        }
    }

    async fn wait_for_predecessors(&self, entry: &Entry) {
        let config = &entry.definition.config;
        for other in config.predecessors() {
            let required = config.requires.contains(other);
            // The other one may be replaced meanwhile by one with another definition.
            while let Some(found) = self.entry(other) {
                if !found.can_run() && !required {
                    break;
                }
                let mut up = found.up.subscribe();
                drop(found);
                entry.waits_for(other);
                let accept = |up: &Up| match required {
                    true => *up == Up::Yes,
                    false => *up != Up::Undecided,
                };
                if up.wait_for(accept).await.is_ok() {
                    break;
                }
            }
        }
    }

    /// Lets the service run once, until it ends.
    async fn attempt(&self, entry: &Entry) -> Attempt {
        if let Err(error) = self.ensure(entry).await {
            return Attempt::NotStarted {
                error: error.to_string(),
            };
        }
        entry.runs();
        let since = Instant::now();
        let ended = self.until_ended(&entry.name, since);
        tokio::pin!(ended);
        tokio::select! {
            attempt = &mut ended => return attempt,
            () = self.until_healthy(entry) => {}
        }
        entry.up.send_replace(Up::Yes);
        let reload = &entry.definition.config.reload;
        let watches = reload.watch.iter().map(|path| self.reload_at(entry, path));
        tokio::select! {
            attempt = ended => attempt,
            // These go on for ever.
            _ = futures::future::join_all(watches), if !reload.watch.is_empty() => {
                std::future::pending().await
            }
        }
    }

    /// Executes the service's command for it whenever something in a directory changes.
    async fn reload_at(&self, entry: &Entry, path: &str) {
        let (name, command) = (&entry.name, &entry.definition.config.reload.command);
        let failed = |error: EngineError| {
            tracing::warn!(service = name, path, %error, "service is not told of changes");
        };
        let watch = match DirectoryWatch::new(Path::new(path)) {
            Ok(watch) => watch,
            Err(error) => return failed(error),
        };
        let engine = &self.options.engine;
        while let Ok(()) = watch.changed().await {
            let request = ExecRequest {
                args: command.clone(),
                ..ExecRequest::default()
            };
            let told = match engine.exec_create(Scope::System, name, request) {
                Ok(id) => engine.exec_start(Scope::System, &id, true, None).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(_) => tracing::info!(service = name, path, "service was told of a change"),
                Err(error) => failed(error),
            }
        }
    }

    async fn until_ended(&self, name: &str, since: Instant) -> Attempt {
        let engine = &self.options.engine;
        let wait = engine.wait(Scope::System, name, WaitCondition::NotRunning);
        if let Ok(ended) = wait.await {
            drop(ended.await);
        }
        let Ok(snapshot) = engine.inspect(Scope::System, name) else {
            return Attempt::Ended {
                code: None,
                ran: since.elapsed(),
            };
        };
        let state = &snapshot.state;
        // It may have run before this process.
        let ran = match (state.started_at, state.finished_at) {
            (Some(start), Some(end)) => Duration::try_from(end.duration_since(start)).ok(),
            _ => None,
        };
        Attempt::Ended {
            code: Some(state.exit_code),
            ran: ran.unwrap_or_else(|| since.elapsed()),
        }
    }

    /// Returns when the service is healthy; at once if that is not checked.
    async fn until_healthy(&self, entry: &Entry) {
        if entry.definition.config.health.command.is_empty() {
            return;
        }
        let engine = &self.options.engine;
        // Before the first look, so that no change is missed.
        let mut events = engine.subscribe();
        loop {
            if let Ok(snapshot) = engine.inspect(Scope::System, &entry.name)
                && let Some(health) = &snapshot.health
                && health.status == HealthStatus::Healthy
            {
                return;
            }
            if let Err(RecvError::Closed) = events.recv().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps a running container that was made from the same definition and image, and starts one that
    /// rests. Otherwise makes a new one.
    async fn ensure(&self, entry: &Entry) -> Result<(), StartError> {
        let engine = &self.options.engine;
        let (name, definition) = (entry.name.as_str(), &entry.definition);
        let image = image::find(name, definition, &self.options.layers, &self.options.images);
        let image = image.await?;
        let fingerprint = fingerprint(definition, image.fingerprint);
        if let Ok(existing) = engine.inspect(Scope::System, name) {
            let same = existing.spec.labels.get(FINGERPRINT) == Some(&fingerprint);
            if same && existing.state.status.counts_as_running() {
                return Ok(());
            }
            // Its log goes on.
            if same && engine.start(Scope::System, name).await.is_ok() {
                return Ok(());
            }
            if existing.state.status.has_process() {
                engine.stop(Scope::System, name, None, None).await?;
            }
            engine
                .remove(Scope::System, &existing.id, true, true)
                .await?;
        }
        let state = self.options.state.join(name);
        make_directories(definition, &state)?;
        let ground = Ground {
            image: &image,
            state: &state,
            engine: engine.root(),
            apparmor: engine.facts().apparmor != AppArmorState::Off,
            fingerprint: &fingerprint,
        };
        let exists = |path: &str| fs::symlink_metadata(path).is_ok();
        let spec = container(name, definition, ground, exists)?;
        let request = CreateRequest::new(spec);
        engine
            .create(Scope::System, Some(name.to_owned()), request)
            .await?;
        Ok(engine.start(Scope::System, name).await?)
    }
}

/// Changes with everything from which a container is made.
fn fingerprint(definition: &Definition, image: u64) -> String {
    let mut hasher = DefaultHasher::new();
    let config = serde_json::to_string(&definition.config).unwrap_or_default();
    (MAKING, config, image).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Makes what the service mounts and what it is allowed to make: parts of its own directory, and
/// directories with `create`.
fn make_directories(definition: &Definition, state: &Path) -> Result<(), StartError> {
    let owner = definition.config.user.as_deref().and_then(number_of);
    for mount in &definition.config.mounts {
        let mode = match mount.source.starts_with("{state}") {
            true => 0o700,
            false if mount.create => 0o755,
            false => continue,
        };
        let path = source(mount, state);
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path)
            .and_then(|()| match owner {
                Some((user, group)) => lchown(&path, Some(user), Some(group)),
                None => Ok(()),
            });
        made.map_err(|source| StartError::Mkdir { path, source })?;
    }
    Ok(())
}

/// `900:900` or `900`.
fn number_of(user: &str) -> Option<(u32, u32)> {
    let (user, group) = user.split_once(':').unwrap_or((user, user));
    Some((user.parse().ok()?, group.parse().ok()?))
}

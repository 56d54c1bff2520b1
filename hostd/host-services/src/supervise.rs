//! Makes and starts the containers of services. Every service has one task for that.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostd_containers::{
    CreateRequest, Engine, EngineError, Scope, Snapshot, Status, WaitCondition,
};
use keelson_model::service::{ServiceState, ServiceStatus};
use tokio::sync::watch;

use crate::load::{self, Found};
use crate::plan::{Plan, plan};
use crate::request::{FINGERPRINT, ServicePaths, container, source};

/// Pause after the first failed attempt to start a service. Each failure doubles it.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// What [`Services::open`] needs.
#[derive(Clone)]
pub struct ServicesOptions {
    /// Directory of the services: `/usr/lib/keelson/services`. It need not exist.
    pub directory: PathBuf,
    /// Parent of the directories in which services keep their state: ROOT/services.
    pub state: PathBuf,
    /// The engine.
    pub engine: Engine,
}

/// The system services. Clones share them.
#[derive(Clone)]
pub struct Services {
    inner: Arc<Inner>,
}

struct Inner {
    options: ServicesOptions,
    plan: Plan,
    entries: BTreeMap<String, Entry>,
    stopping: watch::Sender<bool>,
}

struct Entry {
    description: String,
    found: Option<Found>,
    /// Becomes true when its container has started for the first time.
    started: watch::Sender<bool>,
    progress: Mutex<Progress>,
}

/// What the supervisor knows about a service and the engine does not.
#[derive(Debug, Clone)]
struct Progress {
    state: ServiceState,
    error: Option<String>,
    since: String,
}

impl Progress {
    fn now(state: ServiceState, error: Option<String>) -> Self {
        Self {
            state,
            error,
            since: jiff::Timestamp::now().to_string(),
        }
    }
}

impl Entry {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Services {
    /// Reads the services and starts them in the background. Never fails: a broken service is in
    /// [`Services::status`] with its error.
    pub async fn open(options: ServicesOptions) -> Self {
        let directory = options.directory.clone();
        let loaded = keelson_blocking::blocking(move || load::load(&directory)).await;
        let loaded = loaded.unwrap_or_else(|error| {
            tracing::error!(%error, "services can't be read");
            BTreeMap::new()
        });
        let after = loaded
            .iter()
            .filter_map(|(name, found)| {
                let found = found.as_ref().ok()?;
                Some((name.clone(), found.spec.after.clone()))
            })
            .collect();
        let plan = plan(&after);
        let entries: BTreeMap<String, Entry> = loaded
            .into_iter()
            .map(|(name, found)| {
                let (found, error) = match found {
                    Ok(found) => (Some(found), plan.failed.get(&name).cloned()),
                    Err(error) => (None, Some(error.to_string())),
                };
                if let Some(error) = &error {
                    tracing::error!(service = name, error, "service cannot start");
                }
                let state = if error.is_some() {
                    ServiceState::Failed
                } else {
                    ServiceState::Starting
                };
                let entry = Entry {
                    description: found
                        .as_ref()
                        .map(|found| found.spec.description.clone())
                        .unwrap_or_default(),
                    found,
                    started: watch::Sender::new(false),
                    progress: Mutex::new(Progress::now(state, error)),
                };
                (name, entry)
            })
            .collect();
        let services = Self {
            inner: Arc::new(Inner {
                options,
                plan,
                entries,
                stopping: watch::Sender::new(false),
            }),
        };
        services.remove_foreign().await;
        for name in &services.inner.plan.order {
            let inner = Arc::clone(&services.inner);
            let name = name.clone();
            tokio::spawn(async move { inner.bring_up(&name).await });
        }
        services
    }

    /// All services by name.
    pub fn status(&self) -> Vec<ServiceStatus> {
        self.inner
            .entries
            .iter()
            .map(|(name, entry)| {
                let container = self.inner.options.engine.inspect(Scope::System, name).ok();
                status(
                    name,
                    &entry.description,
                    &entry.progress().clone(),
                    container.as_deref(),
                )
            })
            .collect()
    }

    /// Stops all services within `limit`, in the reverse order of their start. They stay stopped.
    /// Each gets an equal part of the time that is left, so that none uses up the time of the others.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stopping.send_replace(true);
        let deadline = tokio::time::Instant::now() + limit;
        let order = &self.inner.plan.order;
        for (position, name) in order.iter().enumerate().rev() {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let parts = u32::try_from(position + 1).unwrap_or(u32::MAX);
            let engine = &self.inner.options.engine;
            engine
                .stop_for_shutdown(Scope::System, name, left / parts)
                .await;
            match engine.inspect(Scope::System, name) {
                Ok(ended) if !ended.state.status.has_process() => {
                    let code = ended.state.exit_code;
                    tracing::info!(service = name, code, "service stopped");
                }
                Ok(_) => tracing::error!(service = name, "service not stopped"),
                // Its container was never made.
                Err(_) => {}
            }
        }
    }

    /// Removes the containers of services that no longer exist or cannot start.
    async fn remove_foreign(&self) {
        let engine = &self.inner.options.engine;
        for snapshot in engine.list(Scope::System) {
            if self.inner.plan.order.contains(&snapshot.name) {
                continue;
            }
            tracing::info!(
                service = snapshot.name,
                "removing the container of a service that does not exist or cannot start"
            );
            if let Err(error) = engine.remove(Scope::System, &snapshot.id, true, true).await {
                tracing::error!(service = snapshot.name, %error, "service not removed");
            }
        }
    }
}

impl Inner {
    /// Waits for the predecessors, then tries until the container runs. From then on the engine's
    /// restart policy keeps it running. When the engine stops restarting it, a new one is made.
    async fn bring_up(&self, name: &str) {
        let Some((entry, found)) = self
            .entries
            .get(name)
            .and_then(|entry| Some((entry, entry.found.as_ref()?)))
        else {
            return;
        };
        let mut stopping = self.stopping.subscribe();
        let mut pause = FIRST;
        let work = async {
            for other in &found.spec.after {
                if let Some(other) = self.entries.get(other) {
                    let _ = other.started.subscribe().wait_for(|started| *started).await;
                }
            }
            loop {
                match self.ensure(name, found).await {
                    Ok(()) => {
                        *entry.progress() = Progress::now(ServiceState::Running, None);
                        entry.started.send_replace(true);
                        let up = tokio::time::Instant::now();
                        let error = self.until_given_up(name).await;
                        tracing::warn!(service = name, error, "service ended");
                        *entry.progress() = Progress::now(ServiceState::Failed, Some(error));
                        if up.elapsed() > LONGEST {
                            pause = FIRST;
                        }
                    }
                    Err(error) => {
                        let error = error.to_string();
                        tracing::warn!(service = name, error, "service not started");
                        *entry.progress() = Progress::now(ServiceState::Failed, Some(error));
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        };
        tokio::select! {
            () = work => {}
            // `self` holds the sender, so the wait can't fail.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Waits until the engine stops keeping the container running: a restart failed, or the container
    /// was removed. Returns the reason.
    async fn until_given_up(&self, name: &str) -> String {
        let engine = &self.options.engine;
        loop {
            // Returns each time the container ends. By then the engine has decided whether to
            // restart it.
            match engine
                .wait(Scope::System, name, WaitCondition::NotRunning)
                .await
            {
                Ok(ended) => drop(ended.await),
                Err(error) => return error.to_string(),
            }
            match engine.inspect(Scope::System, name) {
                Ok(snapshot) if snapshot.state.status.counts_as_running() => {}
                Ok(snapshot) if snapshot.state.error.is_empty() => {
                    return format!("ended with exit code {}", snapshot.state.exit_code);
                }
                Ok(snapshot) => return snapshot.state.error.clone(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Keeps a running container that was made from the same files. Otherwise makes a new one.
    async fn ensure(&self, name: &str, found: &Found) -> Result<(), StartError> {
        let engine = &self.options.engine;
        if let Ok(existing) = engine.inspect(Scope::System, name) {
            let same = existing.spec.labels.get(FINGERPRINT) == Some(&found.fingerprint);
            if same && existing.state.status.counts_as_running() {
                return Ok(());
            }
            engine
                .remove(Scope::System, &existing.id, true, true)
                .await?;
        }
        let state = self.options.state.join(name);
        make_state(found, &state)?;
        let paths = ServicePaths {
            rootfs: &found.rootfs,
            state: &state,
            engine: engine.root(),
        };
        let exists = |path: &str| fs::symlink_metadata(path).is_ok();
        let spec = container(&found.spec, paths, &found.fingerprint, exists)?;
        let request = CreateRequest::new(spec);
        engine
            .create(Scope::System, Some(name.to_owned()), request)
            .await?;
        Ok(engine.start(Scope::System, name).await?)
    }
}

/// Why a service's container was not started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("mkdir {path}: {source}")]
    Mkdir { path: String, source: io::Error },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Makes those parts of the service's own directory that it mounts.
fn make_state(found: &Found, state: &Path) -> Result<(), StartError> {
    for mount in &found.spec.mounts {
        if mount.source.starts_with("{state}") {
            let path = source(mount, state);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|source| StartError::Mkdir { path, source })?;
        }
    }
    Ok(())
}

/// The status of a service: what the supervisor knows and what the engine knows.
fn status(
    name: &str,
    description: &str,
    progress: &Progress,
    container: Option<&Snapshot>,
) -> ServiceStatus {
    let mut status = ServiceStatus {
        name: name.to_owned(),
        description: description.to_owned(),
        state: progress.state,
        pid: None,
        restarts: 0,
        since: progress.since.clone(),
        exit_code: None,
        error: progress.error.clone(),
    };
    let Some(container) = container else {
        return status;
    };
    let state = &container.state;
    status.restarts = state.restart_count;
    status.exit_code = state
        .finished_at
        .filter(|_| !state.status.has_process())
        .map(|_| state.exit_code);
    if progress.state != ServiceState::Failed {
        status.state = match state.status {
            Status::Running | Status::Paused => ServiceState::Running,
            Status::Restarting => ServiceState::Waiting,
            Status::Created => ServiceState::Starting,
            Status::Exited | Status::Removing | Status::Dead => ServiceState::Stopped,
        };
        if !state.error.is_empty() {
            status.error = Some(state.error.clone());
        }
    }
    if state.status.has_process() {
        status.pid = Some(state.pid);
    }
    let since = if state.status.has_process() {
        state.started_at
    } else {
        state.finished_at
    };
    if let Some(since) = since.filter(|_| progress.state != ServiceState::Failed) {
        status.since = since.to_string();
    }
    status
}

//! Opening the engine on what an earlier one left, and closing it with the machine.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keelson_model::init::{SYSTEM_STOP_SHARE, USER_STOP_SHARE};
use keelson_model::shim::{Request, Response};
use keelson_store::{Objects, StoreError, document, file, objects::remove_tree};

use crate::container::Container;
use crate::create::DOCUMENT;
use crate::document::{ContainerDocument, STATE, StateDocument};
use crate::ended::lost_exit;
use crate::engine::{Inner, timestamp};
use crate::host::{self, HostFacts};
use crate::restart::{self, Occasion};
use crate::shim::{Connection, Shim};
use crate::spec::mounts;
use crate::start::Starter;
use crate::types::{EngineOptions, Scope, State, Status};
use crate::{Engine, EngineError};

/// What containers have after their share of a shutdown to vanish and to be recorded.
const SHUTDOWN_KILL_GRACE: Duration = Duration::from_secs(3);

impl Engine {
    /// Opens the engine: adopts running shims, reads the exit records of containers that ended
    /// while no engine ran, and starts in the background what restart policies ask for.
    ///
    /// # Errors
    /// When the folders cannot be made or read. A single damaged container is reported in the
    /// log of the daemon and left alone.
    pub async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let run = options.run.join("containers");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&run)
            .map_err(EngineError::io("mkdir", &run))?;
        let base = options.root.join("engine/containers");
        let parent = options.cgroup_parent.clone();
        let (objects, facts) = tokio::task::spawn_blocking(move || {
            Objects::open(&base, DOCUMENT).map(|objects| (objects, HostFacts::detect(&parent)))
        })
        .await
        .map_err(|error| EngineError::Internal(format!("task failed: {error}")))??;
        let engine = Self::new(options, objects, facts);
        engine.inner.restore().await?;
        Ok(engine)
    }

    /// Stops all containers of a scope, at the same time, each with its own stop signal and
    /// time, but none with more than `limit`: what does not end then is killed, and what does not
    /// answer that either is left behind. From the first call on no container is started any more.
    /// What is stopped here counts as running for the restart policies of the next boot.
    pub async fn shutdown_scope(&self, scope: Scope, limit: Duration) {
        self.inner.shutting_down.store(true, Ordering::Release);
        let given_up = tokio::time::Instant::now() + limit + SHUTDOWN_KILL_GRACE;
        let containers = self.inner.with(scope, |registry| {
            registry.values().cloned().collect::<Vec<_>>()
        });
        let mut stopping = tokio::task::JoinSet::new();
        for container in containers {
            let inner = Arc::clone(&self.inner);
            stopping.spawn(async move {
                inner.stop_at_shutdown(&container, limit).await;
            });
        }
        let all = async { while stopping.join_next().await.is_some() {} };
        if tokio::time::timeout_at(given_up, all).await.is_err() {
            tracing::error!(
                count = stopping.len(),
                "containers do not end after SIGKILL and are left behind"
            );
            stopping.abort_all();
        }
        self.inner.flusher.now().await;
    }

    /// Stops one container because the machine goes down, within `limit` and the time of a kill.
    /// From the first call on no container is started any more.
    pub async fn stop_for_shutdown(&self, scope: Scope, name: &str, limit: Duration) {
        self.inner.shutting_down.store(true, Ordering::Release);
        let Ok(container) = self.inner.resolve(scope, name) else {
            return;
        };
        let stop = self.inner.stop_at_shutdown(&container, limit);
        if tokio::time::timeout(limit + SHUTDOWN_KILL_GRACE, stop)
            .await
            .is_err()
        {
            tracing::error!(
                name,
                "container does not end after SIGKILL and is left behind"
            );
        }
    }

    /// Stops all containers, those of clients first, and removes their common cgroups.
    pub async fn shutdown(&self) {
        self.shutdown_scope(Scope::User, USER_STOP_SHARE).await;
        self.shutdown_scope(Scope::System, SYSTEM_STOP_SHARE).await;
        let parent = self.inner.cgroup_parent.clone();
        if let Some(mount) = self.inner.facts.cgroup_mount.clone() {
            let removal = move || host::remove_cgroups(&mount, &parent);
            let _ = tokio::task::spawn_blocking(removal).await;
        }
    }
}

impl Inner {
    /// Stops a container with its own stop time, or `limit` where that is shorter.
    async fn stop_at_shutdown(self: &Arc<Self>, container: &Arc<Container>, limit: Duration) {
        let own = container.snapshot().config.stop_timeout;
        let own = own.unwrap_or_else(|| i64::from(self.defaults.stop_timeout));
        let most = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        // A negative time means for ever.
        let seconds = if own < 0 { most } else { own.min(most) };
        match self.stop(container, None, Some(seconds), false).await {
            Ok(()) | Err(EngineError::NotModified(_) | EngineError::NoSuchContainer(_)) => {}
            Err(error) => tracing::error!(id = container.id, %error, "container not stopped"),
        }
        // The exit is recorded under this lock.
        drop(container.operation.lock().await);
    }

    async fn restore(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut known = HashSet::new();
        let mut restarts = Vec::new();
        for id in self.objects.names()? {
            match self.restore_one(&id).await {
                Ok((container, restart)) => {
                    if restart {
                        restarts.push(container);
                    }
                }
                Err(error) => {
                    tracing::error!(id, %error, "container not restored");
                }
            }
            known.insert(id);
        }
        self.end_strays(&known).await?;
        self.release_images();
        for container in restarts {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                if let Ok(_guard) = container.lock().await
                    && let Err(error) = inner.start(&container, Starter::Policy).await
                {
                    tracing::warn!(id = container.id, %error, "restart policy");
                }
            });
        }
        Ok(())
    }

    /// Brings one container back. Tells whether its restart policy starts it now.
    async fn restore_one(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<(Arc<Container>, bool), EngineError> {
        let path = self.objects.document(id)?;
        let Some(document): Option<ContainerDocument> = document::read(&path)? else {
            return Err(EngineError::Internal(format!(
                "{} vanished",
                path.display()
            )));
        };
        if document.id != id {
            return Err(EngineError::Internal(format!(
                "{} belongs to container {}",
                path.display(),
                document.id
            )));
        }
        let found = self.read_state(id)?;
        let wanted = mounts::parse(&document.host_config)?;
        let (scope, name) = (document.scope, document.name.clone());
        let container = Arc::new(self.load(document, &wanted, found.state.clone())?);
        self.with_mut(scope, |registry| {
            registry.reserve(&name, id)?;
            registry.insert(id, Arc::clone(&container));
            Ok::<_, EngineError>(())
        })?;
        let restart = self.settle(&container, &found).await;
        Ok((container, restart))
    }

    /// A state that was torn by a power cut says only that the container was run, if that.
    fn read_state(&self, id: &str) -> Result<StateDocument, EngineError> {
        let folder = self.objects.folder(id)?;
        file::sweep(&folder)?;
        match document::read(&folder.join(STATE)) {
            Ok(found) => Ok(found.unwrap_or_default()),
            Err(StoreError::Malformed { .. } | StoreError::Unversioned { .. }) => {
                tracing::warn!(id, "state was torn, probably by a power cut");
                Ok(StateDocument {
                    boot: String::new(),
                    state: State {
                        status: Status::Running,
                        ..State::default()
                    },
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out what became of a container since its state was written.
    async fn settle(self: &Arc<Self>, container: &Arc<Container>, found: &StateDocument) -> bool {
        if container.run_folder.exists()
            && let Some(wait) = self.adopt(container).await
        {
            self.watch(container, wait);
            return false;
        }
        let status = found.state.status;
        if status.has_process() {
            let exit = match container.shim().exit_record() {
                Some(exit) => exit,
                None if found.boot != self.boot => lost_exit("the machine went down"),
                None => {
                    self.kill_leftovers(container).await;
                    lost_exit("the container's shim was killed")
                }
            };
            self.clean_run(container);
            let rebooted = found.boot != self.boot;
            let occasion = if rebooted {
                Occasion::Open
            } else {
                Occasion::Exit {
                    asked_for: found.state.stopped_by_caller,
                }
            };
            let (restart, auto_remove) = self.record_exit(container, &exit, Some(occasion));
            return self.after_end(container, restart.is_some(), auto_remove);
        }
        self.clean_run(container);
        let snapshot = container.snapshot();
        let ended = match status {
            // It waited for a restart, or was about to be removed.
            Status::Restarting | Status::Removing => {
                container.update(|state| state.status = Status::Exited);
                true
            }
            _ => false,
        };
        let removing = status == Status::Removing
            || (status == Status::Exited && snapshot.host_config.auto_remove);
        let restart = !removing
            && (ended || found.boot != self.boot)
            && restart::should_restart(
                &snapshot.host_config.restart_policy,
                &container.snapshot().state,
                Occasion::Open,
            );
        self.after_end(container, restart, removing)
    }

    fn after_end(self: &Arc<Self>, container: &Container, restart: bool, remove: bool) -> bool {
        // Services may have changed with the OS: whoever manages them starts them.
        let restart = restart && container.scope == Scope::User;
        if !restart && container.snapshot().state.status == Status::Restarting {
            container.update(|state| state.status = Status::Exited);
        }
        if remove && let Err(error) = self.remove_now(container) {
            tracing::error!(id = container.id, %error, "container not removed");
        }
        if restart && !remove {
            container.update(|state| state.status = Status::Restarting);
        }
        restart && !remove
    }

    fn clean_run(&self, container: &Container) {
        if let Err(error) = remove_tree(&container.run_folder) {
            tracing::warn!(id = container.id, %error, "run folder not removed");
        }
    }

    /// Connects to a shim that still runs. One whose container never got as far as to be started
    /// is ended.
    async fn adopt(&self, container: &Container) -> Option<Connection> {
        let shim = container.shim();
        let mut connection = shim.connect().await.ok()?;
        match connection.request(&Request::State).await {
            Ok(Response::State { status, pid, exit }) => {
                let status = match status.as_str() {
                    "running" => Status::Running,
                    "paused" => Status::Paused,
                    // It has ended and is about to leave its record.
                    "stopped" => Status::Running,
                    _ => {
                        shim.end().await;
                        return None;
                    }
                };
                container.update(|state| {
                    state.status = status;
                    state.pid = pid;
                    if let Some(started) = exit.and_then(|exit| timestamp(exit.started_at)) {
                        state.started_at = Some(started);
                    }
                    if state.started_at.is_none() {
                        state.started_at = Some(jiff::Timestamp::now());
                    }
                });
            }
            Ok(_) | Err(_) => return None,
        }
        let mut wait = shim.connect().await.ok()?;
        wait.send(&Request::Wait { exec: None }).await.ok()?;
        self.persist(container);
        Some(wait)
    }

    /// Ends shims without a container: their container was removed, or never quite made.
    async fn end_strays(&self, known: &HashSet<String>) -> Result<(), EngineError> {
        let run = &self.run;
        for entry in fs::read_dir(run).map_err(EngineError::io("read folder", run))? {
            let entry = entry.map_err(EngineError::io("read folder", run))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if known.contains(&id) {
                continue;
            }
            tracing::warn!(id, "shim without container");
            Shim::new(&id, &entry.path()).end().await;
            remove_stray(&entry.path());
        }
        Ok(())
    }
}

fn remove_stray(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(%error, "run folder not removed");
    }
}

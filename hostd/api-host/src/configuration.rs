//! The host configuration while the machine runs: one change at a time, and the end of the wait for
//! a confirmation.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use hostd_host_services::Services;
use keelson_config::change::{self, TakenBack, ValueChange};
use keelson_config::schema::{self, Effect};
use keelson_config::{ChangeError, LoadedConfig, Sources};
use keelson_http::Failure;
use keelson_model::error::ErrorKind;
use keelson_model::init;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::sync::{Mutex, Notify};

use crate::definitions::definitions;
use crate::init::{AskError, ask};

/// How long an answer may take to reach the client before hostd restarts.
const GRACE: Duration = Duration::from_millis(500);
/// How long to wait before a change that could not be taken back is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Why netcfg does not know of a change.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("init's answer does not match the request")]
    Answer,
    #[error("it does not run")]
    NotRunning,
    #[error("send SIGHUP: {0}")]
    Signal(Errno),
}

/// What hostd needs to change the configuration of its machine.
pub struct Configuration {
    sources: Sources,
    /// What hostd was started with.
    started_with: LoadedConfig,
    init_socket: PathBuf,
    /// Notified when hostd is to restart. `None`: nobody would start it again.
    restart: Option<Arc<Notify>>,
    warnings: Arc<RwLock<Vec<String>>>,
    /// Held while the files are read or changed.
    one_at_a_time: Arc<Mutex<()>>,
    /// A change may wait now, or none may wait any more.
    changed: Arc<Notify>,
    services: Services,
}

impl Configuration {
    /// For a hostd that was started with `started_with`.
    pub fn new(
        sources: Sources,
        started_with: LoadedConfig,
        init_socket: PathBuf,
        restart: Option<Arc<Notify>>,
        warnings: Arc<RwLock<Vec<String>>>,
        services: Services,
    ) -> Self {
        Self {
            sources,
            started_with,
            init_socket,
            restart,
            warnings,
            one_at_a_time: Arc::default(),
            changed: Arc::default(),
            services,
        }
    }

    /// Runs file work on the configuration, one at a time.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Sources) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, Failure> {
        let held = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let sources = self.sources.clone();
        let done = keelson_http::error::blocking(move || {
            let done = work(&sources);
            drop(held);
            done
        });
        done.await?
            .map_err(|error| Failure::new(error.kind(), error.to_string()))
    }

    /// Changes the files, and lets that work. Goes on when the client disconnects, which a change of
    /// the network may cause.
    pub(crate) async fn change<T: Send + 'static, A: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Sources) -> Result<T, ChangeError> + Send + 'static,
        then: impl FnOnce(Arc<Self>, T) -> BoxFuture<'static, A> + Send + 'static,
    ) -> Result<A, Failure> {
        let this = Arc::clone(self);
        let task = tokio::spawn(async move {
            let done = this.work(work).await;
            this.changed.notify_one();
            Ok(then(this, done?).await)
        });
        task.await
            .unwrap_or_else(|died| Err(Failure::new(ErrorKind::Internal, died.to_string())))
    }

    /// Whether hostd is started again when it ends.
    pub(crate) fn can_restart(&self) -> bool {
        self.restart.is_some()
    }

    /// Restarts hostd if values that it read at its start are others now. Returns whether it does.
    pub(crate) fn restart_for(&self, loaded: &LoadedConfig) -> bool {
        let Some(restart) = self.restart.clone() else {
            return false;
        };
        let needed = change::compare(&self.started_with, loaded)
            .iter()
            .any(|change| change.effect == Effect::Restart);
        if needed {
            tokio::spawn(async move {
                tokio::time::sleep(GRACE).await;
                restart.notify_one();
            });
        }
        needed
    }

    /// Lets changed values work that can at once. Returns what did not work.
    pub(crate) async fn spread(
        &self,
        changes: &[ValueChange],
        loaded: &LoadedConfig,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let now = |names: &[&str]| {
            changes.iter().any(|change| {
                let top = change.field.split('.').next().unwrap_or_default();
                schema::effect(&change.field) == Effect::Now && names.contains(&top)
            })
        };
        // A development machine keeps its name.
        let ours = self.sources.effective.exists();
        if let Some(name) = loaded.config.short_name()
            && ours
            && now(&["hostname", "fqdn"])
            && let Err(error) = nix::unistd::sethostname(name)
        {
            notes.push(format!("the host name is not set: {error}"));
        }
        if now(&["network", "time"])
            && let Err(why) = self.tell_netcfg().await
        {
            notes.push(format!("netcfg does not know of the change yet: {why}"));
        }
        if now(&["services"]) {
            self.services.apply(definitions(loaded)).await;
        }
        for note in &notes {
            tracing::warn!("{note}");
        }
        notes
    }

    /// netcfg reads its configuration again at SIGHUP. PID 1 knows which process it is.
    async fn tell_netcfg(&self) -> Result<(), TellError> {
        let answer = ask(&self.init_socket, &init::Request::Status).await?;
        let init::Response::Status(status) = answer else {
            return Err(TellError::Answer);
        };
        let mut processes = status.processes.iter();
        let netcfg = processes.find(|process| process.name == "netcfg");
        let pid = netcfg.and_then(|process| Pid::from_raw(process.pid?));
        let pid = pid.ok_or(TellError::NotRunning)?;
        rustix::process::kill_process(pid, Signal::HUP).map_err(TellError::Signal)
    }

    /// Takes changes back whose confirmation does not come in time, for as long as hostd runs.
    pub async fn watch(self: Arc<Self>) {
        loop {
            let left = match self.work(change::waiting).await {
                Ok(waiting) => waiting.map(|waiting| waiting.left),
                Err(error) => {
                    tracing::error!(%error, "whether a change waits can't be found out");
                    None
                }
            };
            let Some(left) = left else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = self.changed.notified() => continue,
                () = tokio::time::sleep(left) => {}
            }
            match self.work(change::expire).await {
                Ok(Some(back)) => self.taken_back(back).await,
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "a change that was not confirmed can't be taken back");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn taken_back(&self, back: TakenBack) {
        let text = format!(
            "a change of {} was not confirmed and is taken back; its text is kept in {}",
            back.file.display(),
            self.history().display()
        );
        tracing::warn!("{text}");
        self.warnings
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
        self.spread(&back.changes, &back.loaded).await;
        self.restart_for(&back.loaded);
    }

    fn history(&self) -> PathBuf {
        let state: &Path = &self.sources.state;
        state.join("config/history")
    }
}

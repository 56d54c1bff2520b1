//! All services: applies a configuration, and carries out requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostd_containers::{Engine, EngineError, ExecRequest, ExecState, LogQuery, Logs, Scope};
use hostd_images::ImageStore;
use keelson_model::error::ErrorKind;
use keelson_model::service::ServiceStatus;

use crate::definition::Definition;
use crate::entry::Entry;
use crate::error::ServicesError;
use crate::plan::plan;

/// How long a command in a service may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How many bytes of its output are kept.
const ASK_OUTPUT: usize = 64 << 10;

/// What [`Services::open`] needs.
#[derive(Clone)]
pub struct ServicesOptions {
    /// Directory of the OS's layers: `/usr/lib/keelson/images`. It need not exist.
    pub layers: PathBuf,
    /// Parent of the directories in which services keep their state: ROOT/services.
    pub state: PathBuf,
    /// Directory that is empty at boot, with the marks of services that somebody stopped.
    pub run: PathBuf,
    /// The engine.
    pub engine: Engine,
    /// The image store.
    pub images: ImageStore,
}

/// The system services. Clones share them.
#[derive(Clone)]
pub struct Services {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: ServicesOptions,
    known: Mutex<Known>,
    /// Held while services are changed, so that one change is complete before the next.
    changing: Arc<tokio::sync::Mutex<()>>,
    stopping: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// The names of those that can run, in the order in which they start.
    order: Vec<String>,
    entries: BTreeMap<String, Arc<Entry>>,
}

/// The services before a change, and those that are new after it.
struct Arranged {
    former: Known,
    fresh: Vec<Arc<Entry>>,
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<Arc<Entry>> {
        self.known().entries.get(name).cloned()
    }

    /// The file that says that somebody stopped the service, until the next boot.
    fn mark(&self, name: &str) -> PathBuf {
        self.options.run.join(format!("{name}.stopped"))
    }

    fn begin(self: &Arc<Self>, entry: &Arc<Entry>) {
        entry.starts();
        let keep = Arc::clone(self).keep(Arc::clone(entry));
        entry.keep_by(Some(tokio::spawn(keep)));
    }

    fn status(&self, entry: &Entry) -> ServiceStatus {
        let container = self.options.engine.inspect(Scope::System, &entry.name).ok();
        entry.status(container.as_deref())
    }
}

impl Inner {
    /// The exit code of a command in a service, and the beginning of its output.
    async fn execute(
        &self,
        name: &str,
        command: Vec<String>,
    ) -> Result<(Option<i32>, String), EngineError> {
        let engine = &self.options.engine;
        let request = ExecRequest {
            args: command,
            attach_stdout: true,
            attach_stderr: true,
            ..ExecRequest::default()
        };
        let id = engine.exec_create(Scope::System, name, request)?;
        let mut attached = engine.exec_start(Scope::System, &id, false, None).await?;
        let mut text = Vec::new();
        while let Some(frame) = attached.output.recv().await {
            let left = ASK_OUTPUT.saturating_sub(text.len());
            text.extend(frame.bytes.iter().take(left));
        }
        let code = match engine.exec_inspect(Scope::System, &id)?.state {
            ExecState::Ended { code, .. } => Some(code),
            _ => None,
        };
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }
}

impl Services {
    /// Starts the services in the background. Never fails: a broken service is in
    /// [`Services::list`] with its error.
    pub async fn open(options: ServicesOptions, definitions: BTreeMap<String, Definition>) -> Self {
        let services = Self {
            inner: Arc::new(Inner {
                options,
                known: Mutex::default(),
                changing: Arc::default(),
                stopping: AtomicBool::new(false),
            }),
        };
        let changing = Arc::clone(&services.inner.changing).lock_owned().await;
        let arranged = services.arrange(definitions);
        let background = services.clone();
        // One that must be stopped first may take its time.
        tokio::spawn(async move {
            background.settle(arranged).await;
            drop(changing);
        });
        services
    }

    /// Brings the services into agreement with the configuration: stops those that are gone, switched
    /// off or others now, and starts new ones. The others are left alone.
    pub async fn apply(&self, definitions: BTreeMap<String, Definition>) {
        let _changing = self.inner.changing.lock().await;
        if !self.inner.stopping.load(Ordering::Acquire) {
            let arranged = self.arrange(definitions);
            self.settle(arranged).await;
        }
    }

    /// Takes the definitions over. From then on they are in the list, but nothing runs differently.
    fn arrange(&self, definitions: BTreeMap<String, Definition>) -> Arranged {
        let plan = plan(&definitions);
        let mut fresh = Vec::new();
        let mut known = self.inner.known();
        let former = std::mem::take(&mut *known);
        known.order = plan.order;
        for (name, definition) in definitions {
            let problem = plan.failed.get(&name).map(ToString::to_string);
            let kept = former
                .entries
                .get(&name)
                .filter(|old| old.definition == definition && old.problem == problem);
            let entry = match kept {
                Some(kept) => Arc::clone(kept),
                None => {
                    if let Some(problem) = &problem {
                        tracing::error!(service = name, problem, "service cannot start");
                    }
                    let entry = Arc::new(Entry::new(name.clone(), definition, problem));
                    fresh.push(Arc::clone(&entry));
                    entry
                }
            };
            known.entries.insert(name, entry);
        }
        Arranged { former, fresh }
    }

    /// Stops what is not to run any more, and starts what is new.
    async fn settle(&self, Arranged { former, fresh }: Arranged) {
        for name in former.order.iter().rev() {
            let now = self.inner.entry(name);
            if let Some(old) = former.entries.get(name)
                && now.is_none_or(|now| !Arc::ptr_eq(old, &now))
            {
                old.keep_by(None);
            }
        }
        self.remove_foreign(&former.order).await;
        let order = self.inner.known().order.clone();
        for name in order {
            if let Some(entry) = fresh.iter().find(|entry| entry.name == name)
                && !self.inner.stopping.load(Ordering::Acquire)
            {
                match self.inner.mark(&name).exists() {
                    true => entry.stopped(),
                    false => self.inner.begin(entry),
                }
            }
        }
    }

    /// Stops and removes the containers of services that no longer exist or are not to run. `last`
    /// names those that ran so far, in the order of their starts.
    async fn remove_foreign(&self, last: &[String]) {
        let engine = &self.inner.options.engine;
        let mut foreign = engine.list(Scope::System);
        foreign.retain(|container| !self.inner.known().order.contains(&container.name));
        foreign.sort_by_key(|container| {
            std::cmp::Reverse(last.iter().position(|name| *name == container.name))
        });
        for container in foreign {
            let (name, id) = (&container.name, &container.id);
            tracing::info!(
                service = name,
                "removing the container of a service that is not to run"
            );
            if container.state.status.has_process()
                && let Err(error) = engine.stop(Scope::System, id, None, None).await
            {
                tracing::warn!(service = name, %error, "service not stopped");
            }
            if let Err(error) = engine.remove(Scope::System, id, true, true).await {
                tracing::error!(service = name, %error, "service not removed");
            }
        }
    }

    /// All services by name.
    pub fn list(&self) -> Vec<ServiceStatus> {
        let entries: Vec<Arc<Entry>> = self.inner.known().entries.values().cloned().collect();
        let entries = entries.iter();
        entries.map(|entry| self.inner.status(entry)).collect()
    }

    fn find(&self, name: &str) -> Result<Arc<Entry>, ServicesError> {
        let found = self.inner.entry(name);
        found.ok_or_else(|| ServicesError::NotFound(name.to_owned()))
    }

    /// One service.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn one(&self, name: &str) -> Result<ServiceStatus, ServicesError> {
        Ok(self.inner.status(&*self.find(name)?))
    }

    /// Starts a service that rests, or at once one that waits for its next attempt.
    ///
    /// # Errors
    /// There is none of this name, or it is not to run.
    pub async fn start(&self, name: &str) -> Result<ServiceStatus, ServicesError> {
        let _changing = self.inner.changing.lock().await;
        self.begin(name)
    }

    /// Stops a service until it is started again, or until the next boot.
    ///
    /// # Errors
    /// There is none of this name, or the engine can't stop it.
    pub async fn stop(&self, name: &str) -> Result<ServiceStatus, ServicesError> {
        let _changing = self.inner.changing.lock().await;
        self.halt(name).await?;
        let mark = self.inner.mark(name);
        let marked =
            fs::create_dir_all(&self.inner.options.run).and_then(|()| fs::write(&mark, ""));
        if let Err(error) = marked {
            tracing::warn!(path = %mark.display(), %error, "a restart of hostd will start the service");
        }
        self.one(name)
    }

    /// Stops a service and starts it again.
    ///
    /// # Errors
    /// There is none of this name, it is not to run, or the engine can't stop it.
    pub async fn restart(&self, name: &str) -> Result<ServiceStatus, ServicesError> {
        let _changing = self.inner.changing.lock().await;
        self.runnable(name)?;
        self.halt(name).await?;
        self.begin(name)
    }

    /// A service that may be started.
    fn runnable(&self, name: &str) -> Result<Arc<Entry>, ServicesError> {
        let entry = self.find(name)?;
        if !entry.definition.config.is_enabled() {
            return Err(ServicesError::Disabled(name.to_owned()));
        }
        if let Some(problem) = entry.problem.clone() {
            let name = name.to_owned();
            return Err(ServicesError::Broken { name, problem });
        }
        match self.inner.stopping.load(Ordering::Acquire) {
            true => Err(ServicesError::Stopping(name.to_owned())),
            false => Ok(entry),
        }
    }

    fn begin(&self, name: &str) -> Result<ServiceStatus, ServicesError> {
        let entry = self.runnable(name)?;
        // It may not be there.
        let _ = fs::remove_file(self.inner.mark(name));
        let container = self.inner.options.engine.inspect(Scope::System, name);
        if !container.is_ok_and(|container| container.state.status.has_process()) {
            self.inner.begin(&entry);
        }
        Ok(self.inner.status(&entry))
    }

    async fn halt(&self, name: &str) -> Result<(), ServicesError> {
        let entry = self.find(name)?;
        entry.keep_by(None);
        let engine = &self.inner.options.engine;
        match engine.stop(Scope::System, name, None, None).await {
            Ok(()) | Err(EngineError::NoSuchContainer(_)) => {}
            Err(error) if error.kind() == ErrorKind::NotModified => {}
            Err(source) => return Err(ServicesError::engine(name, source)),
        }
        if entry.can_run() {
            entry.stopped();
        }
        Ok(())
    }

    /// The output of a service.
    ///
    /// # Errors
    /// There is none of this name, or it has not run yet.
    pub async fn logs(&self, name: &str, query: LogQuery) -> Result<Logs, ServicesError> {
        self.find(name)?;
        let logs = self.inner.options.engine.logs(Scope::System, name, query);
        logs.await.map_err(|source| match source {
            EngineError::NoSuchContainer(_) => ServicesError::NoLog(name.to_owned()),
            source => ServicesError::engine(name, source),
        })
    }

    /// Executes a command in a running service, and returns what it writes.
    ///
    /// # Errors
    /// There is no such service, it does not run, or the command does not succeed in time.
    pub async fn ask(&self, name: &str, command: Vec<String>) -> Result<String, ServicesError> {
        self.find(name)?;
        let program = command.first().cloned().unwrap_or_default();
        let failed = |reason: &str| ServicesError::Command {
            name: name.to_owned(),
            command: program.clone(),
            reason: reason.to_owned(),
        };
        let answer = tokio::time::timeout(ASK_LIMIT, self.inner.execute(name, command)).await;
        match answer {
            Ok(Ok((Some(0), text))) => Ok(text),
            Ok(Ok((_, text))) => Err(failed(text.trim())),
            Ok(Err(source)) => Err(ServicesError::engine(name, source)),
            Err(_) => Err(failed("it takes too long")),
        }
    }

    /// Stops all services within `limit`, in the reverse order of their start. They stay stopped.
    /// Each gets an equal part of the time that is left, so that none uses up the time of the others.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stopping.store(true, Ordering::Release);
        let deadline = tokio::time::Instant::now() + limit;
        let order = {
            let known = self.inner.known();
            for entry in known.entries.values() {
                entry.keep_by(None);
            }
            known.order.clone()
        };
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
            if let Some(entry) = self.inner.entry(name) {
                entry.stopped();
            }
        }
    }
}

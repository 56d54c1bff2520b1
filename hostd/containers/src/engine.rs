//! The engine: what all operations share, and the read-only calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hostd_images::ImageStore;
use hostd_networks::Networks;
use hostd_volumes::VolumeStore;
use jiff::Timestamp;
use keelson_blocking::TaskDied;
use keelson_model::host::EngineConfig;
use keelson_model::limits;
use keelson_store::{Durability, Objects, document};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{broadcast, watch};

use crate::EngineError;
use crate::container::Container;
use crate::document::{STATE, StateDocument};
use crate::executions::Executions;
use crate::flush::Flusher;
use crate::host::HostFacts;
use crate::init_program::InitProgram;
use crate::linkers::Linkers;
use crate::old::ReadOld;
use crate::registry::Registry;
use crate::shim::Program;
use crate::stats::clock::Clock;
use crate::types::{
    CgroupParent, ContainerAction, ContainerEvent, EngineOptions, Scope, Snapshot, Status,
    WaitCondition, WaitResult,
};

/// The result of [`Engine::wait`]: ready when the condition is met.
pub type WaitFuture = Pin<Box<dyn Future<Output = WaitResult> + Send>>;

/// Events that a slow subscriber may lag behind before it loses some.
const EVENT_BACKLOG: usize = 1024;

/// The container engine. Clones share it.
///
/// Every call that changes something completes even if its caller stops waiting: the work is done
/// in a separate task.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) objects: Arc<Objects>,
    /// ROOT.
    pub(crate) root: PathBuf,
    /// RUN/containers.
    pub(crate) run: PathBuf,
    pub(crate) runtime: Program,
    pub(crate) init: InitProgram,
    pub(crate) images: ImageStore,
    pub(crate) volumes: VolumeStore,
    pub(crate) networks: Networks,
    pub(crate) linkers: Linkers,
    pub(crate) defaults: EngineConfig,
    pub(crate) facts: HostFacts,
    pub(crate) cgroup_parent: CgroupParent,
    pub(crate) boot: String,
    pub(crate) read_old: ReadOld,
    user: RwLock<Registry<Arc<Container>>>,
    system: RwLock<Registry<Arc<Container>>>,
    pub(crate) events: broadcast::Sender<ContainerEvent>,
    /// For [`Engine::subscribe_from_opening`].
    first_events: Mutex<Option<broadcast::Receiver<ContainerEvent>>>,
    pub(crate) flusher: Flusher,
    pub(crate) executions: Executions,
    pub(crate) shutting_down: AtomicBool,
    /// Whether a prune runs.
    pub(crate) pruning: AtomicBool,
    pub(crate) stats_clock: Clock,
    /// Whether the states of all containers of an earlier engine are known.
    pub(crate) settled: watch::Sender<bool>,
    /// The zero of time for the containers' machines.
    pub(crate) opened: tokio::time::Instant,
}

impl Engine {
    pub(crate) fn new(
        options: EngineOptions,
        (objects, volumes, networks): (Objects, VolumeStore, Networks),
        facts: HostFacts,
    ) -> Self {
        let (events, first_events) = broadcast::channel(EVENT_BACKLOG);
        Self {
            inner: Arc::new(Inner {
                objects: Arc::new(objects),
                init: InitProgram::new(&options.runtime, &options.run),
                run: options.run.join("containers"),
                root: options.root,
                runtime: Program::new(options.runtime, facts.shim_cgroup(&options.cgroup_parent)),
                images: options.images,
                volumes,
                networks,
                linkers: Linkers::default(),
                defaults: options.defaults,
                facts,
                cgroup_parent: options.cgroup_parent,
                boot: crate::document::boot_id(),
                read_old: options.read_old,
                user: RwLock::default(),
                system: RwLock::default(),
                events,
                first_events: Mutex::new(Some(first_events)),
                flusher: Flusher::start(),
                executions: Executions::default(),
                shutting_down: AtomicBool::new(false),
                pruning: AtomicBool::new(false),
                stats_clock: Clock::default(),
                settled: watch::Sender::new(false),
                opened: tokio::time::Instant::now(),
            }),
        }
    }

    /// Does work that must not be left half-done if the caller stops waiting.
    pub(crate) async fn whole<T: Send + 'static>(
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        tokio::spawn(work).await.map_err(TaskDied::from)?
    }

    /// All containers of a scope, newest first.
    pub fn list(&self, scope: Scope) -> Vec<Arc<Snapshot>> {
        let mut list: Vec<_> = self
            .inner
            .with(scope, |registry| {
                registry.values().cloned().collect::<Vec<_>>()
            })
            .iter()
            .map(|container| container.snapshot())
            .collect();
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        list
    }

    /// One container, by identifier, name or unique beginning of an identifier.
    ///
    /// # Errors
    /// [`EngineError::NoSuchContainer`], [`EngineError::AmbiguousId`].
    pub fn inspect(&self, scope: Scope, name: &str) -> Result<Arc<Snapshot>, EngineError> {
        Ok(self.inner.resolve(scope, name)?.snapshot())
    }

    /// Events of both scopes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ContainerEvent> {
        self.inner.events.subscribe()
    }

    /// Events of both scopes since the engine was opened, including the ends of containers while no
    /// engine ran. Only the first caller gets past events.
    pub fn subscribe_from_opening(&self) -> broadcast::Receiver<ContainerEvent> {
        let mut first = self.inner.first_events.lock();
        let first = first.as_mut().ok().and_then(|first| first.take());
        first.unwrap_or_else(|| self.inner.events.subscribe())
    }

    /// The networks of this host.
    pub fn networks(&self) -> &Networks {
        &self.inner.networks
    }

    /// What the host offers.
    pub fn facts(&self) -> &HostFacts {
        &self.inner.facts
    }

    /// Values for what clients leave out.
    pub fn defaults(&self) -> &EngineConfig {
        &self.inner.defaults
    }

    /// The engine's own directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Registers a wait before it returns. The future has the result.
    ///
    /// # Errors
    /// When there is no such container.
    pub async fn wait(
        &self,
        scope: Scope,
        name: &str,
        condition: WaitCondition,
    ) -> Result<WaitFuture, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        Ok(match container.wait(condition) {
            Err(result) => Box::pin(std::future::ready(result)),
            Ok(receiver) => Box::pin(async move {
                receiver.await.unwrap_or_else(|_| WaitResult {
                    exit_code: -1,
                    error: Some("the engine is shutting down".to_owned()),
                })
            }),
        })
    }
}

impl Inner {
    fn registry(&self, scope: Scope) -> &RwLock<Registry<Arc<Container>>> {
        match scope {
            Scope::User => &self.user,
            Scope::System => &self.system,
        }
    }

    /// Reads a scope's registry.
    pub(crate) fn with<T>(
        &self,
        scope: Scope,
        look: impl FnOnce(&Registry<Arc<Container>>) -> T,
    ) -> T {
        look(
            &self
                .registry(scope)
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Changes a scope's registry.
    pub(crate) fn with_mut<T>(
        &self,
        scope: Scope,
        change: impl FnOnce(&mut Registry<Arc<Container>>) -> T,
    ) -> T {
        change(
            &mut self
                .registry(scope)
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    pub(crate) fn resolve(&self, scope: Scope, name: &str) -> Result<Arc<Container>, EngineError> {
        self.with(scope, |registry| registry.resolve(name))
    }

    /// The path of a container's cgroup.
    pub(crate) fn cgroup(&self, scope: Scope, id: &str, parent: Option<&Path>) -> String {
        let own = Path::new("/").join(self.cgroup_parent.as_str());
        let parent = match parent {
            Some(parent) => own.join(parent),
            None => own.join(scope.as_str()),
        };
        parent.join(id).to_string_lossy().into_owned()
    }

    /// Sends an event of a container.
    pub(crate) fn emit(&self, container: &Container, action: impl Into<ContainerAction>) {
        let snapshot = container.snapshot();
        let labels = limits::fitting(&snapshot.spec.labels, limits::EVENT);
        self.send(ContainerEvent {
            scope: container.scope,
            action: action.into(),
            id: container.id.clone(),
            name: snapshot.name.clone(),
            image: snapshot.image().into_owned(),
            labels: labels
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            time: now(),
        });
    }

    /// Sends the event of a prune.
    pub(crate) fn emit_prune(&self, scope: Scope, reclaimed: u64) {
        self.send(ContainerEvent {
            scope,
            action: ContainerAction::Prune { reclaimed },
            id: String::new(),
            name: String::new(),
            image: String::new(),
            labels: BTreeMap::new(),
            time: now(),
        });
    }

    fn send(&self, event: ContainerEvent) {
        // There may be no subscribers.
        let _ = self.events.send(event);
    }

    /// Writes the state for the next engine. It is synchronised a moment later, so that a start or
    /// an exit does not wait for the disk. Returns false if it could not be written.
    pub(crate) fn persist(&self, container: &Container) -> bool {
        let (snapshot, state) = {
            let live = container.live();
            if live.machine.is_read_only() {
                return true;
            }
            (Arc::clone(&live.snapshot), live.machine.kept())
        };
        let written = StateDocument::new(self.boot.clone(), state);
        let path = snapshot.directory.join(STATE);
        match off_workers(|| {
            document::write(&path, &written, self.images.era(), Durability::Relaxed)
        }) {
            Ok(()) => {
                if !snapshot.spec.auto_remove {
                    self.flusher.later(path);
                }
                true
            }
            Err(error) => {
                tracing::error!(id = container.id, %error, "container state not written");
                false
            }
        }
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down
            .load(std::sync::atomic::Ordering::Acquire)
    }
}

/// Does work on files in asynchronous code. If the disk stalls, only this task waits; other tasks
/// of the thread move elsewhere.
pub(crate) fn off_workers<T>(work: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // Tests have a single thread.
        _ => work(),
    }
}

/// The time of an event, in nanoseconds since 1970.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The name of a container in error messages about its state.
pub(crate) fn not_running(container: &Container) -> EngineError {
    EngineError::Conflict(format!("container {} is not running", container.id))
}

/// Refuses to change a container that can't be read.
pub(crate) fn require_readable(container: &Container) -> Result<(), EngineError> {
    match container.snapshot().state.status == Status::Dead {
        true => Err(EngineError::Conflict(format!(
            "container {} is dead: {}; it can be removed only",
            container.id,
            container.snapshot().state.error
        ))),
        false => Ok(()),
    }
}

/// Whether a state allows an operation that needs a process.
pub(crate) fn require_process(container: &Container) -> Result<Status, EngineError> {
    let status = container.snapshot().state.status;
    if status.has_process() {
        Ok(status)
    } else {
        Err(not_running(container))
    }
}

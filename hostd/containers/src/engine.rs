//! The engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hostd_images::ImageUser;
use tokio::sync::broadcast;

use crate::EngineError;
use crate::signal::Signal;
use crate::types::*;

/// What [`Engine::wait`] gives: ready when the condition is met.
pub type WaitFuture = Pin<Box<dyn Future<Output = WaitResult> + Send>>;

/// The container engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    events: broadcast::Sender<ContainerEvent>,
}

fn not_yet<T>(what: &str) -> Result<T, EngineError> {
    Err(EngineError::NotImplemented(format!("container {what}")))
}

impl Engine {
    /// Opens the engine: adopts running shims, reads the exit records of containers that ended
    /// while no engine ran, and starts what restart policies ask for.
    pub async fn open(_options: EngineOptions) -> Result<Self, EngineError> {
        Ok(Self {
            events: broadcast::channel(1024).0,
        })
    }

    /// Makes a container; without a name it gets one of two words.
    pub async fn create(
        &self,
        _scope: Scope,
        _name: Option<String>,
        _request: CreateRequest,
    ) -> Result<Created, EngineError> {
        not_yet("create")
    }

    /// Starts a container and returns when its command was executed.
    pub async fn start(&self, _scope: Scope, _name: &str) -> Result<(), EngineError> {
        not_yet("start")
    }

    /// Sends the stop signal, and SIGKILL after `timeout` seconds (-1: never); `None` is the
    /// container's own signal or time, then the defaults.
    pub async fn stop(
        &self,
        _scope: Scope,
        _name: &str,
        _signal: Option<Signal>,
        _timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        not_yet("stop")
    }

    /// Stops it when it runs, and starts it.
    pub async fn restart(
        &self,
        _scope: Scope,
        _name: &str,
        _signal: Option<Signal>,
        _timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        not_yet("restart")
    }

    /// Sends a signal to the first process; SIGKILL to all.
    pub async fn kill(
        &self,
        _scope: Scope,
        _name: &str,
        _signal: Signal,
    ) -> Result<(), EngineError> {
        not_yet("kill")
    }

    /// Freezes all processes.
    pub async fn pause(&self, _scope: Scope, _name: &str) -> Result<(), EngineError> {
        not_yet("pause")
    }

    /// Lets frozen processes go on.
    pub async fn unpause(&self, _scope: Scope, _name: &str) -> Result<(), EngineError> {
        not_yet("unpause")
    }

    /// Removes a container; with `force` also a running one, with `volumes` also its anonymous
    /// volumes.
    pub async fn remove(
        &self,
        _scope: Scope,
        _name: &str,
        _force: bool,
        _volumes: bool,
    ) -> Result<(), EngineError> {
        not_yet("remove")
    }

    /// Gives it another name.
    pub async fn rename(&self, _scope: Scope, _name: &str, _new: &str) -> Result<(), EngineError> {
        not_yet("rename")
    }

    /// Sets the size of its terminal.
    pub async fn resize(
        &self,
        _scope: Scope,
        _name: &str,
        _rows: u16,
        _columns: u16,
    ) -> Result<(), EngineError> {
        not_yet("resize")
    }

    /// Registers a wait before it returns; the future gives the result.
    pub async fn wait(
        &self,
        _scope: Scope,
        _name: &str,
        _condition: WaitCondition,
    ) -> Result<WaitFuture, EngineError> {
        not_yet("wait")
    }

    /// Connects to its streams, also before it is started: then no output is missed.
    pub async fn attach(
        &self,
        _scope: Scope,
        _name: &str,
        _options: AttachOptions,
    ) -> Result<Attached, EngineError> {
        not_yet("attach")
    }

    /// Reads its log.
    pub async fn logs(
        &self,
        _scope: Scope,
        _name: &str,
        _query: LogQuery,
    ) -> Result<Logs, EngineError> {
        not_yet("logs")
    }

    /// Its processes.
    pub async fn top(&self, _scope: Scope, _name: &str) -> Result<Top, EngineError> {
        not_yet("top")
    }

    /// All containers of a scope, newest first.
    pub fn list(&self, _scope: Scope) -> Vec<Arc<Snapshot>> {
        Vec::new()
    }

    /// One container.
    pub fn inspect(&self, _scope: Scope, name: &str) -> Result<Arc<Snapshot>, EngineError> {
        Err(EngineError::NoSuchContainer(name.to_owned()))
    }

    /// Which images containers of both scopes use.
    pub fn image_users(&self) -> Vec<ImageUser> {
        Vec::new()
    }

    /// Events of both scopes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }

    /// Stops all containers in order, those of clients first. The machine is going down: what
    /// runs now is started again at the next boot when its restart policy says so.
    pub async fn shutdown(&self) {}
}

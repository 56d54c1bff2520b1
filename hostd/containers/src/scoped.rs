//! The engine as one scope sees it, so that a caller names its scope only once.

use std::sync::Arc;

use bytes::Bytes;
use hostd_images::{Change, ImageId};
use keelson_model::spec::ConnectionSpec;
use tokio::io::AsyncRead;

use crate::{
    AttachOptions, Attached, CommitRequest, ContainerStats, CreateRequest, Created, Engine,
    EngineError, ExecRequest, ExecSnapshot, ExtractOptions, LogQuery, Logs, PathArchive, PathStat,
    ProcessInfo, Pruned, Receiver, Scope, Shown, Signal, Snapshot, SpecChange, StatsWatch,
    WaitCondition, WaitFuture,
};

/// The containers of one scope. Each method is [`Engine`]'s method of the same name, with the same
/// errors.
#[derive(Clone, Copy)]
pub struct ScopedEngine<'a> {
    engine: &'a Engine,
    scope: Scope,
}

impl Engine {
    /// The engine as `scope` sees it.
    pub fn scoped(&self, scope: Scope) -> ScopedEngine<'_> {
        ScopedEngine {
            engine: self,
            scope,
        }
    }
}

impl ScopedEngine<'_> {
    /// All containers, newest first.
    pub fn list(&self) -> Vec<Arc<Snapshot>> {
        self.engine.list(self.scope)
    }

    /// One container, by identifier, name or unique beginning of an identifier.
    pub fn inspect(&self, name: &str) -> Result<Arc<Snapshot>, EngineError> {
        self.engine.inspect(self.scope, name)
    }

    /// Creates a container.
    pub async fn create(
        &self,
        name: Option<String>,
        request: CreateRequest,
    ) -> Result<Created, EngineError> {
        self.engine.create(self.scope, name, request).await
    }

    /// Starts a container.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        self.engine.start(self.scope, name).await
    }

    /// Connects a container to a network.
    pub async fn connect(&self, name: &str, connection: ConnectionSpec) -> Result<(), EngineError> {
        self.engine.connect(self.scope, name, connection).await
    }

    /// Disconnects a container from a network.
    pub async fn disconnect(&self, name: &str, network: &str) -> Result<(), EngineError> {
        self.engine.disconnect(self.scope, name, network).await
    }

    /// Stops a container.
    pub async fn stop(
        &self,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        self.engine.stop(self.scope, name, signal, timeout).await
    }

    /// Stops a container and starts it again.
    pub async fn restart(
        &self,
        name: &str,
        signal: Option<Signal>,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        self.engine.restart(self.scope, name, signal, timeout).await
    }

    /// Sends a signal to a container's first process.
    pub async fn kill(&self, name: &str, signal: Signal) -> Result<(), EngineError> {
        self.engine.kill(self.scope, name, signal).await
    }

    /// Freezes a container's processes.
    pub async fn pause(&self, name: &str) -> Result<(), EngineError> {
        self.engine.pause(self.scope, name).await
    }

    /// Thaws a container's processes.
    pub async fn unpause(&self, name: &str) -> Result<(), EngineError> {
        self.engine.unpause(self.scope, name).await
    }

    /// Gives a container another name.
    pub async fn rename(&self, name: &str, new: &str) -> Result<(), EngineError> {
        self.engine.rename(self.scope, name, new).await
    }

    /// Changes limits and restart policy.
    pub async fn update<E: From<EngineError> + Send + 'static>(
        &self,
        name: &str,
        change: impl FnOnce(&Snapshot) -> Result<SpecChange, E> + Send + 'static,
    ) -> Result<(), E> {
        self.engine.update(self.scope, name, change).await
    }

    /// Sets the size of a container's terminal.
    pub async fn resize(&self, name: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.engine.resize(self.scope, name, rows, columns).await
    }

    /// Removes a container.
    pub async fn remove(&self, name: &str, force: bool, volumes: bool) -> Result<(), EngineError> {
        self.engine.remove(self.scope, name, force, volumes).await
    }

    /// Removes a link of a container.
    pub async fn unlink<E: From<EngineError> + Send + 'static>(
        &self,
        name: &str,
        alias: &str,
        shown: impl FnOnce(&Snapshot) -> Result<Option<Shown>, E> + Send + 'static,
    ) -> Result<(), E> {
        self.engine.unlink(self.scope, name, alias, shown).await
    }

    /// Removes the containers that do not run and that `fits` accepts.
    pub async fn prune(
        &self,
        fits: impl Fn(&Snapshot) -> bool + Send + 'static,
    ) -> Result<Pruned, EngineError> {
        self.engine.prune(self.scope, fits).await
    }

    /// Registers a wait before it returns. The future has the result.
    pub async fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<WaitFuture, EngineError> {
        self.engine.wait(self.scope, name, condition).await
    }

    /// A container's processes.
    pub async fn processes(&self, name: &str) -> Result<Vec<ProcessInfo>, EngineError> {
        self.engine.processes(self.scope, name).await
    }

    /// A container's present resource usage.
    pub async fn stats(&self, name: &str) -> Result<ContainerStats, EngineError> {
        self.engine.stats(self.scope, name).await
    }

    /// A container's resource usage, repeatedly.
    pub async fn watch_stats(&self, name: &str) -> Result<StatsWatch, EngineError> {
        self.engine.watch_stats(self.scope, name).await
    }

    /// Connects to a container's streams.
    pub async fn attach(
        &self,
        name: &str,
        options: AttachOptions,
    ) -> Result<Attached, EngineError> {
        self.engine.attach(self.scope, name, options).await
    }

    /// Reads a container's log.
    pub async fn logs(&self, name: &str, query: LogQuery) -> Result<Logs, EngineError> {
        self.engine.logs(self.scope, name, query).await
    }

    /// A container's changes in its root file system.
    pub async fn changes(&self, name: &str) -> Result<Vec<Change>, EngineError> {
        self.engine.changes(self.scope, name).await
    }

    /// A container's file system as an archive.
    pub async fn export(
        &self,
        name: &str,
        held: Box<dyn Send>,
    ) -> Result<Receiver<Result<Bytes, EngineError>>, EngineError> {
        self.engine.export(self.scope, name, held).await
    }

    /// The object at a path of a container.
    pub async fn path_stat(&self, name: &str, path: &str) -> Result<PathStat, EngineError> {
        self.engine.path_stat(self.scope, name, path).await
    }

    /// The object at a path of a container, as an archive.
    pub async fn path_archive(
        &self,
        name: &str,
        path: &str,
        held: Box<dyn Send>,
    ) -> Result<PathArchive, EngineError> {
        self.engine.path_archive(self.scope, name, path, held).await
    }

    /// Extracts an archive into a directory of a container.
    pub async fn path_extract<R: AsyncRead + Unpin + Send>(
        &self,
        name: &str,
        path: &str,
        options: ExtractOptions,
        archive: R,
        held: Box<dyn Send>,
    ) -> Result<(), EngineError> {
        self.engine
            .path_extract(self.scope, name, path, options, archive, held)
            .await
    }

    /// Bytes that a container has written into its root file system.
    pub async fn written_bytes(&self, name: &str) -> Result<u64, EngineError> {
        self.engine.written_bytes(self.scope, name).await
    }

    /// Creates an image from a container.
    pub async fn commit(&self, name: &str, request: CommitRequest) -> Result<ImageId, EngineError> {
        self.engine.commit(self.scope, name, request).await
    }

    /// Records an additional process.
    pub fn exec_create(&self, name: &str, request: ExecRequest) -> Result<String, EngineError> {
        self.engine.exec_create(self.scope, name, request)
    }

    /// An additional process as it is now.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecSnapshot, EngineError> {
        self.engine.exec_inspect(self.scope, id)
    }

    /// Whether an additional process can be started.
    pub fn exec_check(&self, id: &str) -> Result<ExecSnapshot, EngineError> {
        self.engine.exec_check(self.scope, id)
    }

    /// Starts an additional process.
    pub async fn exec_start(
        &self,
        id: &str,
        detach: bool,
        console_size: Option<[u16; 2]>,
    ) -> Result<Attached, EngineError> {
        self.engine
            .exec_start(self.scope, id, detach, console_size)
            .await
    }

    /// Sets the size of an additional process's terminal.
    pub async fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.engine.exec_resize(self.scope, id, rows, columns).await
    }

    /// The client has left an additional process, which continues.
    pub fn exec_detached(&self, id: &str) {
        self.engine.exec_detached(self.scope, id);
    }
}

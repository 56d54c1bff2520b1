//! All containers: hostd's descriptions of them, and the tasks that serve them.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use keelson_resolver_protocol::{Container, Ports, SocketKind, Sockets};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::limits::HAND_OVER;
use crate::report::report;
use crate::serve::Served;
use crate::shared::Shared;

/// All containers, and the state that they share.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Rc<Shared>,
    served: RefCell<HashMap<String, Task>>,
    /// While hostd describes all containers: those that it has not named yet.
    unnamed: RefCell<Option<BTreeSet<String>>>,
}

/// A container that is served.
#[derive(Debug)]
struct Task {
    served: Rc<Served>,
    task: AbortHandle,
}

/// Sockets of a container.
pub(crate) type Handed = (String, Vec<SocketKind>, Vec<OwnedFd>);

/// Why a container is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetError {
    /// Its sockets are not what they should be.
    #[error("the sockets of {container} can't be used: {source}")]
    Sockets {
        /// The container's identifier.
        container: String,
        /// Why.
        source: std::io::Error,
    },
    /// There are no sockets.
    #[error("there are no sockets of {0}")]
    NoSockets(String),
}

impl Server {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            shared: Rc::new(Shared::new()),
            served: RefCell::default(),
            unnamed: RefCell::default(),
        })
    }

    /// The containers that are served, and on which ports.
    pub(crate) fn holds(&self) -> Vec<(String, Ports)> {
        let served = self.served.borrow();
        let all = served
            .iter()
            .map(|(id, task)| (id.clone(), task.served.ports()));
        all.collect()
    }

    /// Whether no container is served.
    pub(crate) fn is_empty(&self) -> bool {
        self.served.borrow().is_empty()
    }

    /// Begins a description of all containers.
    pub(crate) fn begin(&self) {
        let all = self.served.borrow().keys().cloned().collect();
        *self.unnamed.borrow_mut() = Some(all);
    }

    /// Ends a description of all containers, and forgets those that were not named.
    pub(crate) fn end(&self) {
        let unnamed = self.unnamed.borrow_mut().take();
        for id in unnamed.into_iter().flatten() {
            self.remove(&id);
        }
    }

    /// Replaces a container's description and, if new ones came, its sockets. Nothing changes on an
    /// error.
    pub(crate) fn set(
        self: &Rc<Self>,
        container: Container,
        sockets: Option<Sockets>,
    ) -> Result<(), SetError> {
        let id = container.id.clone();
        match sockets {
            Some(sockets) => {
                let served = Served::new(&id, sockets).map_err(|source| SetError::Sockets {
                    container: id.clone(),
                    source,
                })?;
                self.shared.table.borrow_mut().set(container);
                self.start(&id, served);
            }
            None if self.served.borrow().contains_key(&id) => {
                self.shared.table.borrow_mut().set(container);
            }
            None => return Err(SetError::NoSockets(id)),
        }
        if let Some(unnamed) = &mut *self.unnamed.borrow_mut() {
            unnamed.remove(&id);
        }
        Ok(())
    }

    fn start(self: &Rc<Self>, id: &str, served: Served) {
        let served = Rc::new(served);
        let (server, own) = (self.clone(), served.clone());
        let serving = served.clone().serve(self.shared.clone());
        let task = tokio::task::spawn_local(async move {
            serving.await;
            server.ended(&own);
        });
        let task = Task {
            served,
            task: task.abort_handle(),
        };
        if let Some(before) = self.served.borrow_mut().insert(id.to_owned(), task) {
            before.task.abort();
        }
    }

    /// Forgets a container whose process has ended, unless a new one with the same identifier has
    /// replaced it.
    fn ended(&self, served: &Rc<Served>) {
        let id = {
            let all = self.served.borrow();
            let found = all
                .iter()
                .find(|(_, task)| Rc::ptr_eq(&task.served, served));
            found.map(|(id, _)| id.clone())
        };
        if let Some(id) = id {
            self.remove(&id);
        }
    }

    /// Forgets a container, and closes its sockets.
    pub(crate) fn remove(&self, id: &str) {
        self.shared.table.borrow_mut().remove(id);
        if let Some(task) = self.served.borrow_mut().remove(id) {
            task.task.abort();
        }
    }

    /// Stops serving, and returns the sockets of all containers. Queries that were not read yet
    /// stay in the sockets.
    pub(crate) async fn hand_over(&self) -> Vec<Handed> {
        let end = Instant::now() + HAND_OVER;
        let mut handed = Vec::new();
        let busy = || {
            self.served
                .borrow()
                .values()
                .any(|task| task.served.is_busy())
        };
        while busy() && Instant::now() < end {
            sleep(HAND_OVER / 50).await;
        }
        let tasks: Vec<_> = self.served.borrow_mut().drain().collect();
        for (_, task) in &tasks {
            task.task.abort();
        }
        // The tasks free their resources when they end, at their next turn.
        tokio::task::yield_now().await;
        for (id, task) in tasks {
            match task.served.sockets() {
                Ok((kinds, descriptors)) => handed.push((id, kinds, descriptors)),
                Err(error) => report(format_args!("sockets of {id} are not handed over: {error}")),
            }
        }
        handed
    }
}

//! What is wanted, and who waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keelson_resolver_protocol::{Container, Ports, Sockets};
use rustix::process::Pid;
use tokio::sync::{Notify, oneshot};

use super::program::Program;
use super::records::{ContainerNames, record};
use super::resolv_conf::ResolvConf;

/// Opens the sockets of a container anew, in its network namespace, and leads its port 53 there. The ports
/// are those before. It may block.
pub type Reopen = Arc<dyn Fn(&str, Option<Ports>) -> io::Result<Sockets> + Send + Sync>;

/// Why the resolver doesn't know a change. It is told as soon as that is possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// It did not answer in time.
    #[error("the resolver of containers does not answer; see resolver.log in the run directory")]
    Silent,
    /// It refused.
    #[error("the resolver does not serve container {container}: {reason}")]
    Refused {
        /// Its identifier.
        container: String,
        /// What it says.
        reason: String,
    },
}

/// What is wanted, shared by those who want it and the task that says it.
pub(super) struct Inner {
    pub(super) state: Mutex<State>,
    /// Something is to be said.
    pub(super) wake: Notify,
    pub(super) program: Program,
    pub(super) resolv_conf: PathBuf,
    pub(super) reopen: Reopen,
}

#[derive(Default)]
pub(super) struct State {
    /// All containers that live are known: what the resolver knows beyond them is to be forgotten.
    pub(super) settled: bool,
    /// This process will end, and says nothing any more.
    pub(super) closed: bool,
    /// The resolver that is told changes.
    pub(super) process: Option<Pid>,
    pub(super) wanted: BTreeMap<String, Wanted>,
    /// Containers whose state is to be said.
    pub(super) changed: BTreeSet<String>,
    /// Who waits until the present state of a container was said.
    pub(super) waiting: BTreeMap<String, Vec<oneshot::Sender<Result<(), NamesError>>>>,
    pub(super) host: ResolvConf,
}

pub(super) struct Wanted {
    pub(super) names: ContainerNames,
    pub(super) record: Container,
    /// Sockets that the resolver does not have yet.
    pub(super) sockets: Option<Sockets>,
    /// Where it was served, as far as that is known.
    pub(super) ports: Option<Ports>,
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something is to be said about a container.
    pub(super) fn change(
        &self,
        state: &mut State,
        id: &str,
    ) -> Option<oneshot::Receiver<Result<(), NamesError>>> {
        if !state.settled {
            return None;
        }
        let (tell, told) = oneshot::channel();
        state.changed.insert(id.to_owned());
        state.waiting.entry(id.to_owned()).or_default().push(tell);
        self.wake.notify_one();
        Some(told)
    }

    /// Sockets for a container whose resolver has none, opened on a thread that may block.
    pub(super) async fn opened(
        self: &Arc<Self>,
        id: &str,
        ports: Option<Ports>,
    ) -> io::Result<Sockets> {
        let (inner, id) = (self.clone(), id.to_owned());
        let opening = tokio::task::spawn_blocking(move || (inner.reopen)(&id, ports));
        opening.await.map_err(io::Error::other)?
    }
}

impl Inner {
    /// Says anew what follows from the host's resolv.conf, as far as it is something else.
    pub(super) fn take_host(&self, host: ResolvConf) {
        let mut state = self.lock();
        if state.host == host {
            return;
        }
        tracing::info!(
            servers = host.servers.len(),
            "resolv.conf of the host has changed"
        );
        state.host = host;
        let State {
            wanted,
            changed,
            host,
            ..
        } = &mut *state;
        for (id, wanted) in wanted {
            let record = record(&wanted.names, host);
            if wanted.record != record {
                wanted.record = record;
                changed.insert(id.clone());
            }
        }
        self.wake.notify_one();
    }
}

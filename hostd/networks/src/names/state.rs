//! The desired state of the resolver, and the callers that wait for it.

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

/// Opens the sockets of a container again, in its network namespace, and redirects its port 53 to
/// them. The argument is its earlier ports. May block.
pub type Reopen = Arc<dyn Fn(&str, Option<Ports>) -> io::Result<Sockets> + Send + Sync>;

/// Why the resolver has not applied a change. It is sent again as soon as possible.
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
        /// Its reason.
        reason: String,
    },
}

/// The desired state, shared by the callers and the task that sends it.
pub(super) struct Inner {
    pub(super) state: Mutex<NamesState>,
    /// Wakes the task when there is something to send.
    pub(super) wake: Notify,
    pub(super) program: Program,
    pub(super) resolv_conf: PathBuf,
    pub(super) reopen: Reopen,
}

#[derive(Default)]
pub(super) struct NamesState {
    /// Whether all running containers are known. Then the resolver must forget all others.
    pub(super) settled: bool,
    /// Whether this process is ending and sends nothing any more.
    pub(super) closed: bool,
    /// The resolver to which changes are sent.
    pub(super) process: Option<Pid>,
    pub(super) wanted: BTreeMap<String, WantedNames>,
    /// Containers whose state must be sent.
    pub(super) changed: BTreeSet<String>,
    /// Callers that wait until a container's current state is applied.
    pub(super) waiting: BTreeMap<String, Vec<oneshot::Sender<Result<(), NamesError>>>>,
    pub(super) host: ResolvConf,
}

pub(super) struct WantedNames {
    pub(super) names: ContainerNames,
    pub(super) record: Container,
    /// Sockets that the resolver does not have yet.
    pub(super) sockets: Option<Sockets>,
    /// The ports on which it was served, if known.
    pub(super) ports: Option<Ports>,
}

impl Inner {
    pub(super) fn lock(&self) -> MutexGuard<'_, NamesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a container's state to be sent.
    pub(super) fn change(
        &self,
        state: &mut NamesState,
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

    /// Opens sockets for a container for which the resolver has none, on a thread that may block.
    pub(super) async fn opened(
        self: &Arc<Self>,
        id: &str,
        ports: Option<Ports>,
    ) -> io::Result<Sockets> {
        let (inner, id) = (self.clone(), id.to_owned());
        let opening = keelson_blocking::blocking(move || (inner.reopen)(&id, ports));
        opening.await.map_err(io::Error::other)?
    }
}

impl Inner {
    /// After a change of the host's resolv.conf, marks the containers whose description has
    /// changed.
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
        let NamesState {
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

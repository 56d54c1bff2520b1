//! Keeps a resolver running and up to date.
//!
//! The desired state is kept here. One task sends it to the resolver, and sends everything to each
//! new resolver. So callers only change the desired state, in any order, whether a resolver runs or
//! not.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keelson_resolver_protocol::Sockets;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::client::ClientError;
use super::program::{Program, ended};
use super::records::{ContainerNames, record};
use super::resolv_conf::ResolvConf;
use super::session::Session;
use super::state::{Inner, NamesError, NamesState, Reopen, WantedNames};
use super::watch::{self, ResolvConfWatch};

/// How long to wait for a change to be applied. Restarting the resolver takes at most this long.
const KNOWN: Duration = Duration::from_secs(5);
/// How long the resolver may take to end.
const CLOSING: Duration = Duration::from_millis(500);
/// The pause before another resolver is started after a failure. It doubles up to the second value.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(5)];

/// What is needed to serve names.
pub struct NamesOptions {
    /// The program `keelson-resolver`.
    pub program: PathBuf,
    /// The directory of its socket and its log. A reboot empties it.
    pub run: PathBuf,
    /// The cgroup of processes that are not stopped together with this process.
    pub cgroup: Option<PathBuf>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
    /// Opens sockets again for a resolver that has lost them.
    pub reopen: Reopen,
}

/// The names of all containers of an engine. Clones share them.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Starts to keep names. Before [`Names::settle`] no resolver is started, and nothing is sent.
    /// Must be called inside a tokio runtime.
    #[must_use]
    pub fn open(options: NamesOptions) -> Self {
        let host = watch::read(&options.resolv_conf).unwrap_or_else(|error| {
            tracing::warn!(path = %options.resolv_conf.display(), %error, "not read");
            ResolvConf::default()
        });
        let state = NamesState {
            host,
            ..NamesState::default()
        };
        let inner = Arc::new(Inner {
            state: Mutex::new(state),
            wake: Notify::new(),
            program: Program::new(options.program, &options.run, options.cgroup),
            resolv_conf: options.resolv_conf,
            reopen: options.reopen,
        });
        tokio::spawn(keep(inner.clone()));
        tokio::spawn(follow(inner.clone()));
        Self(inner)
    }

    /// All running containers were set. From now on the resolver knows exactly these.
    pub fn settle(&self) {
        self.0.lock().settled = true;
        self.0.wake.notify_one();
    }

    /// Stops sending. A resolver that serves no container then ends, and this waits for its end,
    /// because it keeps its cgroup from being removed. A resolver that serves containers lives on.
    pub async fn close(&self) {
        let process = {
            let mut state = self.0.lock();
            state.closed = true;
            state.process
        };
        // For the next waiter.
        self.0.wake.notify_one();
        if let Some(process) = process
            && self.0.lock().wanted.is_empty()
        {
            let _ = timeout(CLOSING, ended(process)).await;
        }
    }

    /// Returns the host's parsed resolv.conf.
    #[must_use]
    pub fn host(&self) -> ResolvConf {
        self.0.lock().host.clone()
    }

    /// Replaces the description of a container. `sockets` are those of a new run
    /// ([`super::open_sockets`]); `None`: the resolver has them already. After [`Names::settle`],
    /// waits until the resolver has applied it.
    ///
    /// # Errors
    /// The resolver does not answer in time, or refuses.
    pub async fn set(
        &self,
        names: ContainerNames,
        sockets: Option<Sockets>,
    ) -> Result<(), NamesError> {
        let told = {
            let mut state = self.0.lock();
            let id = names.id.clone();
            let record = record(&names, &state.host);
            let before = state.wanted.remove(&id);
            let (sockets, ports) = match sockets {
                Some(sockets) => (Some(sockets), None),
                None => before.map_or((None, None), |before| (before.sockets, before.ports)),
            };
            let wanted = WantedNames {
                names,
                record,
                sockets,
                ports,
            };
            state.wanted.insert(id.clone(), wanted);
            self.0.change(&mut state, &id)
        };
        wait(told).await
    }

    /// Removes a container that has ended. Waits like [`Names::set`].
    ///
    /// # Errors
    /// The resolver does not answer in time.
    pub async fn remove(&self, container: &str) -> Result<(), NamesError> {
        let told = {
            let mut state = self.0.lock();
            if state.wanted.remove(container).is_none() {
                return Ok(());
            }
            self.0.change(&mut state, container)
        };
        wait(told).await
    }
}

async fn wait(told: Option<oneshot::Receiver<Result<(), NamesError>>>) -> Result<(), NamesError> {
    let Some(told) = told else {
        return Ok(());
    };
    match timeout(KNOWN, told).await {
        Ok(Ok(result)) => result,
        _ => Err(NamesError::Silent),
    }
}

/// Follows the host's resolv.conf.
async fn follow(inner: Arc<Inner>) {
    let watch = ResolvConfWatch::new(inner.resolv_conf.clone());
    loop {
        watch.arm();
        match watch::read(&inner.resolv_conf) {
            Ok(host) => inner.take_host(host),
            Err(error) => tracing::warn!(%error, "resolv.conf not read"),
        }
        watch.changed().await;
    }
}

/// Keeps a resolver running as long as there is a container to serve.
async fn keep(inner: Arc<Inner>) {
    let [shortest, longest] = PAUSES;
    let mut pause = shortest;
    // A resolver that was started earlier must learn that no container is left.
    let mut leftover = inner.program.was_started();
    loop {
        let needed = {
            let mut state = inner.lock();
            state.process = None;
            if state.closed {
                return;
            }
            state.settled && (leftover || !state.wanted.is_empty())
        };
        if !needed {
            inner.wake.notified().await;
            continue;
        }
        leftover = false;
        let begin = Instant::now();
        match Session::begin(&inner).await {
            Ok(Some(session)) => match session.run().await {
                _ if inner.lock().closed => return,
                ClientError::Ended if inner.lock().wanted.is_empty() => {}
                error => tracing::warn!(%error, "the resolver is started again"),
            },
            // No resolver runs, and none is needed.
            Ok(None) => continue,
            Err(error) => tracing::error!(%error, "no resolver of containers"),
        }
        if begin.elapsed() > longest {
            pause = shortest;
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

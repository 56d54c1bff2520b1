//! Keeps a resolver running that knows everything.
//!
//! What is wanted is kept here; one task says it to the resolver, and says everything again to each new
//! one. So callers only change what is wanted, in any order, whether a resolver runs or not.

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
use super::state::{Inner, NamesError, Reopen, State, Wanted};
use super::watch::{self, Watch};

/// How long a change is waited for. When the resolver has to be started again, it takes that long at most.
const KNOWN: Duration = Duration::from_secs(5);
/// How long the resolver may take to end.
const CLOSING: Duration = Duration::from_millis(500);
/// How long after a failure another resolver is started; doubled up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(5)];

/// What names need to be kept.
pub struct NamesOptions {
    /// The program `keelson-resolver`.
    pub program: PathBuf,
    /// The directory of its socket and its log, gone with the boot.
    pub run: PathBuf,
    /// A cgroup of those that are not stopped together with this process.
    pub cgroup: Option<PathBuf>,
    /// The host's resolv.conf.
    pub resolv_conf: PathBuf,
    /// For a resolver that lost its sockets.
    pub reopen: Reopen,
}

/// The names of all containers of an engine. Copies are the same.
#[derive(Clone)]
pub struct Names(Arc<Inner>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Names {
    /// Begins to keep names. Nothing is said, and no resolver started, before [`Names::settle`]. Within a
    /// tokio runtime.
    #[must_use]
    pub fn open(options: NamesOptions) -> Self {
        let host = watch::read(&options.resolv_conf).unwrap_or_else(|error| {
            tracing::warn!(path = %options.resolv_conf.display(), %error, "not read");
            ResolvConf::default()
        });
        let state = State {
            host,
            ..State::default()
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

    /// All containers that live were set: from now on the resolver knows them and no others.
    pub fn settle(&self) {
        self.0.lock().settled = true;
        self.0.wake.notify_one();
    }

    /// Says nothing any more. A resolver that serves no container ends then, and is waited for, since it
    /// keeps its cgroup from being removed; one that does lives on.
    pub async fn close(&self) {
        let process = {
            let mut state = self.0.lock();
            state.closed = true;
            state.process
        };
        // For whoever waits next.
        self.0.wake.notify_one();
        if let Some(process) = process
            && self.0.lock().wanted.is_empty()
        {
            let _ = timeout(CLOSING, ended(process)).await;
        }
    }

    /// What the host's resolv.conf says.
    #[must_use]
    pub fn host(&self) -> ResolvConf {
        self.0.lock().host.clone()
    }

    /// Everything about a container, in the place of what was known. `sockets` are those of a new run
    /// ([`super::open_sockets`]); `None`: the resolver has them already. Waits until the resolver knows,
    /// if it is after [`Names::settle`].
    ///
    /// # Errors
    /// It does not know in time, or refuses.
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
            let wanted = Wanted {
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

    /// The container has ended. Waits as [`Names::set`] does.
    ///
    /// # Errors
    /// The resolver does not know in time.
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
    let watch = Watch::new(inner.resolv_conf.clone());
    loop {
        watch.arm();
        match watch::read(&inner.resolv_conf) {
            Ok(host) => inner.take_host(host),
            Err(error) => tracing::warn!(%error, "resolv.conf not read"),
        }
        watch.changed().await;
    }
}

/// Keeps a resolver as long as there is something to serve.
async fn keep(inner: Arc<Inner>) {
    let [shortest, longest] = PAUSES;
    let mut pause = shortest;
    // One that was started earlier is to be told that nothing is left.
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
            // Nothing runs and nothing is wanted.
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

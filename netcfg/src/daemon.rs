//! The daemon: events in, plan, effects, status out.

mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use keelson_config::{LoadedConfig, Sources};
use keelson_linux::notify::Notification;
use keelson_netlink::{Monitor, Netlink, NetlinkError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::desired::{self, HeldLease};
use crate::dhcp::machine::{Remembered, StateName, Time};
use crate::dhcp::{Client, ClientEvent, ClientLink, ClientStatus, LeaseStore, StoreError, now};
use crate::kernel::Kernel;
use crate::model::{Desired, Link, Observed};
use crate::notify::{self, Notifier};
use crate::plan::plan;

/// Shortest and longest time until a plan that partly failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Changes that the kernel reports within this time are handled together.
const SETTLE: Duration = Duration::from_millis(30);

/// The paths that the daemon reads and writes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Root of the configuration's layers (`/`).
    pub config_root: PathBuf,
    /// Directory for resolv.conf and for `netcfg/` (`/run/keelson`).
    pub run: PathBuf,
    /// Directory for `leases/` (`/var/lib/keelson/host`).
    pub state: PathBuf,
}

/// Why the daemon can't work at all. All other problems are retried and reported.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// No connection to the kernel.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The connection to the kernel broke.
    #[error("the netlink connection broke")]
    Disconnected,
    /// Signals cannot be waited for.
    #[error("wait for signals: {0}")]
    Signals(std::io::Error),
}

struct RunningClient {
    link: ClientLink,
    client: Client,
    carrier: bool,
    status: ClientStatus,
}

struct Daemon {
    options: Options,
    loaded: LoadedConfig,
    kernel: Kernel,
    notifier: Notifier,
    leases: LeaseStore,
    clients: BTreeMap<u32, RunningClient>,
    held: BTreeMap<u32, HeldLease>,
    events: mpsc::UnboundedSender<(u32, ClientEvent)>,
    /// The link chosen when the configuration names none.
    chosen: Option<u32>,
    observed: Observed,
    desired: Desired,
    /// The failures of the last plan.
    failures: Vec<String>,
    problems: Vec<String>,
    retry: Duration,
    retry_at: Option<Instant>,
    ready: bool,
    summary: String,
}

/// Runs until SIGTERM or SIGINT.
///
/// At the end the network is not changed, and leases are *not* released: the machine keeps its
/// address over a restart of this process, and asks for the same one after a reboot. A lease is
/// released only if the configuration switches DHCP off for its link.
///
/// # Errors
/// When the kernel cannot be reached.
pub async fn run(options: Options) -> Result<(), DaemonError> {
    let kernel = Kernel::new(Netlink::connect()?);
    let monitor = Netlink::monitor()?;
    let (events, receiver) = mpsc::unbounded_channel();
    let loaded = load(&options);
    let daemon = Daemon {
        leases: LeaseStore::new(&options.state),
        options,
        loaded,
        kernel,
        notifier: Notifier::from_environment(),
        clients: BTreeMap::new(),
        held: BTreeMap::new(),
        events,
        chosen: None,
        observed: Observed::default(),
        desired: Desired::default(),
        failures: Vec::new(),
        problems: Vec::new(),
        retry: RETRY.0,
        retry_at: None,
        ready: false,
        summary: String::new(),
    };
    daemon.run(monitor, receiver).await
}

fn load(options: &Options) -> LoadedConfig {
    let loaded = keelson_config::current(&Sources::under(&options.config_root));
    for problem in &loaded.problems {
        warn!(%problem, "configuration");
    }
    loaded
}

fn listen(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(DaemonError::Signals)
}

impl Daemon {
    async fn run(
        mut self,
        mut monitor: Monitor,
        mut events: mpsc::UnboundedReceiver<(u32, ClientEvent)>,
    ) -> Result<(), DaemonError> {
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        // Sent from the main loop: if that hangs, the signs stop.
        let interval = notify::sign_of_life_interval();
        self.reconcile().await;
        let mut sign_at = interval.map(|_| Instant::now());
        loop {
            let retry_at = self.retry_at;
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    info!("reading the configuration again");
                    self.loaded = load(&self.options);
                    self.reconcile().await;
                }
                alive = monitor.changed() => {
                    if !alive {
                        return Err(DaemonError::Disconnected);
                    }
                    // Our own changes also cause events; wait until all have arrived.
                    tokio::time::sleep(SETTLE).await;
                    self.reconcile().await;
                }
                Some((index, event)) = events.recv() => {
                    let mut changed = self.client_event(index, event);
                    while let Ok((index, event)) = events.try_recv() {
                        changed |= self.client_event(index, event);
                    }
                    if changed {
                        self.reconcile().await;
                    } else {
                        self.publish();
                    }
                }
                () = sleep_until(retry_at) => self.reconcile().await,
                () = sleep_until(sign_at) => {
                    self.notifier.send(&Notification::Alive);
                    sign_at = interval.map(|interval| Instant::now() + interval);
                }
            }
        }
        self.notifier.send(&Notification::Stopping);
        info!("stopped; the network is not changed");
        Ok(())
    }

    /// Records an event of a client. Returns `true` if the kernel must be changed.
    fn client_event(&mut self, index: u32, event: ClientEvent) -> bool {
        let Some(running) = self.clients.get_mut(&index) else {
            // The client's link is gone.
            return false;
        };
        match event {
            ClientEvent::Bound { lease, granted } => {
                let link = &running.link;
                if let Err(error) = self
                    .leases
                    .save(&link.name, link.mac, &lease, granted, now())
                {
                    warn!(link = %link.name, %error, "the lease is not kept for the next boot");
                }
                self.held.insert(index, HeldLease { lease, granted });
                true
            }
            ClientEvent::Unbound => {
                forget(&self.leases, &running.link.name);
                self.held.remove(&index).is_some()
            }
            ClientEvent::Status(status) => {
                running.status = status;
                false
            }
        }
    }

    /// Brings the kernel to the desired state, starts and stops clients, writes the files.
    async fn reconcile(&mut self) {
        self.failures.clear();
        match self.kernel.observe().await {
            Ok(observed) => self.observed = observed,
            Err(error) => {
                warn!(%error, "cannot read the state of the network");
                self.failures.push(error.to_string());
                self.schedule_retry();
                return;
            }
        }
        let time = now();
        self.chosen = desired::default_link(&self.observed.links, self.chosen);
        let config = &self.loaded.config;
        let decide = |held: &BTreeMap<u32, HeldLease>| {
            desired::desired(config, &self.observed.links, self.chosen, held, time)
        };
        let (desired, _) = decide(&self.held);
        self.desired = desired;
        self.stop_clients().await;
        // A new client may know that the link still has the address of a lease.
        self.start_clients(time);
        let (desired, problems) = desired::desired(
            &self.loaded.config,
            &self.observed.links,
            self.chosen,
            &self.held,
            time,
        );
        self.desired = desired;
        self.problems = problems;

        let actions = plan(&self.desired, &self.observed);
        for action in &actions {
            match self.kernel.apply(action).await {
                Ok(()) => info!("{action}"),
                Err(error) => {
                    warn!(%error, "cannot change the network");
                    self.failures.push(error.to_string());
                }
            }
        }
        if !actions.is_empty()
            && let Ok(observed) = self.kernel.observe().await
        {
            self.observed = observed;
        }
        if self.failures.is_empty() {
            self.retry = RETRY.0;
            self.retry_at = None;
        } else {
            self.schedule_retry();
        }
        for running in self.clients.values_mut() {
            let carrier = self
                .observed
                .links
                .iter()
                .any(|link| link.index == running.link.index && link.up && link.carrier);
            if carrier != running.carrier {
                info!(link = %running.link.name, carrier, "carrier");
                running.carrier = carrier;
                running.client.carrier(carrier);
            }
        }
        self.publish();
        if !self.ready {
            self.ready = true;
            self.notifier.send(&Notification::Ready);
            info!("ready");
        }
    }

    fn schedule_retry(&mut self) {
        self.retry_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    fn wants_client(&self, index: u32) -> Option<&Link> {
        let wanted = self
            .desired
            .links
            .iter()
            .any(|link| link.index == index && link.dhcp4);
        let link = self.observed.links.iter().find(|link| link.index == index);
        link.filter(|_| wanted)
    }

    async fn stop_clients(&mut self) {
        let indexes: Vec<u32> = self.clients.keys().copied().collect();
        for index in indexes {
            let wanted = self.wants_client(index).and_then(client_link);
            let Some(running) = self.clients.get(&index) else {
                continue;
            };
            let finished = running.client.is_finished();
            if wanted.as_ref() == Some(&running.link) && !finished {
                continue;
            }
            let exists = self.observed.links.iter().any(|link| link.index == index);
            if let Some(running) = self.clients.remove(&index) {
                let name = running.link.name.clone();
                if finished {
                    warn!(link = %name, "the DHCP client ended unexpectedly and is started again");
                } else if exists && wanted.is_none() {
                    info!(link = %name, "DHCP is switched off for the link");
                    running.client.release().await;
                    forget(&self.leases, &name);
                }
            }
            self.held.remove(&index);
        }
    }

    fn start_clients(&mut self, time: Time) {
        let wanted: Vec<ClientLink> = self
            .desired
            .links
            .iter()
            .filter(|link| !self.clients.contains_key(&link.index))
            .filter_map(|link| self.wants_client(link.index).and_then(client_link))
            .collect();
        for link in wanted {
            let remembered = self.remembered(&link, time);
            if let Some(Remembered {
                lease,
                granted: Some(granted),
                in_use: true,
            }) = remembered.clone()
            {
                self.held.insert(link.index, HeldLease { lease, granted });
            }
            let hostname = self.hostname();
            let client = Client::start(link.clone(), hostname, remembered, self.events.clone());
            self.clients.insert(
                link.index,
                RunningClient {
                    link,
                    client,
                    carrier: false,
                    status: ClientStatus {
                        state: StateName::Down,
                        problem: None,
                    },
                },
            );
        }
    }

    fn remembered(&self, link: &ClientLink, time: Time) -> Option<Remembered> {
        let (lease, granted) = match self.leases.load(&link.name, link.mac, time) {
            Ok(found) => found?,
            Err(error) => {
                warn!(link = %link.name, %error, "the lease of before is not used");
                return None;
            }
        };
        let in_use = granted.is_some()
            && self.observed.addresses.iter().any(|address| {
                address.link == link.index
                    && address.ours
                    && address.prefix.address == lease.address
                    && address.prefix.length == lease.prefix
            });
        Some(Remembered {
            lease,
            granted,
            in_use,
        })
    }

    /// The machine's name for the DHCP server: the configuration's, else the kernel's.
    fn hostname(&self) -> Option<String> {
        let name = match &self.loaded.config.hostname {
            Some(name) => name.clone(),
            None => rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
        };
        let usable = keelson_config::check_host_name(&name).is_ok() && name != "localhost";
        usable.then_some(name)
    }
}

fn client_link(link: &Link) -> Option<ClientLink> {
    Some(ClientLink {
        index: link.index,
        name: link.name.clone(),
        mac: link.mac?,
    })
}

fn forget(leases: &LeaseStore, link: &str) {
    let result: Result<(), StoreError> = leases.remove(link);
    if let Err(error) = result {
        warn!(link, %error, "the lease is not forgotten");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! One container in memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hostd_images::{ImageLease, RootfsLayers};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::checks::Checks;
use crate::gate::Gate;
use crate::held::Held;
use crate::machine::{Action, CheckRules, Event, Found, Machine, Moment, Now, Rules, Ticket};
use crate::shim::Shim;
use crate::types::health::Health;
use crate::types::{AttachOptions, Scope, Snapshot, Status, WaitCondition, WaitResult};
use crate::{EngineError, Signal};

/// A container.
///
/// Two locks: `operation` is held by code that steps the machine and carries out its actions, also
/// across awaits, but not during a start and never while it waits for the process to end. `live`
/// protects the values and is held only for moments.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) scope: Scope,
    /// The files that do not survive a reboot or the end of a run; also the shim's directory.
    pub(crate) run_directory: PathBuf,
    pub(crate) operation: tokio::sync::Mutex<()>,
    /// Readers of its output hold a receiver: a removed container's log is deleted only after they
    /// have read it, or were too slow.
    pub(crate) readers: tokio::sync::watch::Sender<()>,
    /// Attached clients hold a receiver until they have received all output of the run. Its end is
    /// reported after that.
    pub(crate) carriers: tokio::sync::watch::Sender<()>,
    /// Held while its log is forwarded to a server.
    pub(crate) forwarding: tokio::sync::Mutex<()>,
    /// Coordinates writers of its files from outside.
    pub(crate) gate: Arc<Gate>,
    /// Whether an earlier engine has created it, and this one has not started it yet.
    not_started_since: AtomicBool,
    /// Notified when a start has reported.
    pub(crate) start_over: Notify,
    live: Mutex<Live>,
}

/// What changes.
pub(crate) struct Live {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) machine: Machine,
    /// Callers that wait for an answer of the machine.
    requests: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    last_ticket: Ticket,
    waiters: Vec<(WaitCondition, oneshot::Sender<WaitResult>)>,
    /// Clients that attached before the start.
    pub(crate) pending: Vec<PendingAttach>,
    /// Keeps the image in the store. It is dropped when the container is removed.
    pub(crate) image: Option<ImageLease>,
    /// Its leases on volumes.
    pub(crate) volumes: Held,
    /// Keeps the image's layers mounted.
    pub(crate) layers: Option<RootfsLayers>,
    /// Sends [`Event::Time`] at the machine's deadline.
    pub(crate) timer: Option<Timer>,
    /// Its health checks.
    pub(crate) checks: Checks,
}

/// The answer to a request; several may be answered by one failure.
pub(crate) type Answer = Result<(), Arc<EngineError>>;

/// A client that waits for the start.
pub(crate) struct PendingAttach {
    pub(crate) options: AttachOptions,
    pub(crate) connected: oneshot::Sender<UnixStream>,
}

/// A task that sends an event. It ends when this is dropped.
pub(crate) struct Timer {
    /// In the machine's time.
    pub(crate) due: Duration,
    /// `None` once it has fired: its work must not be cancelled then.
    task: Option<AbortHandle>,
}

/// How a container begins in memory.
pub(crate) enum Beginning {
    /// It was just created.
    New,
    /// An earlier engine has created it; its shim was not asked yet.
    Found(Found),
    /// Its document can't be read, for this reason.
    Unreadable(String),
}

impl Container {
    pub(crate) fn new(mut snapshot: Snapshot, beginning: Beginning) -> Self {
        let rules = rules(&snapshot);
        let found = matches!(beginning, Beginning::Found(_));
        let machine = match beginning {
            Beginning::New => Machine::new(rules),
            Beginning::Found(found) => Machine::restored(rules, found),
            Beginning::Unreadable(why) => Machine::unreadable(rules, why),
        };
        snapshot.state = machine.shown();
        Self {
            id: snapshot.id.clone(),
            scope: snapshot.scope,
            run_directory: snapshot.run_directory.clone(),
            operation: tokio::sync::Mutex::new(()),
            readers: tokio::sync::watch::Sender::new(()),
            carriers: tokio::sync::watch::Sender::new(()),
            forwarding: tokio::sync::Mutex::new(()),
            gate: Arc::default(),
            not_started_since: AtomicBool::new(found),
            start_over: Notify::new(),
            live: Mutex::new(Live {
                snapshot: Arc::new(snapshot),
                machine,
                requests: BTreeMap::new(),
                last_ticket: Ticket(0),
                waiters: Vec::new(),
                pending: Vec::new(),
                image: None,
                volumes: Held::default(),
                layers: None,
                timer: None,
                checks: Checks::default(),
            }),
        }
    }

    /// Keeps its image until it is removed. The store asks by the lease whether it runs.
    pub(crate) fn hold(self: &Arc<Self>, lease: Option<ImageLease>) {
        self.answer_for(&lease);
        self.live().image = lease;
    }

    /// The leases on images that are mounted in it.
    pub(crate) fn hold_mounted(self: &Arc<Self>, leases: Vec<ImageLease>) {
        self.answer_for(&leases);
        self.live().volumes.images = leases;
    }

    fn answer_for<'a>(self: &Arc<Self>, leases: impl IntoIterator<Item = &'a ImageLease>) {
        for lease in leases {
            let this = Arc::downgrade(self);
            lease.ask(move || {
                this.upgrade()
                    .is_some_and(|this| this.snapshot().state.status.counts_as_running())
            });
        }
    }

    /// The values. A panic elsewhere cannot leave them half-changed in a way that matters more
    /// than refusing every later call would.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.live().snapshot)
    }

    pub(crate) fn shim(&self) -> Shim {
        Shim::new(&self.id, &self.run_directory)
    }

    /// Whether it was removed. Code that still holds it finds nothing.
    pub(crate) fn is_gone(&self) -> bool {
        self.live().machine.is_gone()
    }

    /// Whether it is being started.
    pub(crate) fn is_starting(&self) -> bool {
        self.live().machine.is_starting()
    }

    /// Waits until it is not being started, and its policy will not start it.
    pub(crate) async fn decided(&self) {
        loop {
            let mut over = pin!(self.start_over.notified());
            // From here on it is notified, even if it checks late.
            over.as_mut().enable();
            if !self.is_starting() && self.snapshot().state.status != Status::Restarting {
                return;
            }
            over.await;
        }
    }

    /// Whether an earlier engine has created it and this one has not started it. Later calls return
    /// false.
    pub(crate) fn take_first_start(&self) -> bool {
        self.not_started_since.swap(false, Ordering::AcqRel)
    }

    /// Takes the operation lock when no start is running. Fails if the container was removed
    /// meanwhile. Decisions from the container's state are valid until the lock is released.
    pub(crate) async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, EngineError> {
        loop {
            let mut over = pin!(self.start_over.notified());
            // A notification after this point is not missed.
            over.as_mut().enable();
            let guard = self.operation.lock().await;
            let (gone, starting) = {
                let live = self.live();
                (live.machine.is_gone(), live.machine.is_starting())
            };
            if gone {
                return Err(EngineError::NoSuchContainer(self.id.clone()));
            }
            if !starting {
                return Ok(guard);
            }
            drop(guard);
            over.await;
        }
    }

    /// Registers a wait; an error if its condition is met already.
    pub(crate) fn wait(
        &self,
        condition: WaitCondition,
    ) -> Result<oneshot::Receiver<WaitResult>, WaitResult> {
        let mut live = self.live();
        let state = &live.snapshot.state;
        if live.machine.is_gone()
            || (condition == WaitCondition::NotRunning && !state.status.counts_as_running())
        {
            return Err(WaitResult {
                exit_code: state.exit_code,
                error: None,
            });
        }
        let (sender, receiver) = oneshot::channel();
        // Remove the senders of clients that went away.
        live.waiters.retain(|(_, waiter)| !waiter.is_closed());
        live.waiters.push((condition, sender));
        Ok(receiver)
    }
}

impl Live {
    /// Steps the machine, and updates what clients see.
    pub(crate) fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        let actions = self.machine.step(event, now);
        let shown = self.machine.shown();
        if self.snapshot.state != shown {
            Arc::make_mut(&mut self.snapshot).state = shown;
        }
        self.show_health();
        actions
    }

    fn show_health(&mut self) {
        let health = self.machine.health();
        if self.snapshot.health != health {
            Arc::make_mut(&mut self.snapshot).health = health;
        }
    }

    /// Takes over the health that an earlier engine has stored.
    pub(crate) fn restore_health(&mut self, health: Option<Health>) {
        self.machine.restore_health(health);
        self.show_health();
    }

    /// The container's specification was changed.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        change(snapshot);
        self.machine.set_rules(rules(snapshot));
    }

    /// Registers a request, and returns a receiver for its answer.
    pub(crate) fn register(&mut self) -> (Ticket, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        self.last_ticket = Ticket(self.last_ticket.0 + 1);
        self.requests.insert(self.last_ticket, sender);
        (self.last_ticket, receiver)
    }

    /// How many requests wait for their answer.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        if let Some(sender) = self.requests.remove(&ticket) {
            // The asking client may be gone.
            let _ = sender.send(answer);
        }
    }

    /// Answers the waits whose condition is met.
    pub(crate) fn notify(&mut self, moment: Moment) {
        let met = |condition| match moment {
            Moment::Ended => condition != WaitCondition::Removed,
            Moment::NotStarted => condition == WaitCondition::NotRunning,
            Moment::NotRemoved => condition == WaitCondition::Removed,
            Moment::Gone => true,
        };
        let state = &self.snapshot.state;
        let result = WaitResult {
            exit_code: state.exit_code,
            error: (moment == Moment::NotRemoved).then(|| state.error.clone()),
        };
        for (condition, waiter) in std::mem::take(&mut self.waiters) {
            if met(condition) {
                // A client that went away is no error.
                let _ = waiter.send(result.clone());
            } else {
                self.waiters.push((condition, waiter));
            }
        }
    }

    /// Removes the timer if the calling task is it; false if another event was quicker.
    pub(crate) fn timer_fired(&mut self) -> bool {
        let own = tokio::task::try_id();
        let id = |timer: &mut Timer| timer.task.as_ref().map(AbortHandle::id);
        match self.timer.take_if(|timer| id(timer) == own) {
            Some(mut timer) => {
                timer.task = None;
                true
            }
            None => false,
        }
    }
}

impl Timer {
    pub(crate) fn new(due: Duration, task: &tokio::task::JoinHandle<()>) -> Self {
        Self {
            due,
            task: Some(task.abort_handle()),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// The part of a container's specification about its life.
fn rules(snapshot: &Snapshot) -> Rules {
    let spec = &snapshot.spec;
    let signal = spec.stop.signal.and_then(|number| number.try_into().ok());
    Rules {
        restart: spec.restart,
        auto_remove: spec.auto_remove,
        stop_signal: signal.unwrap_or(Signal::TERM),
        // Services may have changed with the OS, so their manager starts them.
        at_opening: snapshot.scope == Scope::User,
        health: spec.health.as_ref().map(CheckRules::from),
    }
}

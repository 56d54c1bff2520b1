//! The driver of a container's machine: passes events to it, carries out its actions in order, and
//! reports their results.
//!
//! Everything happens under the container's operation lock, except the start of a shim. During that
//! the machine is in `Starting` and queues requests.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_blocking::blocking;
use keelson_shim_protocol::Request;
use keelson_store::objects::remove_tree;

use crate::EngineError;
use crate::Signal;
use crate::container::{Answer, Container, Timer};
use crate::engine::{Inner, off_workers};
use crate::machine::{Action, Ask, Event, Happening, Now, Outcome, Over, Stopper, Ticket};
use crate::shim::Connection;
use crate::volumes::end_uses;

/// How long killed processes may take to leave their cgroup.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);

/// How many requests of callers may wait for one container. A stop without a time limit waits as long
/// as its container runs, also when its client has left.
const MAX_WAITING: usize = 256;

/// Context of the actions of one event.
#[derive(Default)]
struct Effects {
    /// A connection that will report the end of the run.
    wait: Option<Connection>,
    /// Why the last start failed.
    not_started: Option<Arc<EngineError>>,
    /// Why the effect that has just reported failed.
    failed: Option<Arc<EngineError>>,
    /// The state could not be written, as on a full disk.
    unwritten: bool,
    /// Where the container's files are now.
    trash: Option<PathBuf>,
}

impl Inner {
    /// Sends a request to a container's machine, and waits for the answer.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        container: &Arc<Container>,
        ask: Ask,
    ) -> Result<(), EngineError> {
        let (ticket, answer) = {
            let mut live = container.live();
            if may_wait_long(&ask) && live.waiting() >= MAX_WAITING {
                return Err(EngineError::Conflict(format!(
                    "{MAX_WAITING} requests wait for container {} already: try again when some of them are answered, or remove it with force",
                    container.id
                )));
            }
            live.register()
        };
        self.handle(container, Event::Request(ticket, ask), None)
            .await;
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Arc::try_unwrap(error).unwrap_or_else(EngineError::Shared)),
            // The task that had it has ended with the engine.
            Err(_) => Err(EngineError::Abandoned(container.id.clone())),
        }
    }

    /// Handles an event and everything that follows from it. `wait`: a connection to the shim that
    /// will report the end of the run.
    pub(crate) async fn handle(
        self: &Arc<Self>,
        container: &Arc<Container>,
        event: Event,
        wait: Option<Connection>,
    ) {
        let mut effects = Effects {
            wait,
            ..Effects::default()
        };
        let mut guard = container.operation.lock().await;
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            tracing::trace!(id = container.id, ?event, "life");
            let mut spawn = false;
            let actions = container.live().step(event, self.now());
            for action in actions {
                match action {
                    Action::Spawn => spawn = true,
                    Action::Again(ticket, ask) => events.push_back(Event::Request(ticket, ask)),
                    action => {
                        let report = self.carry_out(container, action, &mut effects).await;
                        // The consequences of a report come before other requests.
                        if let Some(report) = report {
                            events.push_front(report);
                        }
                    }
                }
            }
            if spawn {
                self.arm(container);
                drop(guard);
                let report = self.spawn(container, &mut effects).await;
                guard = container.operation.lock().await;
                events.push_front(report);
            }
        }
        self.arm(container);
        container.start_over.notify_waiters();
        drop(guard);
    }

    /// The current moment, for the machine.
    pub(crate) fn now(&self) -> Now {
        Now {
            time: self.opened.elapsed(),
            clock: Timestamp::now(),
            shutting_down: self.is_shutting_down(),
        }
    }

    /// Sets the timer for the machine's next deadline.
    fn arm(self: &Arc<Self>, container: &Arc<Container>) {
        let mut live = container.live();
        let due = live.machine.deadline();
        if live.timer.as_ref().map(|timer| timer.due) == due {
            return;
        }
        live.timer = due.map(|due| {
            let (inner, container) = (Arc::clone(self), Arc::clone(container));
            let at = self.opened.checked_add(due);
            let task = tokio::spawn(async move {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    // Too far away for the clock.
                    None => std::future::pending().await,
                }
                if container.live().timer_fired() {
                    inner.handle(&container, Event::Time, None).await;
                }
            });
            Timer::new(due, &task)
        });
    }

    /// Starts the shim and then the command.
    async fn spawn(self: &Arc<Self>, container: &Arc<Container>, effects: &mut Effects) -> Event {
        match self.run(container).await {
            Ok(running) => {
                effects.wait = Some(running.wait);
                Event::Started {
                    pid: running.pid,
                    at: running.at,
                }
            }
            Err(error) => {
                tracing::warn!(id = container.id, %error, "container not started");
                let (code, text) = (error.exit_code(), error.to_string());
                effects.not_started = Some(Arc::new(error));
                Event::NotStarted { code, error: text }
            }
        }
    }

    /// Carries out an action that is not a start. Returns its report.
    async fn carry_out(
        self: &Arc<Self>,
        container: &Arc<Container>,
        action: Action,
        effects: &mut Effects,
    ) -> Option<Event> {
        match action {
            Action::Watch(pid) => match effects.wait.take() {
                Some(wait) => self.watch(container, pid, wait),
                None => tracing::error!(id = container.id, "nothing to watch a run by"),
            },
            Action::Check(number) => self.begin_check(container, number),
            Action::EndCheck(number) => self.end_check(container, number),
            Action::KeepHealth => self.keep_health(container),
            Action::Send(sending) => {
                let request = Request::Kill {
                    signal: sending.signal.number(),
                    all: sending.signal == Signal::KILL,
                };
                let sent = container.shim().command("kill", &request).await;
                return Some(match effects.keep(container, "signal", sent) {
                    Ok(()) => Event::Sent(sending),
                    Err(over) => Event::NotSent(sending, over),
                });
            }
            Action::Freeze(ticket, by) => {
                let frozen = container.shim().command("pause", &Request::Pause).await;
                return Some(match effects.keep(container, "pause", frozen) {
                    Ok(()) => Event::Frozen(ticket, by),
                    Err(over) => Event::NotFrozen(ticket, over),
                });
            }
            Action::Thaw(thaw) => {
                let thawed = container.shim().command("unpause", &Request::Resume).await;
                return Some(match effects.keep(container, "unpause", thawed) {
                    Ok(()) => Event::Thawed(thaw),
                    Err(over) => Event::NotThawed(thaw, over),
                });
            }
            Action::Discard => return Some(self.discard(container, effects)),
            Action::KillLeftovers => self.kill_leftovers(container).await,
            Action::EndShim => container.shim().end().await,
            Action::CleanRun => {
                // Others may need its ports and its network as soon as they learn of its end.
                let unplugged = self.unplug(&container.id);
                tokio::join!(clean_run(container, effects.unwritten), unplugged);
            }
            Action::Persist => effects.unwritten = !self.persist(container),
            Action::Emit(happening) => self.tell(container, happening),
            Action::Notify(moment) => container.live().notify(moment),
            Action::DropPending => container.live().pending.clear(),
            Action::Release => self.release(container, effects.trash.take()),
            Action::Answer(ticket, outcome) => answer(container, ticket, outcome, effects),
            // Handled by the caller.
            Action::Spawn | Action::Again(..) => {}
        }
        None
    }

    fn tell(&self, container: &Container, happening: Happening) {
        if matches!(happening, Happening::Die { .. }) {
            // The event of the disconnection comes first.
            drop(self.unplug(&container.id));
        }
        self.emit(container, happening);
    }

    /// Ends processes that outlived their shim, and removes their cgroup. With a pid namespace
    /// there are none; a container without one may have some.
    async fn kill_leftovers(&self, container: &Container) {
        let Some(mount) = &self.facts.cgroup_mount else {
            return;
        };
        let cgroup = container.snapshot().cgroup.clone();
        let path = mount.join(cgroup.trim_start_matches('/'));
        // Usually there is nothing to do, and no thread is needed to see that.
        if !path.exists() {
            return;
        }
        // A killed process stays in its cgroup until the kernel has cleaned it up.
        let removal = move || keelson_cgroup::remove(&path, LEFTOVERS_LIMIT);
        match blocking(removal).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(id = container.id, %error, "cgroup not removed"),
            Err(error) => tracing::error!(id = container.id, %error, "cgroup not removed"),
        }
    }

    /// Removes a container's files. After the rename into the trash the container is gone.
    fn discard(&self, container: &Container, effects: &mut Effects) -> Event {
        match off_workers(|| self.objects.discard(&container.id)) {
            Ok(trash) => {
                effects.trash = trash;
                Event::Removed
            }
            Err(error) => {
                tracing::error!(id = container.id, %error, "container not removed");
                let text = error.to_string();
                effects.failed = Some(Arc::new(error.into()));
                Event::NotRemoved { error: text }
            }
        }
    }
}

impl Effects {
    /// Whether a shim carried out a request; otherwise stores the reason for the answer.
    fn keep(
        &mut self,
        container: &Container,
        what: &'static str,
        result: Result<(), EngineError>,
    ) -> Result<(), Over> {
        let Err(error) = result else {
            return Ok(());
        };
        // It may just have ended by itself, and its end is not recorded yet.
        let over = match container.shim().exit_record() {
            Ok(Some(_)) => Over::Yes,
            _ => Over::No,
        };
        if over == Over::No {
            tracing::warn!(id = container.id, %error, what, "shim did not obey");
        }
        self.failed = Some(Arc::new(error));
        Err(over)
    }
}

/// Whether a request may wait as long as its container runs or starts. Other requests end soon, and
/// some of them end the waiting, so they are always accepted.
fn may_wait_long(ask: &Ask) -> bool {
    matches!(
        ask,
        Ask::Start
            | Ask::Restart { .. }
            | Ask::Stop {
                by: Stopper::Caller,
                ..
            }
    )
}

/// Deletes the files of a run, on a separate thread: tasks that were told of the end run on this
/// one as soon as it waits, and must not wait for files. If the end is recorded nowhere else, the
/// shim's record is kept for the next engine.
async fn clean_run(container: &Arc<Container>, unwritten: bool) {
    let of = Arc::clone(container);
    let clean = move || {
        end_uses(&of);
        match unwritten {
            true => Ok(()),
            false => remove_tree(&of.run_directory),
        }
    };
    match blocking(clean).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(id = container.id, %error, "run directory not removed"),
        Err(error) => tracing::error!(id = container.id, %error, "run directory not removed"),
    }
}

fn answer(container: &Container, ticket: Ticket, outcome: Outcome, effects: &Effects) {
    let snapshot = container.snapshot();
    let unknown = || Arc::new(EngineError::Abandoned(snapshot.id.clone()));
    let answer: Answer = match outcome {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(Arc::new(EngineError::refused(&snapshot, refusal))),
        Outcome::NotStarted => Err(effects.not_started.clone().unwrap_or_else(unknown)),
        Outcome::Failed => Err(effects.failed.clone().unwrap_or_else(unknown)),
    };
    container.live().answer(ticket, answer);
}

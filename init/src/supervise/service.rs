//! A supervised process: its state machine with the effects.

use std::time::Duration;

use keelson_model::init::ProcessStatus;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::machine::{Action, Event, Machine, State};
use super::output::Output;
use super::process::{self, Definition};
use crate::boot::Steps;
use crate::console;

/// A supervised process.
pub(crate) struct Service {
    definition: &'static Definition,
    /// How long it may be silent.
    patience: Option<Duration>,
    machine: Machine,
    /// How it ended last.
    pub(crate) last_exit: Option<String>,
    started: f64,
    was_ready: bool,
}

impl Service {
    /// A process that was not started yet.
    pub(crate) fn new(definition: &'static Definition, patience: Option<Duration>) -> Self {
        Self {
            definition,
            patience,
            machine: Machine::new(patience),
            last_exit: None,
            started: 0.0,
            was_ready: false,
        }
    }

    /// Short name.
    pub(crate) fn name(&self) -> &'static str {
        self.definition.name
    }

    /// Process identifier while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.machine.pid()
    }

    /// When its [`Event::Time`] is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }

    /// How long it may take to stop.
    pub(crate) fn stop_limit(&self) -> Duration {
        self.definition.stop_limit
    }

    /// Whether it ended for good.
    pub(crate) fn is_stopped(&self) -> bool {
        self.machine.state == State::Stopped
    }

    /// For the control socket.
    pub(crate) fn status(&self) -> ProcessStatus {
        ProcessStatus {
            name: self.name().to_owned(),
            state: self.machine.told(),
            pid: self.pid(),
            restarts: self.machine.restarts,
            last_exit: self.last_exit.clone(),
        }
    }

    /// Handles an event and carries out its actions. Returns the output of processes that were
    /// started.
    pub(crate) fn feed(&mut self, event: &Event, now: Duration, steps: &mut Steps) -> Vec<Output> {
        let mut outputs = Vec::new();
        for action in self.machine.step(event, now) {
            self.perform(&action, now, steps, &mut outputs);
        }
        outputs
    }

    fn perform(
        &mut self,
        action: &Action,
        now: Duration,
        steps: &mut Steps,
        outputs: &mut Vec<Output>,
    ) {
        let name = self.name();
        match action {
            Action::Spawn => {
                self.started = console::uptime();
                let result = match process::spawn(self.definition, self.patience) {
                    Ok((pid, pipe)) => {
                        match Output::new(name, pipe) {
                            Ok(output) => outputs.push(output),
                            Err(error) => {
                                console::warning(&format!("read the output of {name}: {error}"));
                            }
                        }
                        Event::Spawned { pid }
                    }
                    Err(error) => {
                        console::error(&error.to_string());
                        self.last_exit = Some("could not be started".to_owned());
                        Event::NotSpawned
                    }
                };
                // Neither event leads to another spawn, so this ends.
                for follow_up in self.machine.step(&result, now) {
                    self.perform(&follow_up, now, steps, outputs);
                }
            }
            Action::Terminate { pid } => self.signal(*pid, Signal::SIGTERM),
            Action::Kill { pid } => {
                let why = match self.machine.state {
                    State::Hung { .. } => "did not end after SIGABRT".to_owned(),
                    _ => format!(
                        "did not stop within {} s",
                        self.definition.stop_limit.as_secs()
                    ),
                };
                console::warning(&format!("{name} {why} and is killed"));
                self.signal(*pid, Signal::SIGKILL);
            }
            Action::ReportSilent { silence } => {
                console::warning(&format!(
                    "{name} has given no sign of life for {} s",
                    silence.as_secs()
                ));
            }
            Action::Abort { pid } => {
                console::error(&format!("{name} hangs and is ended"));
                self.signal(*pid, Signal::SIGABRT);
            }
            Action::ReportReady => {
                console::say(&format!("{name} ready at {:.3} s", console::uptime()));
                if !self.was_ready {
                    self.was_ready = true;
                    steps.end(&format!("{name}-ready"), self.started, Vec::new());
                }
            }
            Action::ReportLate => {
                console::warning(&format!("{name} runs but is not ready yet"));
            }
            Action::ReportRestart { pause, looping } => {
                let end = self.last_exit.as_deref().unwrap_or("ended");
                let often = if *looping { " again and again" } else { "" };
                console::warning(&format!(
                    "{name} {end}{often}; it is started again in {:.3} s",
                    pause.as_secs_f64()
                ));
            }
            Action::ReportStuck { pid } => {
                console::error(&format!(
                    "{name} (process {pid}) survives SIGKILL; going on without it"
                ));
            }
        }
    }

    /// Only the main process gets signals: it handles the processes that it started (shims and
    /// their containers) itself.
    fn signal(&self, pid: i32, signal: Signal) {
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            console::warning(&format!("send {signal} to {}: {error}", self.name()));
        }
    }
}

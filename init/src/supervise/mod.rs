//! The life of PID 1 after the boot: one thread, one epoll loop.
//!
//! Children need no pidfd here: only this loop reaps, so a process identifier can't be reused
//! between the end of a child and the moment at which the loop learns of it.

mod button;
mod devices;
pub(crate) mod ending;
mod hotplug;
mod machine;
mod notify;
mod output;
mod process;
mod requests;
mod service;
mod turn;
pub(crate) mod watchdog;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use keelson_linux::notify::Notification;
use keelson_model::init::{CONTROL_SOCKET, PowerAction, Response};
use keelson_model::logs::LogPriority;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use self::button::Button;
use self::ending::{Ending, Presses};
use self::hotplug::Hotplug;
use self::machine::Event;
use self::notify::NotifySocket;
use self::output::Output;
use self::service::Service;
use self::watchdog::{Proof, Watchdog};
use crate::boot::{Booted, Steps};
use crate::cmdline::CommandLine;
use crate::console;
use crate::control::{Client, Listener, MOST_CLIENTS, Progress};
use crate::uevent::UeventSocket;

/// A source of events for the loop.
enum Source {
    Signals(SignalFd),
    Uevents(UeventSocket),
    Notify(NotifySocket),
    Control(Listener),
    Client(Client),
    Output(Output),
    Button(Button),
}

/// Signals that PID 1 handles. All other signals are blocked and have no effect.
const SIGNALS: [Signal; 4] = [
    Signal::SIGCHLD,
    // Orderly power-off, also from the hypervisor or a UPS.
    Signal::SIGTERM,
    Signal::SIGPWR,
    // Ctrl-Alt-Del, after the kernel was told to send it to us.
    Signal::SIGINT,
];

/// See [`patience`].
const PATIENCE: Duration = Duration::from_secs(60);

/// How many events are handled in one turn of the loop.
const BATCH: usize = 32;

/// Time since the start of the kernel, also while the machine slept.
fn now() -> Duration {
    Duration::from_secs_f64(console::uptime().max(0.0))
}

/// Supervises until the shutdown was requested and netcfg and hostd have ended, or it is forced.
/// Returns how the machine ends.
pub(crate) fn run(booted: Booted) -> (Ending, Option<Watchdog>) {
    // The loop needs epoll. Nothing else uses descriptors yet, so this fails only on a kernel that
    // can't run Keelson at all.
    let epoll = loop {
        match Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC) {
            Ok(epoll) => break epoll,
            Err(error) => {
                console::error(&format!("epoll_create1: {error}"));
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    };
    let command_line = CommandLine::read();
    let (patience, problem) = patience(&command_line);
    let (watchdog_timeout, other) = watchdog::wanted(&command_line, booted.watchdog);
    for problem in problem.into_iter().chain(other) {
        console::warning(&problem);
    }
    let mut supervisor = Supervisor {
        epoll,
        sources: BTreeMap::new(),
        next_token: 0,
        services: process::DEFINITIONS
            .iter()
            .map(|definition| Service::new(definition, patience))
            .collect(),
        // The devices that were present before anybody listened have no links yet.
        hotplug: Hotplug::with_devices(),
        watchdog: watchdog_timeout.and_then(|timeout| Watchdog::open(timeout, now())),
        watchdog_timeout,
        proof: Proof::new(patience, now()),
        presses: Presses::default(),
        left_others: false,
        unreaped: false,
        steps: booted.steps,
        deployment: booted.deployment,
        coldplug: booted.coldplug,
        ending: None,
    };
    if let Some(uevents) = booted.uevents {
        supervisor.add(Source::Uevents(uevents));
    }
    supervisor.listen();
    supervisor.start_services();
    let ending = supervisor.turn_until_ended();
    (ending, supervisor.watchdog)
}

/// How long a ready process may be silent: `keelson.watchdog=` in seconds; 0 means forever. The
/// time is long, because it must only detect processes that hang, never a machine with too much
/// work.
fn patience(command_line: &CommandLine) -> (Option<Duration>, Option<String>) {
    match command_line
        .value("keelson.watchdog")
        .map(str::parse::<u32>)
    {
        Some(Ok(0)) => (None, None),
        Some(Ok(seconds)) => (Some(Duration::from_secs(seconds.into())), None),
        None => (Some(PATIENCE), None),
        Some(Err(_)) => {
            let problem = "keelson.watchdog= is not a number of seconds and is passed over";
            (Some(PATIENCE), Some(problem.to_owned()))
        }
    }
}

struct Supervisor {
    epoll: Epoll,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
    services: Vec<Service>,
    hotplug: Hotplug,
    watchdog: Option<Watchdog>,
    /// `None`: the operator wants none.
    watchdog_timeout: Option<Duration>,
    /// Whether hostd lives.
    proof: Proof,
    presses: Presses,
    /// Whether the file systems of other machines were unmounted.
    left_others: bool,
    /// Whether children may have ended that are not reaped yet.
    unreaped: bool,
    steps: Steps,
    deployment: Option<String>,
    /// The process that loads the modules of the present devices, and when it was started.
    coldplug: Option<(i32, f64)>,
    /// How the machine ends, once a shutdown was requested.
    ending: Option<Ending>,
}

impl Supervisor {
    /// Opens all sources of events. A source that fails is missing from then on.
    fn listen(&mut self) {
        let signals: SigSet = SIGNALS.into_iter().collect();
        let signals = signals.thread_block().and_then(|()| {
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        });
        self.open("signalfd", signals.map(Source::Signals));
        // From now on Ctrl-Alt-Del is a SIGINT for us instead of an immediate reset.
        if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::CadOff) {
            console::warning(&format!("take over Ctrl-Alt-Del: {error}"));
        }
        let notify = NotifySocket::bind(Path::new(notify::PATH));
        self.open(notify::PATH, notify.map(Source::Notify));
        let control = Listener::bind(Path::new(CONTROL_SOCKET));
        self.open(CONTROL_SOCKET, control.map(Source::Control));
        for device in Button::devices() {
            self.open_button(&device);
        }
    }

    fn open<E: std::fmt::Display>(&mut self, what: &str, source: Result<Source, E>) {
        match source {
            Ok(source) => self.add(source),
            Err(error) => {
                let now = console::uptime();
                self.steps
                    .end("supervision", now, vec![format!("open {what}: {error}")]);
            }
        }
    }

    fn add(&mut self, source: Source) {
        let token = self.next_token;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        match self.epoll.add(&source, event) {
            Ok(()) => {
                self.next_token += 1;
                self.sources.insert(token, source);
            }
            Err(error) => console::warning(&format!("epoll_ctl: {error}")),
        }
    }

    fn start_services(&mut self) {
        for index in 0..self.services.len() {
            self.feed(index, &Event::Start);
        }
    }

    fn turn_until_ended(&mut self) -> Ending {
        loop {
            let now = now();
            self.pass_time(now);
            if let Some(ending) = self.ended() {
                return ending;
            }
            let mut events = [EpollEvent::empty(); BATCH];
            let count = match self.epoll.wait(&mut events, self.timeout(now)) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => {
                    console::error(&format!("epoll_wait: {error}"));
                    std::thread::sleep(Duration::from_millis(100));
                    0
                }
            };
            for event in events.iter().take(count) {
                self.handle(event.data());
            }
            self.reap();
        }
    }

    fn timeout(&self, now: Duration) -> EpollTimeout {
        if self.unreaped {
            return EpollTimeout::ZERO;
        }
        let services = self.services.iter().filter_map(Service::deadline);
        let clients = self.sources.values().filter_map(|source| match source {
            Source::Client(client) => Some(client.deadline),
            _ => None,
        });
        let watchdog = self.watchdog.as_ref().map(Watchdog::deadline);
        let Some(next) = services.chain(clients).chain(watchdog).min() else {
            return EpollTimeout::NONE;
        };
        // Rounded up: waking a moment early would run the loop for nothing.
        let wait = next.saturating_sub(now) + Duration::from_millis(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn pass_time(&mut self, now: Duration) {
        if let Some(watchdog) = &mut self.watchdog {
            // A stop has limits of its own.
            if self.ending.is_some() || self.proof.holds(now) {
                watchdog.feed(now);
            } else {
                watchdog.starve(now);
            }
            if let Some(warning) = self.proof.warning(now).filter(|_| self.ending.is_none()) {
                console::error(&warning);
            }
        }
        self.sources
            .retain(|_, source| !matches!(source, Source::Client(c) if now >= c.deadline));
        for index in 0..self.services.len() {
            self.feed(index, &Event::Time);
        }
        // One at a time, because the coldplug may work on the same devices.
        if self.coldplug.is_none() {
            self.hotplug.turn();
        }
    }

    /// Passes an event to a service. If that starts a process, adds the process's pipe to the loop.
    fn feed(&mut self, index: usize, event: &Event) {
        let Some(service) = self.services.get_mut(index) else {
            return;
        };
        for output in service.feed(event, now(), &mut self.steps) {
            self.add(Source::Output(output));
        }
    }

    fn handle(&mut self, token: u64) {
        // Taken out of the map, so that its handler may change everything else.
        let Some(mut source) = self.sources.remove(&token) else {
            return;
        };
        let keep = match &mut source {
            Source::Signals(signals) => {
                turn::take(SIGNALS.len(), || match signals.read_signal() {
                    Ok(Some(signal)) => {
                        self.on_signal(signal.ssi_signo as i32);
                        true
                    }
                    _ => false,
                });
                true
            }
            Source::Uevents(uevents) => self.on_uevents(uevents),
            Source::Notify(socket) => {
                turn::take(turn::MESSAGES, || match socket.receive() {
                    Ok(Some((pid, said))) => {
                        self.on_notifications(pid, &said);
                        true
                    }
                    _ => false,
                });
                true
            }
            Source::Control(listener) => {
                self.on_clients(listener);
                true
            }
            Source::Client(client) => self.on_client(client, token),
            Source::Output(output) => output.relay(),
            Source::Button(button) => match button.read() {
                Ok(pressed) => {
                    if pressed {
                        console::say("power button pressed");
                        self.end(PowerAction::Poweroff);
                    }
                    true
                }
                Err(_) => false,
            },
        };
        // Dropping a source closes its descriptor, which removes it from epoll.
        if keep {
            self.sources.insert(token, source);
        }
    }

    fn on_signal(&mut self, signal: i32) {
        match Signal::try_from(signal) {
            // One signal may report several children.
            Ok(Signal::SIGCHLD) => self.unreaped = true,
            Ok(Signal::SIGTERM | Signal::SIGPWR) => self.end(PowerAction::Poweroff),
            Ok(Signal::SIGINT) => {
                let burst = self.presses.pressed(now());
                match self.ending {
                    // Seven presses end the machine as it is about to end anyway.
                    Some(ending) if burst => self.force(ending.action),
                    None if burst => self.force(PowerAction::Reboot),
                    // Fewer are no second request: the key may be held down.
                    Some(_) => {}
                    None => self.end(PowerAction::Reboot),
                }
            }
            _ => {}
        }
    }

    /// Reaps children that ended, as many as one turn allows.
    fn reap(&mut self) {
        if self.unreaped {
            self.unreaped = turn::take(turn::CHILDREN, || {
                let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) else {
                    return false;
                };
                let (Some(pid), Some(end)) = (status.pid(), process::describe_end(&status)) else {
                    return false;
                };
                self.ended_child(pid.as_raw(), &status, end);
                true
            });
        }
    }

    fn ended_child(&mut self, pid: i32, status: &WaitStatus, end: String) {
        if let Some((_, started)) = self.coldplug.take_if(|(helper, _)| *helper == pid) {
            let failed = *status != WaitStatus::Exited(Pid::from_raw(pid), 0);
            let problem = failed.then(|| format!("some modules were not loaded: {end}"));
            self.steps
                .end("modules", started, problem.into_iter().collect());
            return;
        }
        if self.hotplug.ended(pid) {
            return;
        }
        let index = self.services.iter().position(|s| s.pid() == Some(pid));
        if let Some((index, service)) =
            index.and_then(|index| Some((index, self.services.get_mut(index)?)))
        {
            service.last_exit = Some(end);
            self.feed(index, &Event::Exited);
        }
    }

    fn on_notifications(&mut self, pid: i32, said: &[Notification]) {
        let Some(index) = self.services.iter().position(|s| s.pid() == Some(pid)) else {
            return;
        };
        let is_hostd = self
            .services
            .get(index)
            .is_some_and(|s| s.name() == process::HOSTD);
        for notification in said {
            if is_hostd && matches!(notification, Notification::Ready | Notification::Alive) {
                self.proof.heard(now());
            }
            match notification {
                Notification::Ready => self.feed(index, &Event::Ready),
                Notification::Alive => self.feed(index, &Event::Alive),
                Notification::Status(text) => {
                    if let Some(service) = self.services.get(index) {
                        console::relay(service.name(), LogPriority::Info, text);
                    }
                }
                // An announced end is still an end: it is handled when it comes.
                Notification::Stopping => {}
            }
        }
    }

    fn on_clients(&mut self, listener: &Listener) {
        turn::take(turn::MESSAGES, || match listener.accept(now()) {
            Ok(Some(mut client)) => {
                let clients = self.sources.values();
                let present = clients.filter(|s| matches!(s, Source::Client(_))).count();
                if present < MOST_CLIENTS {
                    self.add(Source::Client(client));
                } else {
                    let message = "too many clients at the same time".to_owned();
                    client.answer(&Response::Error { message });
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                console::warning(&format!("accept on {CONTROL_SOCKET}: {error}"));
                false
            }
        });
    }

    fn on_client(&mut self, client: &mut Client, token: u64) -> bool {
        let progress = match client.advance() {
            Progress::Request(request) => {
                let response = self.respond(&request);
                client.answer(&response)
            }
            other => other,
        };
        let flags = match progress {
            Progress::Read | Progress::Request(_) => return true,
            Progress::Write => EpollFlags::EPOLLOUT,
            Progress::Finished => return false,
        };
        let mut event = EpollEvent::new(flags, token);
        self.epoll.modify(&*client, &mut event).is_ok()
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Signals(source) => source.as_fd(),
            Self::Uevents(source) => source.as_fd(),
            Self::Notify(source) => source.as_fd(),
            Self::Control(source) => source.as_fd(),
            Self::Client(source) => source.as_fd(),
            Self::Output(source) => source.as_fd(),
            Self::Button(source) => source.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_sets_the_patience() {
        let of = |text: &str| patience(&CommandLine::parse(text.as_bytes()));
        assert_eq!(of(""), (Some(PATIENCE), None));
        assert_eq!(
            of("keelson.watchdog=4"),
            (Some(Duration::from_secs(4)), None)
        );
        assert_eq!(of("keelson.watchdog=0"), (None, None));
        let (patience, problem) = of("keelson.watchdog=soon");
        assert!(patience == Some(PATIENCE) && problem.is_some());
    }
}

//! Requests of clients, and the stop of the machine up to its last phase.

use keelson_model::init::{InitStatus, PowerAction, Request, Response};

use super::ending::{self, Ending, Outcome};
use super::machine::Event;
use super::service::Service;
use super::{Supervisor, now, process};
use crate::{boot, console, kexec, remote};

impl Supervisor {
    pub(super) fn respond(&mut self, request: &Request) -> Response {
        match request {
            Request::Status => Response::Status(InitStatus {
                deployment: self.deployment.clone(),
                boot: self.steps.0.clone(),
                processes: self.services.iter().map(Service::status).collect(),
            }),
            Request::ResetIdentity => {
                match boot::sameness::request("an administrator asked for it") {
                    Ok(()) => {
                        console::say("this machine gets a new identity at its next start");
                        Response::Accepted
                    }
                    Err(error) => Response::Error {
                        message: error.to_string(),
                    },
                }
            }
            Request::Power { action, force } => {
                let kexec = *action == PowerAction::Kexec;
                match kexec.then(kexec::refusal).flatten() {
                    Some(message) => Response::Error { message },
                    None => self.respond_to_stop(*action, *force),
                }
            }
        }
    }

    fn respond_to_stop(&mut self, action: PowerAction, force: bool) -> Response {
        match self.ask(action, force) {
            Outcome::Refused(other) => Response::Error {
                message: format!("the machine is {} already", words(other)),
            },
            Outcome::Begun | Outcome::Forced | Outcome::Unchanged => Response::Accepted,
        }
    }

    /// Begins the orderly stop, or forces it when it is under way.
    pub(super) fn end(&mut self, action: PowerAction) {
        self.ask(action, false);
    }

    pub(super) fn force(&mut self, action: PowerAction) {
        self.ask(action, true);
    }

    pub(super) fn ask(&mut self, action: PowerAction, force: bool) -> Outcome {
        let outcome = ending::request(&mut self.ending, action, force, now());
        match outcome {
            Outcome::Begun => console::say(words(action)),
            Outcome::Forced => console::warning(&format!("{} by force", words(action))),
            Outcome::Unchanged | Outcome::Refused(_) => {}
        }
        outcome
    }

    /// Continues the orderly stop: one service after the other, in reverse order of their start.
    pub(super) fn ended(&mut self) -> Option<Ending> {
        let ending = self.ending?;
        if ending.forced {
            // The last phase kills whatever still runs.
            return Some(ending);
        }
        for index in (0..self.services.len()).rev() {
            let service = self.services.get(index)?;
            if service.name() == process::NETCFG && !std::mem::replace(&mut self.left_others, true)
            {
                // While the network still works, and after the containers that use them.
                let watchdog = &mut self.watchdog;
                remote::unmount_all(|| {
                    if let Some(watchdog) = watchdog {
                        watchdog.feed(now());
                    }
                });
            }
            let stop = Event::Stop {
                limit: service.stop_limit(),
            };
            self.feed(index, &stop);
            if !self.services.get(index)?.is_stopped() {
                return None;
            }
        }
        Some(ending)
    }
}

/// The console's message at the shutdown.
fn words(action: PowerAction) -> &'static str {
    match action {
        PowerAction::Poweroff => "powering off",
        PowerAction::Reboot => "rebooting",
        PowerAction::Kexec => "rebooting without the firmware",
        PowerAction::Halt => "halting",
    }
}

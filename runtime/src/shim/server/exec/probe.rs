//! Probes: sessions that only run for their result, to check a container's health.
//!
//! The shim enforces a probe's time limit, so that a hanging probe ends even while hostd does not
//! run. A probe also ends when the connection that asked for it closes. Only one runs at a time:
//! while one can't be killed because it hangs in the kernel, no other is made.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::result::{Limits, Probe};
use super::session::Phase;
use crate::failure::Failure;
use crate::shim::client::{Client, Pending};
use crate::shim::server::Server;

impl Server {
    /// Starts a probe; the client gets the answer when it has ended.
    pub(in crate::shim::server) fn probe(
        &mut self,
        name: String,
        process: serde_json::Value,
        limits: Limits,
        client: &mut Client,
    ) -> Result<(), Failure> {
        if self
            .sessions
            .find(|session| session.probe.is_some())
            .is_some()
        {
            return Err(Failure::conflict(
                "the process of the last health check has not ended",
            ));
        }
        self.exec_make(name, process, false)?;
        let number = self.sessions.last;
        if let Some(session) = self.sessions.map.get_mut(&number) {
            session.probe = Some(Probe::new(limits));
        }
        self.exec_spawn(number)?;
        client.pending = Some(Pending::Probe(number));
        Ok(())
    }

    /// Handles the end of a probe's process: answers the client, and forgets the probe. Does not
    /// wait for output that other processes hold open.
    pub(super) fn probe_ended(&mut self, number: u64, code: i32) {
        for index in 0..2 {
            self.exec_output(number, index);
        }
        let Some(mut session) = self.sessions.map.remove(&number) else {
            return;
        };
        for index in 0..2 {
            session.close_output(index, &self.epoll);
        }
        session.close_input(&self.epoll);
        if let Some(probe) = session.probe {
            self.answer_pending(&Pending::Probe(number), &probe.result(code));
        }
    }

    /// Kills a probe whose time is over. Returns false if the session is no probe.
    pub(super) fn probe_expired(&mut self, number: u64) -> bool {
        let Some(session) = self.sessions.map.get_mut(&number) else {
            return false;
        };
        let Some(probe) = &mut session.probe else {
            return false;
        };
        probe.expired = true;
        session.deadline = None;
        self.kill_probe(number);
        true
    }

    /// Kills a probe if nobody waits for its result any more.
    pub(in crate::shim::server) fn probe_abandoned(&mut self, number: u64) {
        self.kill_probe(number);
    }

    fn kill_probe(&self, number: u64) {
        let session = self.sessions.map.get(&number);
        let Some((session, pid)) = session.and_then(|session| Some((session, session.pid()?)))
        else {
            return;
        };
        let pid = Pid::from_raw(pid);
        // Not reaped yet, so its number can't have been reused. Before it executes its command it
        // may not be the leader of a session yet.
        if matches!(session.phase, Phase::Starting { .. }) || killpg(pid, Signal::SIGKILL).is_err()
        {
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }
}

//! Carries out the requests of clients.

use std::os::fd::AsFd;
use std::time::Duration;

use keelson_log::Reader;
use keelson_shim_protocol::{OciStatus, Request, Response};
use keelson_sys::{clone, sandbox};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::exec::result::Limits;
use super::{CHANNEL, Server, State, done, failed};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::process::channel::Message;
use crate::process::exec::check_executed;
use crate::process::hooks::{self, Subject};
use crate::shim::client::{Attached, Client, Pending};
use crate::spec::{self, HookKind};

impl Server {
    /// Carries out a request. `None`: it is answered later.
    pub(super) fn carry_out(
        &mut self,
        request: Request,
        client: &mut Client,
    ) -> Result<Option<Response>, Failure> {
        match request {
            Request::Start => self.start(client),
            Request::State => Ok(Some(self.report())),
            Request::Kill { signal, all } => self.kill(signal, all).map(done),
            Request::Resize {
                exec: None,
                rows,
                columns,
            } => self.resize(rows, columns).map(done),
            Request::Wait { exec: None } => match &self.state {
                State::Stopped(exit) => Ok(Some(Response::Exited(exit.clone()))),
                _ => {
                    client.waiting = true;
                    Ok(None)
                }
            },
            Request::Attach {
                exec: None,
                stdin,
                stdout,
                stderr,
            } => {
                let reader = if stdout || stderr {
                    let mut reader = Reader::open(&self.spec.log.path)
                        .map_err(|error| Failure::internal(error.to_string()))?;
                    reader
                        .seek_end()
                        .map_err(|error| Failure::internal(error.to_string()))?;
                    Some(reader)
                } else {
                    None
                };
                client.respond(&Response::Done);
                client.attached = Some(Attached::new(
                    reader,
                    self.recorded,
                    [stdin, stdout, stderr],
                ));
                Ok(None)
            }
            request @ (Request::Pause | Request::Resume | Request::Update { .. })
                if self.foreign.is_some() =>
            {
                self.call(request, client).map(|()| None)
            }
            Request::Pause => self.freeze(true).map(done),
            Request::Resume => self.freeze(false).map(done),
            Request::Update { resources } => self.update(resources).map(done),
            Request::Exec {
                exec,
                process,
                open_stdin,
            } => self.exec_make(exec, process, open_stdin).map(done),
            Request::Probe {
                exec,
                process,
                limit,
                output,
            } => {
                let limit = Duration::from_millis(limit);
                self.probe(exec, process, Limits { limit, output }, client)
                    .map(|()| None)
            }
            Request::Executions => Ok(Some(self.exec_list())),
            Request::ExecStart { exec } => self.exec_start(&exec, client).map(|()| None),
            Request::Resize {
                exec: Some(exec),
                rows,
                columns,
            } => self.exec_resize(&exec, rows, columns).map(done),
            Request::Wait { exec: Some(exec) } => self.exec_wait(&exec, client),
            Request::Attach {
                exec: Some(exec),
                stdin,
                stdout,
                stderr,
            } => self
                .exec_attach(&exec, client, [stdin, stdout, stderr])
                .map(|()| None),
        }
    }

    fn start(&mut self, client: &mut Client) -> Result<Option<Response>, Failure> {
        if self.state != State::Created {
            return Err(Failure::conflict("the container was started already"));
        }
        if self.foreign.is_some() {
            return self.call(Request::Start, client).map(|()| None);
        }
        self.container.channel.start()?;
        let hooks = self.config.hooks.as_ref();
        let hooked = hooks.is_some_and(|hooks| !hooks.start_container.is_empty());
        let event = EpollEvent::new(EpollFlags::EPOLLIN, CHANNEL);
        // Hooks may take as long as they like.
        if hooked && self.epoll.add(&self.container.channel, event).is_ok() {
            self.state = State::Delayed;
            client.pending = Some(Pending::Start);
            return Ok(None);
        }
        let hooks = self.executed()?;
        client.pending = hooks.map(Pending::Started);
        Ok(hooks.is_none().then(|| self.started()))
    }

    /// Waits for the last report of the container's process. Returns the process that runs the
    /// hooks after the start, if there are any.
    fn executed(&mut self) -> Result<Option<i32>, Failure> {
        let reported = match self.container.channel.receive() {
            // It may have been killed meanwhile.
            Ok(Message::Closed) if self.state == State::Delayed => {
                check_executed(self.container.pid)
            }
            Ok(Message::Closed) => Ok(()),
            Ok(Message::Failed(failure)) => Err(failure),
            Ok(Message::Ready(_) | Message::Hooks | Message::Made(_)) => Err(Failure::internal(
                "the container's process reported twice that it is ready",
            )),
            Err(failure) => Err(failure),
        };
        match reported {
            Ok(()) => {
                self.started_at = crate::shim::now();
                self.state = State::Running;
                Ok(self.run_hooks(HookKind::Poststart))
            }
            Err(failure) => {
                self.state = State::Created;
                self.error = Some(failure.message.clone());
                Err(failure)
            }
        }
    }

    /// The same, after the event loop has waited for it.
    pub(super) fn execution(&mut self) {
        if self.state != State::Delayed || self.foreign.is_some() {
            return;
        }
        let executed = self.executed();
        let _ = self.epoll.delete(&self.container.channel);
        match executed {
            Ok(Some(hooks)) => {
                for client in self.clients.values_mut() {
                    if client.pending == Some(Pending::Start) {
                        client.pending = Some(Pending::Started(hooks));
                    }
                }
            }
            Ok(None) => {
                self.answer_pending(&Pending::Start, &self.started());
            }
            Err(failure) => {
                self.answer_pending(&Pending::Start, &failed(failure));
            }
        }
    }

    pub(super) fn started(&self) -> Response {
        Response::Started {
            pid: self.container.pid,
        }
    }

    /// Begins to run the hooks of a kind, and returns the process that runs them.
    pub(super) fn run_hooks(&self, kind: HookKind) -> Option<i32> {
        let hooks = self.config.hooks.as_ref()?.of(kind);
        if hooks.is_empty() {
            return None;
        }
        let subject = Subject::new(&self.spec.id, &self.config, &self.spec.bundle);
        // Failures change nothing, and nobody could receive them.
        hooks::in_background(subject, kind, hooks, self.container.pid).ok()
    }

    fn report(&self) -> Response {
        let frozen = || self.is_frozen();
        let (status, exit) = match &self.state {
            State::Created | State::Delayed => (OciStatus::Created, None),
            State::Running if frozen() => (OciStatus::Paused, None),
            State::Running => (OciStatus::Running, None),
            State::Stopped(exit) => (OciStatus::Stopped, Some(exit.clone())),
        };
        Response::State {
            status,
            pid: self.container.pid,
            exit,
        }
    }

    fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        if matches!(self.state, State::Stopped(_)) {
            return Err(Failure::conflict("the container has ended"));
        }
        let step = || format!("send signal {signal} to process {}", self.container.pid);
        if !all {
            return clone::signal_process(self.container.pidfd.as_fd(), signal).step(step);
        }
        if self.foreign.is_some() && self.container.cgroup.is_none() {
            // Its namespace ends with it.
            return clone::signal_process(self.container.pidfd.as_fd(), signal).step(step);
        }
        let cgroup = self.container.cgroup.as_ref().ok_or_else(|| {
            Failure::invalid("only a container with a cgroup can be signalled as a whole")
        })?;
        cgroup.signal(signal)
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<(), Failure> {
        match &self.streams.outputs[0] {
            Some(terminal) if self.streams.terminal => {
                sandbox::set_terminal_size(terminal, rows, columns)
                    .step(|| "set the terminal's size")
            }
            _ => Err(Failure::invalid("the container has no terminal")),
        }
    }

    /// Whether the container is paused.
    pub(super) fn is_frozen(&self) -> bool {
        match &self.foreign {
            Some(foreign) => foreign.paused,
            None => {
                let cgroup = self.container.cgroup.as_ref();
                cgroup.is_some_and(Cgroup::is_frozen)
            }
        }
    }

    fn freeze(&self, frozen: bool) -> Result<(), Failure> {
        if self.state != State::Running {
            return Err(Failure::conflict("the container is not running"));
        }
        self.cgroup()?.freeze(frozen)
    }

    fn update(&self, resources: serde_json::Value) -> Result<(), Failure> {
        let resources: spec::Resources = serde_json::from_value(resources)
            .map_err(|error| Failure::invalid(format!("resources: {error}")))?;
        self.cgroup()?.update(&resources)
    }

    fn cgroup(&self) -> Result<&Cgroup, Failure> {
        self.container
            .cgroup
            .as_ref()
            .ok_or_else(|| Failure::invalid("the container has no cgroup (linux.cgroupsPath)"))
    }
}

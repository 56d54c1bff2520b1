//! Requests to another runtime, answered when its call has ended.

use keelson_shim_protocol::{Request, Response};

use super::{Server, State, failed};
use crate::failure::Failure;
use crate::shim::client::{Client, Pending};
use crate::shim::foreign::{Call, Foreign, Purpose};

impl Server {
    /// Calls the runtime for a request. The request is answered later.
    pub(super) fn call(&mut self, request: Request, client: &mut Client) -> Result<(), Failure> {
        let Some(foreign) = &mut self.foreign else {
            return Err(Failure::internal("there is no other runtime"));
        };
        let running = self.state == State::Running;
        let call = match request {
            Request::Start => {
                let call = foreign.call(Purpose::Start)?;
                // Before the command: the command may have ended when the call ends.
                self.started_at = crate::shim::now();
                self.state = State::Delayed;
                call
            }
            _ if !running => return Err(Failure::conflict("the container is not running")),
            Request::Pause => foreign.call(Purpose::Pause)?,
            Request::Resume => foreign.call(Purpose::Resume)?,
            Request::Update { resources } => foreign.update(&resources)?,
            _ => return Err(Failure::internal("the other runtime knows no such call")),
        };
        client.pending = Some(Pending::Call(call));
        Ok(())
    }

    /// Records the end of a call. False: the process is no call.
    pub(super) fn called(&mut self, pid: i32, code: i32) -> bool {
        let foreign = self.foreign.as_mut();
        let Some((purpose, call)) = foreign.and_then(|foreign| foreign.take(pid)) else {
            return false;
        };
        self.call_ended(pid, purpose, Call::outcome(call, code));
        true
    }

    /// Waits for the call that starts the container. The container's first process has ended
    /// already.
    pub(super) fn settle_start(&mut self) {
        let foreign = self.foreign.as_mut();
        if let Some(call) = foreign.and_then(Foreign::take_start) {
            let pid = call.pid();
            self.call_ended(pid, Purpose::Start, call.wait());
        }
    }

    fn call_ended(&mut self, pid: i32, purpose: Purpose, outcome: Result<(), Failure>) {
        let answer = match (purpose, outcome) {
            (Purpose::Exec(number), outcome) => {
                return self.exec_called(number, outcome);
            }
            (Purpose::Start, Ok(())) => {
                if self.state == State::Delayed {
                    self.state = State::Running;
                }
                self.started()
            }
            (Purpose::Start, Err(failure)) => {
                if self.state == State::Delayed {
                    self.state = State::Created;
                }
                self.error = Some(failure.message.clone());
                failed(failure)
            }
            (Purpose::Pause, Ok(())) => self.paused(true),
            (Purpose::Resume, Ok(())) => self.paused(false),
            (Purpose::Update, Ok(())) => Response::Done,
            (_, Err(failure)) => failed(failure),
        };
        self.answer_pending(&Pending::Call(pid), &answer);
    }

    fn paused(&mut self, paused: bool) -> Response {
        if let Some(foreign) = &mut self.foreign {
            foreign.paused = paused;
        }
        Response::Done
    }
}

//! QEMU as a child of this process: started, waited for and killed without races.

use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// QEMU as a child of this process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    state: Mutex<ProcessState>,
    ended: Condvar,
}

#[derive(Debug)]
struct ProcessState {
    child: Child,
    status: Option<(ExitStatus, Instant)>,
}

impl Process {
    fn state(&self) -> MutexGuard<'_, ProcessState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the command from a thread that waits for its end: the kernel ties the child's life to
    /// that thread, not to the caller's.
    pub(crate) fn spawn(mut command: Command) -> std::io::Result<Arc<Self>> {
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new()
            .name("qemu".to_owned())
            .spawn(move || match command.spawn() {
                Err(e) => drop(sender.send(Err(e))),
                Ok(child) => {
                    let process = Arc::new(Self {
                        pid: child.id(),
                        state: Mutex::new(ProcessState {
                            child,
                            status: None,
                        }),
                        ended: Condvar::new(),
                    });
                    drop(sender.send(Ok(Arc::clone(&process))));
                    process.reap();
                }
            })?;
        receiver
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the starting thread ended")))
    }

    /// Waits for the end but leaves the process unreaped, so that its identifier can't be reused
    /// while [`Self::kill`] holds the lock.
    fn reap(&self) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(-1));
        while let Err(nix::errno::Errno::EINTR) =
            waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
        {}
        let mut state = self.state();
        if let Ok(status) = state.child.wait() {
            state.status = Some((status, Instant::now()));
        }
        drop(state);
        self.ended.notify_all();
    }

    pub(crate) fn status(&self) -> Option<(ExitStatus, Instant)> {
        self.state().status
    }

    pub(crate) fn kill(&self) {
        let mut state = self.state();
        if state.status.is_none() {
            state.child.kill().ok();
        }
    }

    pub(crate) fn wait(&self, limit: Duration) -> Option<(ExitStatus, Instant)> {
        self.ended
            .wait_timeout_while(self.state(), limit, |state| state.status.is_none())
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .status
    }
}

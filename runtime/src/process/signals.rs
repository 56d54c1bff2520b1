//! The signal state that a program expects when it is executed.

use keelson_sys::clone;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

use crate::failure::{Failure, Step};

/// No signal is ignored or blocked, whatever the runtime or its caller did.
pub(crate) fn reset() -> Result<(), Failure> {
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGCHLD,
    ] {
        clone::set_ignored(signal, false).step(|| "reset signals")?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .step(|| "reset the signal mask")
}

//! Sets up a process that PID 1 supervises, between fork and exec.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::SigSet;
use nix::unistd::setsid;

/// Makes the child the leader of a new session with no signal blocked (std lets children inherit
/// the mask), moves it into `cgroup` (an opened `cgroup.procs`) and sets its out-of-memory badness
/// (`-1000` to `1000`) before it executes its program. `spawn` of the command fails when one of
/// these fails.
///
/// The cgroup's file is opened by the caller, because nothing may be allocated between fork and
/// exec; `/proc/self` means the child only when the child opens it.
pub fn prepare<'a>(
    command: &'a mut Command,
    cgroup: Option<File>,
    oom_score_adj: Option<&'static str>,
) -> &'a mut Command {
    let setup = move || -> std::io::Result<()> {
        setsid().map_err(std::io::Error::from)?;
        SigSet::empty()
            .thread_set_mask()
            .map_err(std::io::Error::from)?;
        if let Some(procs) = &cgroup {
            // "0" means the writing process.
            nix::unistd::write(procs, b"0").map_err(std::io::Error::from)?;
        }
        if let Some(value) = oom_score_adj {
            let file = nix::fcntl::open(
                c"/proc/self/oom_score_adj",
                nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC,
                nix::sys::stat::Mode::empty(),
            )
            .map_err(std::io::Error::from)?;
            nix::unistd::write(&file, value.as_bytes()).map_err(std::io::Error::from)?;
        }
        Ok(())
    };
    // SAFETY: the closure runs in the child between fork and exec. It makes system calls only
    // (setsid, sigprocmask, write, openat with a constant C string, close), neither allocates nor
    // locks, and everything it refers to is owned by it.
    unsafe { command.pre_exec(setup) }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn the_child_leads_a_session_and_has_no_signal_blocked() {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.thread_block().unwrap();
        let mut command = Command::new("cat");
        command
            .args(["/proc/self/status", "/proc/self/stat"])
            .args(["/proc/self/oom_score_adj"])
            .stdout(Stdio::piped());
        let child = prepare(&mut command, None, Some("500")).spawn().unwrap();
        let pid = child.id().to_string();
        let output = child.wait_with_output().unwrap();
        mask.thread_unblock().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
        // Behind the name in brackets: state, parent, process group, session.
        let stat = text.lines().find(|line| line.starts_with(&pid)).unwrap();
        let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3);
        assert_eq!(session, Some(pid.as_str()));
        assert_eq!(text.lines().last(), Some("500"));
    }
}

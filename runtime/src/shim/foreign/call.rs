//! One call of another runtime's command line.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use keelson_shim_protocol::FailReason;
use serde::Deserialize;

use crate::failure::{Failure, Step};
use crate::process::signals;

/// How many bytes are read from the end of a runtime's log.
const LOG: u64 = 64 << 10;
/// The pause between two checks whether a call has ended.
const INTERVAL: Duration = Duration::from_millis(2);

/// A running call.
#[derive(Debug)]
pub(crate) struct Call {
    child: Child,
    log: PathBuf,
    /// The name of the command, for messages.
    what: &'static str,
    deadline: Instant,
}

impl Call {
    /// Executes a runtime's command. `log`: where it writes its messages.
    pub(super) fn start(
        mut command: Command,
        what: &'static str,
        log: PathBuf,
        limit: Duration,
    ) -> Result<Self, Failure> {
        // SAFETY: this program never starts a thread, so the copy may do anything.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                // A child inherits the mask, and the shim's mask blocks all signals.
                signals::reset().map_err(|failure| std::io::Error::other(failure.message))
            });
        }
        let program = PathBuf::from(command.get_program());
        let child = command
            .spawn()
            .step(|| format!("execute the runtime {}", program.display()))?;
        Ok(Self {
            child,
            log,
            what,
            deadline: Instant::now() + limit,
        })
    }

    /// The process. The caller must reap it.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The deadline.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Kills it. It is reaped as if it had ended by itself.
    pub(crate) fn give_up(&mut self) {
        let _ = self.child.kill();
    }

    /// Waits for its end, and reaps it.
    pub(crate) fn wait(mut self) -> Result<(), Failure> {
        let step = || "wait for the runtime";
        let status = loop {
            if let Some(status) = self.child.try_wait().step(step)? {
                break status;
            }
            if Instant::now() >= self.deadline {
                self.give_up();
                break self.child.wait().step(step)?;
            }
            std::thread::sleep(INTERVAL);
        };
        self.outcome(code_of(status))
    }

    /// Its result, if it has ended with this code.
    pub(crate) fn outcome(self, code: i32) -> Result<(), Failure> {
        let said = tail(&self.log).ok().and_then(|text| last_error(&text));
        let _ = std::fs::remove_file(&self.log);
        match (code, said) {
            (0, _) => Ok(()),
            (_, Some(said)) => Err(classified(&said)),
            (code, None) if Instant::now() >= self.deadline => Err(Failure::internal(format!(
                "the runtime's {} did not end in time (exit code {code})",
                self.what
            ))),
            (code, None) => Err(Failure::internal(format!(
                "the runtime's {} ended with exit code {code} and said nothing",
                self.what
            ))),
        }
    }
}

/// A command of a runtime whose standard streams lead nowhere.
pub(super) fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Not hostd's environment: runtimes interpret variables such as NOTIFY_SOCKET.
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or(-1)
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    std::io::Seek::seek(
        &mut file,
        std::io::SeekFrom::Start(length.saturating_sub(LOG)),
    )?;
    let mut bytes = Vec::new();
    file.take(LOG).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last error in a log of JSON lines, as runc, crun and others write it.
fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }

    let lines = log.lines().rev();
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let error = lines.find(|line| matches!(line.level.as_str(), "error" | "fatal"))?;
    Some(error.msg.chars().take(1024).collect())
}

/// A failure from a runtime's message. Engines and clients look for these words in lower case.
fn classified(said: &str) -> Failure {
    const MISSING: &str = "executable file not found in $PATH";
    const NO_FILE: &str = "no such file or directory";
    const DENIED: &str = "permission denied";
    let small = said.to_ascii_lowercase();
    let is_missing = small.contains("executable file") && small.contains("not found");
    let (reason, words) = match () {
        () if is_missing => (FailReason::NotFound, MISSING),
        () if small.contains(NO_FILE) => (FailReason::NotFound, NO_FILE),
        () if small.contains(DENIED) => (FailReason::NotExecutable, DENIED),
        () if small.contains("is a directory") => (FailReason::NotExecutable, DENIED),
        () => return Failure::internal(said),
    };
    match said.contains(words) {
        true => Failure::command(reason, said),
        false => Failure::command(reason, format!("{said}: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_counts() {
        let log = "{\"msg\":\"a\",\"level\":\"error\",\"time\":\"x\"}\n\
            {\"msg\":\"b\",\"level\":\"error\"}\n{\"msg\":\"c\",\"level\":\"warning\"}\nnot json\n";
        assert_eq!(last_error(log).as_deref(), Some("b"));
        assert_eq!(last_error("text\n{}"), None);
    }

    #[test]
    fn messages_of_runtimes_are_classified() {
        let reason = |said: &str| classified(said).reason;
        let missing = "executable file `x` not found in $PATH: No such file or directory";
        assert_eq!(reason(missing), FailReason::NotFound);
        let told = classified(missing).message;
        assert!(
            told.contains("executable file not found in $PATH"),
            "{told}"
        );
        let of_runc = "exec: \"x\": executable file not found in $PATH";
        assert_eq!(classified(of_runc).message, of_runc);
        let denied = classified("open `/etc/x`: Permission denied");
        assert_eq!(denied.reason, FailReason::NotExecutable);
        assert!(denied.message.ends_with(": permission denied"));
        assert_eq!(reason("cannot set up cgroups"), FailReason::Internal);
    }

    #[test]
    fn calls_that_hang_are_killed() {
        let call = |script: &str, limit| {
            let mut command = quiet(Path::new("/bin/sh"));
            command.args(["-c", script]);
            let log = PathBuf::from("/nonexistent/log");
            Call::start(command, "test", log, limit).unwrap().wait()
        };
        let long = Duration::from_secs(60);
        assert!(call("exit 0", long).is_ok());
        let failed = call("exit 3", long).unwrap_err().message;
        assert!(failed.contains("exit code 3"), "{failed}");
        let slow = call("exec sleep 1000", Duration::from_millis(20));
        let slow = slow.unwrap_err().message;
        assert!(slow.contains("did not end in time"), "{slow}");
    }
}

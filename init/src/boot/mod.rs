//! Stage 2 up to the point where supervision begins.
//!
//! Everything here is single-threaded; what takes long and depends on nothing (loading the
//! devices' modules) runs in a child process meanwhile. No step can end the boot: a machine that
//! is useful without it goes on, and says so.

mod cgroups;
mod clock;
pub(crate) mod handover;
mod identity;
mod mounts;
pub(crate) mod seed;
mod skeleton;
mod steps;
mod sysctl;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use cgroups::ROOT as CGROUP_ROOT;
pub(crate) use steps::Steps;

use crate::cmdline::CommandLine;
use crate::{console, modules};

/// How long the boot waits for the modules of the devices present. A driver that takes longer goes
/// on in the background.
const MODULES_LIMIT: Duration = Duration::from_secs(30);

/// Open files of a process: few by default because select(2) can't take more, many for whoever
/// raises its own limit.
const OPEN_FILES: (u64, u64) = (1024, 1 << 19);

/// What the boot leaves for the supervision.
pub(crate) struct Booted {
    /// The record.
    pub(crate) steps: Steps,
    /// Name of the deployment.
    pub(crate) deployment: Option<String>,
}

/// Brings the machine to the point where netcfg and hostd can start.
pub(crate) fn run() -> Booted {
    let started = console::uptime();
    let mut steps = Steps::default();
    let mount_problems = mounts::mount_all();
    let command_line = CommandLine::read();
    console::prepare(&command_line);
    let stage1 = handover::read();
    let deployment = stage1.as_ref().and_then(|stage1| stage1.deployment.clone());
    let name = deployment.as_deref().unwrap_or("none");
    console::say(&format!(
        "init started at {started:.3} s (deployment {name})"
    ));
    if let Some(stage1) = &stage1 {
        steps.record("stage1", stage1.started, stage1.ended, &stage1.problems);
    }
    steps.end("mounts", started, mount_problems);
    // First of all, because it tells the kernel how to get modules.
    steps.run("sysctls", sysctl::apply);
    let modules_started = console::uptime();
    let helper = start_module_helper();
    steps.run("cgroups", cgroups::set_up);
    steps.run("folders", || skeleton::make(Path::new("/")));
    steps.run("random-seed", || seed::restore(Path::new(seed::FILE)));
    steps.run("clock", || match clock::advance() {
        Ok(note) => {
            if let Some(note) = note {
                console::say(&note);
            }
            Vec::new()
        }
        Err(problem) => vec![problem],
    });
    steps.run("machine-id", || {
        identity::ensure_machine_id(Path::new("/etc/machine-id"))
    });
    steps.run("limits", || {
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.0, OPEN_FILES.1)
            .err()
            .map(|error| format!("setrlimit NOFILE: {error}"))
            .into_iter()
            .collect()
    });
    // The configuration may come through a device (QEMU's fw_cfg) that needs its module.
    let problems = match helper {
        Ok(child) => await_helper(child),
        Err(problem) => vec![problem],
    };
    steps.end("modules", modules_started, problems);
    steps.run("config", || {
        let loaded = keelson_config::load(&keelson_config::Sources::machine());
        let mut problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
        problems.extend(identity::set_hostname(loaded.config.hostname.as_deref()));
        problems
    });
    Booted { steps, deployment }
}

fn start_module_helper() -> Result<Child, String> {
    Command::new(crate::PROGRAM)
        .arg(modules::HELPER_COLDPLUG)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("execute {} coldplug: {error}", crate::PROGRAM))
}

/// Waits for the helper without being caught by one that hangs in a driver.
fn await_helper(mut child: Child) -> Vec<String> {
    let pidfd = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(pidfd) = &pidfd {
        let mut descriptors = [PollFd::new(
            std::os::fd::AsFd::as_fd(pidfd),
            PollFlags::POLLIN,
        )];
        let timeout = PollTimeout::try_from(MODULES_LIMIT).unwrap_or(PollTimeout::MAX);
        if matches!(poll(&mut descriptors, timeout), Ok(0)) {
            // The supervision reaps it, whenever that is.
            return vec![format!(
                "loading did not end within {} s; it goes on in the background",
                MODULES_LIMIT.as_secs()
            )];
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Vec::new(),
        Ok(status) => vec![format!(
            "some modules failed to load ({status}); see the log"
        )],
        Err(error) => vec![format!("wait for the module helper: {error}")],
    }
}

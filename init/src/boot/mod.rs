//! Stage 2 up to the point where supervision begins.
//!
//! Everything here is single-threaded. Only the loading of the devices' modules, which takes long
//! and depends on nothing, runs in a child process at the same time. No step can end the boot: the
//! machine may be useful without it, so the boot continues and reports the failure.

mod cgroups;
pub(crate) mod clock;
mod configuration;
pub(crate) mod handover;
mod identity;
mod mounts;
pub(crate) mod program;
pub(crate) mod provision;
pub(crate) mod sameness;
pub(crate) mod seed;
mod skeleton;
mod steps;
pub(crate) mod storage;
pub(crate) mod swap;
mod sysctl;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use keelson_model::host::MachineConfig;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};

pub(crate) use cgroups::ROOT as CGROUP_ROOT;
pub(crate) use steps::Steps;

use crate::cmdline::CommandLine;
use crate::uevent::UeventSocket;
use crate::{console, modules};

/// How long the boot waits for the modules that its configuration may need.
const MODULES_LIMIT: Duration = Duration::from_secs(30);

/// Open files of a process, soft and hard limit: few by default, because select(2) supports no
/// more; many for programs that raise their own limit.
const OPEN_FILES: (u64, u64) = (1024, 1 << 19);

/// What the boot passes on to the supervision.
pub(crate) struct Booted {
    /// The record.
    pub(crate) steps: Steps,
    /// Name of the deployment.
    pub(crate) deployment: Option<String>,
    /// Events of devices, since before they were first examined.
    pub(crate) uevents: Option<UeventSocket>,
    /// The time-out of the hardware watchdog that the configuration wants, in seconds.
    pub(crate) watchdog: Option<u32>,
    /// The process that still loads modules, and when it was started.
    pub(crate) coldplug: Option<(i32, f64)>,
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
    // First, because it sets the program by which the kernel loads modules.
    steps.run("sysctls", || sysctl::apply(&command_line));
    let uevents = match UeventSocket::open() {
        Ok(socket) => Some(socket),
        Err(error) => {
            steps.end("uevents", console::uptime(), vec![error.to_string()]);
            None
        }
    };
    let modules_started = console::uptime();
    let helper = start_module_helper();
    steps.run("cgroups", cgroups::set_up);
    steps.run("directories", || skeleton::make(Path::new("/")));
    // Before any part of the identity is used.
    steps.run("identity", || sameness::check(Path::new("/")));
    steps.run("random-seed", || seed::restore(Path::new(seed::FILE)));
    steps.run("clock", || match clock::correct() {
        Ok(note) => {
            if let Some(note) = note {
                console::say(&note);
            }
            Vec::new()
        }
        Err(error) => vec![format!("set clock: {error}")],
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
    let coldplug = match helper {
        Ok(mut child) => {
            let problems = await_configuration_modules(child.stdout.take());
            steps.end("configuration-modules", modules_started, problems);
            i32::try_from(child.id())
                .ok()
                .map(|pid| (pid, modules_started))
        }
        Err(error) => {
            let problem = format!("execute {} coldplug: {error}", crate::PROGRAM);
            steps.end("modules", modules_started, vec![problem]);
            None
        }
    };
    // A layer of the configuration.
    steps.run("provision", provision::local);
    let mut config = MachineConfig::default();
    steps.run("config", || {
        let problems;
        (config, problems) = configuration::apply();
        problems
    });
    // Before anything that stores its data there is started.
    steps.run("storage", || {
        configuration::apply_storage(&command_line, &config)
    });
    Booted {
        watchdog: config.watchdog.timeout,
        steps,
        deployment,
        uevents,
        coldplug,
    }
}

fn start_module_helper() -> io::Result<Child> {
    Command::new(crate::PROGRAM)
        .arg(modules::HELPER_COLDPLUG)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Waits until the helper reports that the modules for the configuration are loaded, or ends. The
/// wait is limited, because the helper may hang in a driver. The supervision reaps it.
fn await_configuration_modules(output: Option<ChildStdout>) -> Vec<String> {
    let Some(output) = output else {
        return Vec::new();
    };
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(MODULES_LIMIT).unwrap_or(PollTimeout::MAX);
    if matches!(poll(&mut descriptors, timeout), Ok(0)) {
        return vec![format!(
            "loading did not finish within {} s; it continues in the background",
            MODULES_LIMIT.as_secs()
        )];
    }
    Vec::new()
}

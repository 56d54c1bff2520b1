//! Stage 1: from the initramfs to the deployment.

mod block;
mod deployment;
mod device;
mod firmware;
mod root;
mod switch;

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::system::RebootCommand;
use sys_mount::MountFlags;

use crate::boot::handover::{self, Handover};
use crate::cmdline::CommandLine;
use crate::disk::check::{self, Verdict};
use crate::disk::grow;
use crate::modules::{ModuleOptions, insert_file};
use crate::mount::{self, MountError};
use crate::uevent::UeventSocket;
use crate::{console, emergency};

/// Modules that the initrd always loads: one absolute path per line, in order of loading.
const MODULE_LIST: &str = "/modules.list";
/// Where the root file system is mounted.
const SYSROOT: &str = "/sysroot";
/// How long to wait for the root device unless `keelson.root_timeout=` (seconds) says otherwise.
const ROOT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why stage 1 could not go on.
#[derive(Debug, thiserror::Error)]
enum Stage1Error {
    #[error("kernel command line: {0}")]
    CommandLine(String),
    #[error("device events: {0}")]
    Events(#[source] std::io::Error),
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    #[error(transparent)]
    Check(#[from] check::CheckError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Deployment(#[from] deployment::DeploymentError),
    #[error(transparent)]
    Switch(#[from] switch::SwitchError),
}

/// Runs stage 1. It ends by executing stage 2, or with the emergency behaviour.
pub(crate) fn run() -> ! {
    let started = console::uptime();
    let mut problems = Vec::new();
    for (kind, target, flags, options) in [
        ("proc", "/proc", mount::DATA_ONLY, ""),
        ("sysfs", "/sys", mount::DATA_ONLY, ""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, mount::DEV_OPTIONS),
        (
            "tmpfs",
            "/run",
            MountFlags::NOSUID | MountFlags::NODEV,
            mount::RUN_OPTIONS,
        ),
    ] {
        let target = Path::new(target);
        let made = fs::create_dir_all(target);
        if let Err(error) = mount::mount(kind, kind, target, flags, options) {
            problems.push(match made {
                Ok(()) => error.to_string(),
                Err(cause) => format!("create {}: {cause}", target.display()),
            });
        }
    }
    let command_line = CommandLine::read();
    console::prepare(&command_line);
    console::say(&format!("stage1 at {started:.3} s"));
    for problem in &problems {
        console::warning(problem);
    }
    let Err(error) = boot(&command_line, started, problems);
    console::error(&format!("stage 1: {error}"));
    emergency::end(&command_line)
}

fn boot(
    command_line: &CommandLine,
    started: f64,
    mut problems: Vec<String>,
) -> Result<Infallible, Stage1Error> {
    let missing = |what: &str| Stage1Error::CommandLine(what.to_owned());
    let named = command_line.value("root").ok_or_else(|| {
        missing("root= is missing; name the root file system, e.g. root=PARTLABEL=root")
    })?;
    let spec = root::RootSpec::parse(named).ok_or_else(|| {
        missing(&format!(
            "root={named} is none of PARTLABEL=, PARTUUID=, LABEL=, UUID= and /dev/NAME"
        ))
    })?;
    let request = command_line
        .value("ostree")
        .ok_or_else(|| missing("ostree= is missing; name the deployment to boot"))?;

    // The kernel asks for modules by itself, too (checksums, character sets); this program finds
    // them. Stage 2 sets its own path.
    let _ = fs::write("/proc/sys/kernel/modprobe", "/init");
    // Before the modules are loaded, so that events of the devices that they find are received.
    let events = UeventSocket::open().map_err(Stage1Error::Events)?;
    load_listed_modules(command_line, &mut problems);
    let limit = match command_line.value("keelson.root_timeout") {
        Some(text) => text.parse().map(Duration::from_secs).map_err(|_| {
            missing(&format!(
                "keelson.root_timeout={text} is not a number of seconds"
            ))
        })?,
        None => ROOT_TIMEOUT,
    };
    let mut drivers = device::Drivers::new(command_line);
    let device = device::wait_for(&spec, named, &events, &mut drivers, limit)?;

    let sys = Path::new("/sys");
    match grow::grow_partition(sys, &device) {
        Ok(Some(size)) => console::say(&format!("partition {device} grown to {}", mib(size))),
        Ok(None) => {}
        Err(error) => note(&mut problems, format!("grow partition: {error}")),
    }
    check_root(command_line, &device, &mut problems)?;
    mount_root(command_line, &device)?;
    let sysroot = Path::new(SYSROOT);
    match grow::grow_file_system(sys, &device, sysroot) {
        Ok(Some((from, to))) => console::say(&format!(
            "file system on {device} grown from {} to {}",
            mib(from),
            mib(to)
        )),
        Ok(None) => {}
        Err(error) => note(&mut problems, format!("grow file system: {error}")),
    }
    let deployment = deployment::resolve(sysroot, request)?;
    switch::prepare(sysroot, &deployment)?;
    let handover = Handover {
        deployment: Some(deployment.name),
        started,
        ended: console::uptime(),
        problems,
    };
    if let Err(error) = handover::write(&handover) {
        console::warning(&format!("write {}: {error}", handover::FILE));
    }
    Ok(switch::switch(sysroot)?)
}

/// Loads the modules that the initrd names. One that fails is a problem only if the root device
/// does not appear.
fn load_listed_modules(command_line: &CommandLine, problems: &mut Vec<String>) {
    let list = fs::read_to_string(MODULE_LIST).unwrap_or_default();
    let options = ModuleOptions::of(command_line.clone());
    for line in list.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Err(error) = insert_file(&PathBuf::from(line), &options) {
            note(problems, error.to_string());
        }
    }
}

/// Prints a problem that does not stop the boot, and keeps it for the boot's record.
fn note(problems: &mut Vec<String>, problem: String) {
    console::warning(&problem);
    problems.push(problem);
}

/// Lets e2fsck look at the root file system if its superblock asks for that.
fn check_root(
    command_line: &CommandLine,
    device: &str,
    problems: &mut Vec<String>,
) -> Result<(), check::CheckError> {
    let complaint = match grow::superblock(&Path::new("/dev").join(device)) {
        Ok(Some(superblock)) => superblock.complaint,
        // Another type of file system, which checks itself when it is mounted.
        Ok(None) => return Ok(()),
        Err(error) => {
            note(problems, format!("check file system: {error}"));
            return Ok(());
        }
    };
    match check::check(command_line, device, complaint)? {
        Verdict::Mount => Ok(()),
        Verdict::Reboot => {
            console::warning("the check of the root file system asks for a restart");
            emergency::now(RebootCommand::Restart)
        }
    }
}

/// Mounting replays the journal: after a power failure no separate check is needed.
fn mount_root(command_line: &CommandLine, device: &str) -> Result<(), MountError> {
    let kind = command_line.value("rootfstype").unwrap_or("ext4");
    let options = command_line.value("rootflags").unwrap_or_default();
    let node = format!("/dev/{device}");
    // A directory that can't be made shows as the mount's error.
    let _ = fs::create_dir_all(SYSROOT);
    // Reading must not cause writes: nobody needs access times of container files.
    let flags = MountFlags::NOATIME;
    mount::mount(kind, &node, Path::new(SYSROOT), flags, options)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

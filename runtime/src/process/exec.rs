//! An additional process in a running container: `exec`.
//!
//! The parent enters the container's pid namespace for its children only, makes the child inside
//! the container's cgroup, and leaves the namespace again. The child closes every descriptor that
//! is not for it, and enters the other namespaces with one setns(2) on the container's pidfd. Its
//! further steps are those of a container's first process. Steps that need the host (limits, the
//! OOM score) come before it enters.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use keelson_shim_protocol::OciStatus;
use keelson_sys::clone::{self, CloneRequest, Cloned};
use keelson_sys::sandbox;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::channel::Channel;
use super::command::{self, Command};
use super::confinement::{self, Asked, Confinement};
use super::pid_namespace::PidNamespace;
use super::stat::Stat;
use super::{capabilities, child, labels, limits, scheduling, settings, signals};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::sandbox::devices::Terminal;
use crate::sandbox::null::{NullStreams, Replacement};
use crate::sandbox::userns;
use crate::sandbox::{descriptors, namespaces, paths, procfs, shared};
use crate::seccomp;
use crate::spec::Process;

/// The process to execute, and the container to execute it in.
pub(crate) struct ExecRequest<'a> {
    /// The same settings as for a container's first process. The seccomp filter and the execution
    /// domain come from the container's specification.
    pub(crate) common: Asked<'a>,
    /// The process.
    pub(crate) process: &'a Process,
    /// The container that it joins.
    pub(crate) target: Target<'a>,
}

/// A running container.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// Its first process.
    pub(crate) pid: i32,
    /// The process's descriptor (pidfd).
    pub(crate) pidfd: BorrowedFd<'a>,
    /// Its cgroup.
    pub(crate) cgroup: Option<&'a Cgroup>,
}

/// A process that has not executed its command yet. Its channel sends `Ready` (with the terminal,
/// if it has one), then `Failed`, or `Closed` when the command was executed.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// The process's number on the host.
    pub(crate) pid: i32,
    /// The same, as a descriptor.
    pub(crate) pidfd: OwnedFd,
    /// The channel that it reports on.
    pub(crate) channel: Channel,
}

/// Whether a process whose channel is closed has executed its command; it may have been killed
/// before. The process must not be reaped yet.
pub(crate) fn check_executed(pid: i32) -> Result<(), Failure> {
    match Stat::of(pid) {
        Some(stat) if !stat.never_executed => Ok(()),
        _ => Err(Failure::internal(format!(
            "process {pid} was killed before its command was executed"
        ))),
    }
}

/// Makes the process and returns at once. The child's steps depend on the container, which may be
/// frozen or have a hanging file system; its parent must not wait for that.
pub(crate) fn spawn(request: ExecRequest<'_>) -> Result<Spawned, Failure> {
    let (spec, process) = (request.common.spec, request.process);
    settings::check_process(process)?;
    labels::check(process)?;
    let filter = seccomp::filter_of(spec).map_err(|error| Failure::invalid(error.to_string()))?;
    let root = root_of(&request)?;
    let joined = namespaces_of(request.target.pid, root.is_none())?;
    let own_users = joined.contains(CloneFlags::CLONE_NEWUSER);
    let capabilities = capabilities::parse(process.capabilities.as_ref(), own_users)?;
    let (parent, child) = Channel::pair()?;
    let (id, target) = (request.common.id, request.target);
    let plan = Confinement::new(request.common, process, capabilities, filter, false)?;
    let inside = Inside {
        container: target.pidfd,
        first: target.pid,
        root,
        namespaces: joined - CloneFlags::CLONE_NEWPID,
    };
    let entered = match PidNamespace::enter(target.pidfd) {
        Err(_) if is_gone(target.pidfd) => return Err(not_running(id)),
        other => other?,
    };
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let cloned = match unsafe { clone_inside(id, target) } {
        Ok(Cloned::Child) => run(&plan, &inside, &child),
        Ok(Cloned::Parent { pid, pidfd }) => Ok((pid, pidfd)),
        Err(failure) => Err(failure),
    };
    let left = entered.leave(true);
    let (pid, pidfd) = cloned?;
    if let Err(failure) = left {
        let _ = clone::signal_process(pidfd.as_fd(), libc::SIGKILL);
        return Err(failure);
    }
    Ok(Spawned {
        pid,
        pidfd,
        channel: parent,
    })
}

fn not_running(id: &str) -> Failure {
    Failure::conflict(format!("container {id} is not running"))
}

/// The kinds of namespaces, by their names in procfs.
const KINDS: [(&str, CloneFlags); 8] = [
    (USER, CloneFlags::CLONE_NEWUSER),
    (MOUNT, CloneFlags::CLONE_NEWNS),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("time", namespaces::CLONE_NEWTIME),
];
const USER: &str = "user";
const MOUNT: &str = "mnt";

/// The kinds of namespaces to join: all, but not the user namespace if it is this process's own:
/// that can't be joined again. Others may be shared, too, but joining one's own namespace of those
/// kinds changes nothing.
fn namespaces_of(pid: i32, needs_own_mounts: bool) -> Result<CloneFlags, Failure> {
    let number = |owner: &str, name: &str| {
        let path = format!("/proc/{owner}/ns/{name}");
        match rustix::fs::stat(&path) {
            Ok(status) => Ok(Some((status.st_dev, status.st_ino))),
            // A kind that this kernel was built without.
            Err(rustix::io::Errno::NOENT) if owner == "self" => Ok(None),
            Err(error) => Err(error).step(|| format!("examine {path}")),
        }
    };
    let owner = pid.to_string();
    let is_foreign = |name| -> Result<bool, Failure> {
        let own = number("self", name)?;
        Ok(own.is_some() && own != number(&owner, name)?)
    };
    if needs_own_mounts && !is_foreign(MOUNT)? {
        return Err(Failure::internal(format!(
            "process {pid} has no mount namespace of its own: not a container's"
        )));
    }
    let mut joined = KINDS
        .iter()
        .fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
    if userns::is_restricted() {
        // The container shares the machine's own namespaces, and these can't be joined.
        for (name, flag) in KINDS {
            joined.set(flag, is_foreign(name)?);
        }
    }
    joined.set(CloneFlags::CLONE_NEWUSER, is_foreign(USER)?);
    Ok(joined)
}

/// The root of a container that shares its mount namespace: joining the namespace does not lead to
/// that root.
fn root_of(request: &ExecRequest<'_>) -> Result<Option<OwnedFd>, Failure> {
    if !shared::is_shared(request.common.spec) {
        return Ok(None);
    }
    open_root(request.common.id, request.target.pid, request.target.pidfd).map(Some)
}

fn open_root(id: &str, pid: i32, pidfd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&path, flags, Mode::empty());
    // Only now is it certain that the root was this process's.
    match is_gone(pidfd) {
        true => Err(not_running(id)),
        false => root.step(|| format!("open {path}")),
    }
}

/// Finds a replacement for standard streams that are the host's null device. Works only while the
/// host's files are in reach.
fn replace_null(
    plan: &Confinement<'_>,
    inside: &Inside<'_>,
) -> Result<Option<Replacement>, Failure> {
    let Some(streams) = NullStreams::find(plan.stdio.as_ref()) else {
        return Ok(None);
    };
    let opened;
    let root = match &inside.root {
        Some(root) => root,
        None => {
            opened = open_root(plan.id, inside.first, inside.container)?;
            &opened
        }
    };
    streams.open(root).map(Some)
}

/// The kinds of namespaces that this kernel has, of those given.
fn known(kinds: CloneFlags) -> CloneFlags {
    let exists = |name: &str| rustix::fs::stat(format!("/proc/self/ns/{name}")).is_ok();
    let unknown = KINDS
        .iter()
        .filter(|(name, flag)| kinds.contains(*flag) && !exists(name));
    unknown.fold(kinds, |left, (_, flag)| left - *flag)
}

/// Makes the child, inside the container's cgroup.
///
/// # Safety
/// The process must have no other thread.
#[allow(unsafe_code)]
unsafe fn clone_inside(id: &str, target: Target<'_>) -> Result<Cloned, Failure> {
    let attempt = |cgroup: Option<&Cgroup>| {
        // SAFETY: the caller's promise.
        unsafe {
            clone::clone3(&CloneRequest {
                namespaces: 0,
                cgroup: cgroup.map(Cgroup::directory),
                sibling: false,
            })
        }
    };
    let step = || "clone3 the process";
    match attempt(target.cgroup) {
        // The container has made cgroups below its own. A cgroup with such children can't have
        // processes itself, so use the one of the container's first process.
        Err(Errno::EBUSY) => {
            let text = std::fs::read_to_string(format!("/proc/{}/cgroup", target.pid))
                .step(|| "find the cgroup of the container's process")?;
            let path = text.lines().find_map(|line| line.strip_prefix("0::"));
            let cgroup = Cgroup::open(path.unwrap_or("/"))?;
            attempt(Some(&cgroup)).step(step)
        }
        // The first process of the pid namespace is ending.
        Err(Errno::ENOMEM) if is_gone(target.pidfd) => Err(not_running(id)),
        other => other.step(step),
    }
}

fn is_gone(process: BorrowedFd<'_>) -> bool {
    clone::signal_process(process, 0) == Err(Errno::ESRCH)
}

/// What the child enters.
struct Inside<'a> {
    container: BorrowedFd<'a>,
    /// The container's first process.
    first: i32,
    /// Its root, if joining the namespaces doesn't lead there.
    root: Option<OwnedFd>,
    namespaces: CloneFlags,
}

/// Runs in the child and never returns.
fn run(plan: &Confinement<'_>, inside: &Inside<'_>, channel: &Channel) -> ! {
    let failure = match set_up(plan, inside, channel) {
        Ok((command, message)) => match confinement::confine(plan, message.as_deref()) {
            Ok(()) => command.execute(),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    channel.failed(&failure);
    clone::exit_now(failure.exit_code())
}

fn set_up(
    plan: &Confinement<'_>,
    inside: &Inside<'_>,
    channel: &Channel,
) -> Result<(Command, Option<Vec<u8>>), Failure> {
    let process = plan.process;
    close_others(plan, inside, channel)?;
    signals::reset()?;
    // Before the container can see the process: until the command is executed, its memory and its
    // descriptors are the runtime's.
    sandbox::set_undumpable().step(|| "hide the process from the container")?;
    plan.keeper.bind()?;
    if plan.keeper.is_parent() && channel.is_abandoned() {
        clone::exit_now(1);
    }
    nix::unistd::setsid().step(|| "start a session")?;
    limits::set_limits(&process.rlimits)?;
    on_host(process)?;
    if let Some(personality) = &plan.spec.linux.personality {
        limits::set_personality(personality)?;
    }
    if process.exec_cpu_affinity.is_none() {
        scheduling::reset_affinity();
    }
    scheduling::set(process)?;
    scheduling::set_affinity(process, false)?;
    let own_users = inside.namespaces.contains(CloneFlags::CLONE_NEWUSER);
    if own_users {
        confinement::own_streams_outside(plan);
        confinement::set_groups(plan, &[]).step(|| "give up the runtime's groups")?;
    }

    let null = match process.terminal {
        true => None,
        false => replace_null(plan, inside)?,
    };
    let message = match &plan.agent {
        Some(agent) => {
            let state = plan.subject().state(OciStatus::Running, inside.first);
            Some(agent.message(state, child::outer_pid()?))
        }
        None => None,
    };
    let joined = match setns(inside.container, inside.namespaces) {
        Err(Errno::EINVAL) => setns(inside.container, known(inside.namespaces)),
        other => other,
    };
    match joined {
        Err(Errno::ESRCH) => Err(not_running(plan.id)),
        other => other.step(|| "join the container's namespaces"),
    }?;
    if let Some(root) = &inside.root {
        rustix::process::fchdir(root)
            .and_then(|()| rustix::process::chroot("."))
            .step(|| "change to the container's root")?;
    }
    if own_users {
        userns::become_root()?;
    }
    confinement::join_keyring(plan.id)?;
    let terminal = match process.terminal {
        true => Some(open_terminal(process.user.uid)?),
        false => None,
    };
    confinement::connect_standard(plan, terminal.as_ref(), process)?;
    null.map_or(Ok(()), Replacement::connect)?;
    confinement::become_user(plan)?;
    let command = command::prepare(process)?;
    clone::close_on_exec_from(3 + plan.preserved).step(|| "mark descriptors close-on-exec")?;
    scheduling::set_affinity(process, true)?;
    if let Some(terminal) = &terminal {
        channel.ready(Some(terminal.master.as_fd()))?;
    }
    Ok((command, message))
}

/// Writes the settings that go to the host's procfs: the container can't have changed that.
fn on_host(process: &Process) -> Result<(), Failure> {
    if process.oom_score_adj.is_none() && !labels::any(process) {
        return Ok(());
    }
    let proc = procfs::host()?;
    if let Some(score) = process.oom_score_adj {
        procfs::write_oom_score(proc.as_fd(), score)?;
    }
    labels::set(proc.as_fd(), "self", process)
}

/// Closes all descriptors that are not for the process. The container must not reach anything of
/// the host, through a working directory (CVE-2024-21626) or through procfs. Pipes of other
/// sessions would also stay open as long as this process runs.
fn close_others(
    plan: &Confinement<'_>,
    inside: &Inside<'_>,
    channel: &Channel,
) -> Result<(), Failure> {
    let mut kept: Vec<RawFd> = vec![inside.container.as_raw_fd(), channel.as_fd().as_raw_fd()];
    kept.extend(plan.agent.iter().map(AsRawFd::as_raw_fd));
    kept.extend(inside.root.iter().map(AsRawFd::as_raw_fd));
    kept.extend(plan.stdio.iter().flatten().map(AsRawFd::as_raw_fd));
    descriptors::close_others(3 + plan.preserved, &mut kept)
}

/// Makes a terminal in the container's own terminal file system. Called inside the container.
fn open_terminal(owner: u32) -> Result<Terminal, Failure> {
    const DEVPTS: u64 = 0x1cd1;
    let step = || "open a terminal in the container's /dev/pts";
    let root = paths::openat2(
        rustix::fs::CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY,
        Mode::empty(),
        ResolveFlags::empty(),
    )
    .step(step)?;
    let master = paths::openat2(
        &root,
        "dev/pts/ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
    .step(step)?;
    // The container may have replaced it.
    let status = rustix::fs::fstat(&master).step(step)?;
    let system = rustix::fs::fstatfs(&master).step(step)?;
    if system.f_type as u64 != DEVPTS
        || FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice
        || status.st_rdev != rustix::fs::makedev(5, 2)
    {
        return Err(Failure::internal(
            "process.terminal: /dev/pts/ptmx of the container is not a terminal multiplexer",
        ));
    }
    rustix::io::ioctl_fionbio(&master, false).step(step)?;
    Terminal::of(master, owner)
}

//! What a container's first process and an additional one have in common: their settings, and the
//! last steps before the command.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use keelson_shim_protocol::FailReason;
use keelson_sys::{sandbox, seccomp};
use nix::errno::Errno;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::capabilities;
use super::hooks::Subject;
use super::keeper::Keeper;
use super::notify::Agent;
use crate::failure::{Failure, Step};
use crate::sandbox::devices::Terminal;
use crate::sandbox::{paths, shared};
use crate::seccomp::Filter;
use crate::spec::{GROUPS_ANNOTATION, NamespaceKind, Process, Spec, mappings};

/// The caller's request for a process in a container, for the first one and for additional ones.
pub(crate) struct Asked<'a> {
    /// The container's identifier.
    pub(crate) id: &'a str,
    /// Its bundle, absolute.
    pub(crate) bundle: &'a Path,
    /// Its specification.
    pub(crate) spec: &'a Spec,
    /// Standard input, output and error, unless the process gets a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// Which program keeps the process.
    pub(crate) keeper: Keeper,
    /// Whether this program itself relays the process's terminal.
    pub(crate) relayed: bool,
    /// Descriptors from 3 on that the command inherits.
    pub(crate) preserved: u32,
}

/// The settings of a process, computed before the clone.
pub(crate) struct Confinement<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    pub(crate) capabilities: capabilities::Sets,
    pub(crate) filter: Option<Filter>,
    /// The agent that gets the filter's listener, if there is one.
    pub(crate) agent: Option<Agent>,
    /// Standard input, output and error. `None` with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    pub(crate) keeper: Keeper,
    /// Whether the process's user and group numbers are all 0 before they are set.
    pub(crate) is_root: bool,
    pub(crate) relayed: bool,
    pub(crate) preserved: u32,
    /// Whether the groups of the runtime's caller are kept, instead of those of config.json.
    keep_groups: bool,
}

impl<'a> Confinement<'a> {
    /// The requested process, with its compiled filter and its capabilities.
    pub(crate) fn new(
        asked: Asked<'a>,
        process: &'a Process,
        capabilities: capabilities::Sets,
        filter: Option<Filter>,
        is_root: bool,
    ) -> Result<Self, Failure> {
        Ok(Self {
            id: asked.id,
            bundle: asked.bundle,
            spec: asked.spec,
            process,
            capabilities,
            agent: Agent::connect(asked.spec, filter.as_ref())?,
            filter,
            stdio: asked.stdio,
            keep_groups: keeps_groups(asked.spec, asked.keeper),
            keeper: asked.keeper,
            is_root,
            relayed: asked.relayed,
            preserved: asked.preserved,
        })
    }

    /// What hooks and agents learn about the container.
    pub(crate) fn subject(&self) -> Subject<'a> {
        Subject::new(self.id, self.spec, self.bundle)
    }
}

/// Whether the caller's groups are kept. crun's annotation asks for it; Podman sets that for
/// `--group-add keep-groups`.
fn keeps_groups(spec: &Spec, keeper: Keeper) -> bool {
    let annotation = spec.annotations.get(GROUPS_ANNOTATION);
    keeper.has_groups_to_keep() && annotation.is_some_and(|value| value == "1")
}

/// Applies the last restrictions before the command is executed. `message` goes to the filter's
/// agent.
pub(super) fn confine(plan: &Confinement<'_>, message: Option<&[u8]>) -> Result<(), Failure> {
    if plan.process.no_new_privileges {
        sandbox::set_no_new_privileges().step(|| "process.noNewPrivileges: set")?;
    }
    if let Some(filter) = &plan.filter {
        // Before the capabilities are dropped: without no_new_privs this needs CAP_SYS_ADMIN.
        let listener = seccomp::install(&filter.program, filter.flags)
            .step(|| "linux.seccomp: install the filter")?;
        if let (Some(listener), Some(agent), Some(message)) = (listener, &plan.agent, message) {
            agent.send(message, listener.as_fd())?;
        }
    }
    capabilities::apply(&plan.capabilities)
}

/// Makes a keyring, so that the container does not share the keys of its caller.
pub(super) fn join_keyring(id: &str) -> Result<(), Failure> {
    let name = std::ffi::CString::new(format!("_ses.{id}"))
        .map_err(|_| Failure::invalid("the identifier contains a zero byte"))?;
    match sandbox::join_session_keyring(&name) {
        // A kernel without keyrings has no keys to protect.
        Err(Errno::ENOSYS) => Ok(()),
        other => other.step(|| "make a session keyring"),
    }
}

pub(super) fn connect_standard(
    plan: &Confinement<'_>,
    terminal: Option<&Terminal>,
    process: &Process,
) -> Result<(), Failure> {
    let step = || "connect the standard streams";
    if let Some(terminal) = terminal {
        sandbox::set_controlling_terminal(&terminal.slave)
            .step(|| "make the terminal the controlling one")?;
        if plan.relayed {
            keep_line_ends(&terminal.slave)?;
        }
        if let Some(size) = process.console_size {
            sandbox::set_terminal_size(&terminal.master, size.height, size.width)
                .step(|| "process.consoleSize: set")?;
        }
        for number in 0..3 {
            sandbox::set_standard(&terminal.slave, number).step(step)?;
        }
    } else {
        for (number, stream) in plan.stdio.iter().flatten().enumerate() {
            sandbox::set_standard(stream, number as i32).step(step)?;
        }
        if process.user.uid != 0 && plan.spec.namespace(NamespaceKind::User).is_none() {
            own_streams(plan, process.user.uid);
        }
    }
    Ok(())
}

/// As runc: line ends are passed on as they were written. The caller's terminal adds the carriage
/// returns that it needs; a file or a pipe needs none.
fn keep_line_ends(terminal: &OwnedFd) -> Result<(), Failure> {
    use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
    let step = || "prepare the terminal";
    let mut settings = tcgetattr(terminal).step(step)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(terminal, SetArg::TCSANOW, &settings).step(step)
}

/// Makes the user the owner of the pipes among the standard streams, so that /dev/stdout can be
/// opened again by name. Files, terminals and FIFOs with a name on the host keep their owner: they
/// would still belong to that user when the container is gone. Engines that want this do it
/// themselves.
fn own_streams(plan: &Confinement<'_>, owner: u32) {
    match &plan.stdio {
        Some(streams) => streams.iter().for_each(|stream| own_pipe(stream, owner)),
        None => {
            own_pipe(rustix::stdio::stdin(), owner);
            own_pipe(rustix::stdio::stdout(), owner);
            own_pipe(rustix::stdio::stderr(), owner);
        }
    }
}

fn own_pipe(stream: impl AsFd, owner: u32) {
    const PIPEFS: u64 = 0x5049_5045;
    let nameless = rustix::fs::fstatfs(&stream).is_ok_and(|found| found.f_type as u64 == PIPEFS);
    if nameless {
        // As runc: if the owner of a pipe is not mapped in this user namespace, the owner does not
        // change.
        let _ = rustix::fs::fchown(&stream, Some(rustix::fs::Uid::from_raw(owner)), None);
    }
}

/// The same, when the user has another number outside of the user namespace.
pub(super) fn own_streams_outside(plan: &Confinement<'_>) {
    let owner = mappings::outside(&plan.spec.linux.uid_mappings, plan.process.user.uid);
    if let Some(owner) = owner
        && !plan.process.terminal
    {
        own_streams(plan, owner);
    }
}

/// Changes to the working directory. It tries as the runtime first, because the path may lead
/// through directories that are closed to the user; then as the user, because some directories are
/// closed to root, for example on a network file system.
pub(super) fn become_user(plan: &Confinement<'_>) -> Result<(), Failure> {
    let directory = &plan.process.cwd;
    let denied = match change_directory(directory) {
        Err(Errno::EACCES | Errno::EPERM) => true,
        other => {
            other.map_err(|errno| not_changed(directory, errno))?;
            false
        }
    };
    change_user(plan)?;
    if denied {
        change_directory(directory).map_err(|errno| not_changed(directory, errno))?;
    }
    check_directory()
}

fn change_directory(directory: &str) -> Result<(), Errno> {
    // The process is in the root already.
    if directory == "/" {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let within = ResolveFlags::NO_MAGICLINKS;
    paths::openat2(rustix::fs::CWD, directory, flags, Mode::empty(), within)
        .and_then(rustix::process::fchdir)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// Engines derive the exit code from these words.
pub(super) fn not_changed(directory: &str, errno: Errno) -> Failure {
    let (reason, text) = match errno {
        Errno::ENOENT => (FailReason::NotFound, "no such file or directory"),
        Errno::ENOTDIR => (FailReason::NotExecutable, "not a directory"),
        Errno::EACCES | Errno::EPERM => (FailReason::NotExecutable, "permission denied"),
        other => (FailReason::NotExecutable, other.desc()),
    };
    Failure::command(
        reason,
        format!("process.cwd: chdir to cwd ({directory:?}) set in config.json failed: {text}"),
    )
}

/// Makes sure that the working directory is inside the container's root: a descriptor that leaked
/// in could lead outside (CVE-2024-21626).
fn check_directory() -> Result<(), Failure> {
    let path = rustix::process::getcwd(Vec::new()).step(|| "process.cwd: examine")?;
    // The kernel marks a directory that is not below the root as "(unreachable)".
    if !path.to_bytes().starts_with(b"/") {
        return Err(Failure::internal(
            "process.cwd: the working directory is outside the container",
        ));
    }
    Ok(())
}

/// Sets the process's groups, unless the caller's are kept.
pub(super) fn set_groups(plan: &Confinement<'_>, groups: &[u32]) -> Result<(), Errno> {
    match plan.keep_groups {
        true => Ok(()),
        false => sandbox::set_groups(groups),
    }
}

fn change_user(plan: &Confinement<'_>) -> Result<(), Failure> {
    let user = &plan.process.user;
    capabilities::limit_bounding(plan.capabilities.bounding)?;
    if user.uid != 0 {
        sandbox::keep_capabilities().step(|| "keep capabilities")?;
    }
    match set_groups(plan, &user.additional_gids) {
        // Groups can't be set in a user namespace whose creator forbade it. The host's groups were
        // dropped before the namespace was entered.
        Err(Errno::EPERM)
            if user.additional_gids.is_empty()
                && plan.spec.namespace(NamespaceKind::User).is_some() => {}
        other => other.step(|| "process.user.additionalGids: set groups")?,
    }
    if !(plan.is_root && user.uid == 0 && user.gid == 0) {
        sandbox::set_group(user.gid)
            .step(|| format!("process.user.gid: set group {}", user.gid))?;
        sandbox::set_user(user.uid).step(|| format!("process.user.uid: set user {}", user.uid))?;
        // The change of user cleared it.
        plan.keeper.bind()?;
    }
    let kept = plan.capabilities.process;
    // The capability was kept in the permitted set; to install the filter it must be effective.
    let admin = match plan.filter.is_some() && !plan.process.no_new_privileges {
        true => capabilities::SYS_ADMIN | capabilities::SETPCAP,
        // If a step fails from here on, the container's mounts are removed again.
        false if shared::is_shared(plan.spec) => capabilities::SYS_ADMIN,
        false => 0,
    };
    // The command is also searched with the capabilities that it is executed with.
    let effective = kept.effective | admin;
    if user.uid != 0 && effective != 0 {
        let until_exec = sandbox::CapabilitySets {
            effective,
            permitted: kept.permitted | effective,
            inheritable: kept.inheritable,
        };
        sandbox::set_capabilities(&until_exec).step(|| "process.capabilities: prepare")?;
    }
    rustix::process::umask(Mode::from_raw_mode(user.umask.unwrap_or(0o022)));
    Ok(())
}

//! The child's way from clone3 to the container's command.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use keelson_shim_protocol::{FailReason, Rootfs};
use keelson_sys::{clone, sandbox, seccomp};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::channel::Channel;
use super::command::{self, Command};
use super::hooks::{self, Subject};
use super::notify::Agent;
use super::{capabilities, labels, limits, scheduling};
use crate::failure::{Failure, Step};
use crate::sandbox::descriptors::put_off;
use crate::sandbox::devices::{self, Nodes, Terminal};
use crate::sandbox::hidden::Hider;
use crate::sandbox::mounts::{self, Sources};
use crate::sandbox::userns::{self, MountMaps};
use crate::sandbox::{descriptors, namespaces, null, paths, procfs, root, shared};
use crate::seccomp::Filter;
use crate::spec::{NamespaceKind, Process, Spec, mappings};

/// Everything that the child needs, computed before the clone.
pub(crate) struct Plan<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) process: &'a Process,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) propagation: root::Propagation,
    pub(crate) namespaces: namespaces::Plan,
    /// User namespaces of id-mapped mounts.
    pub(crate) maps: MountMaps,
    pub(crate) capabilities: capabilities::Sets,
    pub(crate) filter: Option<Filter>,
    /// Who gets the filter's listener, if it has one.
    pub(crate) agent: Option<Agent>,
    /// Standard input, output and error; not with a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// Whether the process dies with its parent, as it does under a shim.
    pub(crate) die_with_parent: bool,
    /// Whether its user and group numbers are all 0 before they are set.
    pub(crate) is_root: bool,
    /// Whether this program itself passes on what comes from the terminal.
    pub(crate) relayed: bool,
    /// Descriptors from 3 on that the command inherits.
    pub(crate) preserved: u32,
    pub(crate) own_keyring: bool,
    /// Whether the groups of whoever called the runtime are kept, in place of those of config.json.
    pub(crate) keep_groups: bool,
    /// Where to wait for the start: the channel, or a connection that this socket gets.
    pub(crate) start_socket: Option<OwnedFd>,
}

impl<'a> Plan<'a> {
    /// What its mounts depend on.
    pub(super) fn container(&self) -> mounts::Container<'a> {
        mounts::Container {
            cgroup: self.spec.linux.cgroups_path.as_deref(),
            root: match self.rootfs {
                Rootfs::Directory { path } => Some(path),
                Rootfs::Overlay { .. } => None,
            },
        }
    }
}

/// What was done for a child inside a user namespace by the process that made it.
pub(crate) struct Prepared<'a> {
    /// The root, attached nowhere yet.
    pub(crate) root: OwnedFd,
    pub(crate) sources: Sources<'a>,
    /// Mounts of the nodes of `linux.devices`, by their position.
    pub(crate) devices: Vec<(usize, OwnedFd)>,
}

/// Runs in the child and never returns.
pub(crate) fn run(plan: &Plan<'_>, prepared: Option<Prepared<'_>>, channel: &Channel) -> ! {
    let mut attached = None;
    let failure = match set_up(plan, prepared, channel, &mut attached) {
        Ok(ready) => match await_start(plan, channel) {
            Some(connection) => {
                let connection = connection.as_ref().unwrap_or(channel);
                let failure = finish(plan, &ready);
                connection.failed(&failure);
                failure
            }
            None => clone::exit_now(1),
        },
        Err(failure) => {
            if let Some(root) = &attached {
                shared::undo(root);
            }
            channel.failed(&failure);
            failure
        }
    };
    clone::exit_now(failure.exit_code())
}

/// Waits until the command may be executed. Some(None): over the channel; Some(Some): over a
/// connection of the start socket.
fn await_start(plan: &Plan<'_>, channel: &Channel) -> Option<Option<Channel>> {
    let Some(socket) = &plan.start_socket else {
        return channel.wait_for_start().then_some(None);
    };
    loop {
        let fd = rustix::net::accept_with(socket, rustix::net::SocketFlags::CLOEXEC).ok()?;
        let connection = Channel::from_fd(fd);
        // Somebody who only looked whether the socket answers goes away again.
        if connection.wait_for_start() {
            return Some(Some(connection));
        }
    }
}

/// What the last steps need.
struct Ready {
    command: Command,
    /// The container's procfs, when something of it is still to be set.
    proc: Option<OwnedFd>,
    /// The process's number outside, for hooks.
    outer_pid: i32,
}

fn set_up(
    plan: &Plan<'_>,
    prepared: Option<Prepared<'_>>,
    channel: &Channel,
    attached: &mut Option<OwnedFd>,
) -> Result<Ready, Failure> {
    let (spec, process) = (plan.spec, plan.process);
    let own_users = prepared.is_some();
    let own_mounts = !shared::is_shared(spec);
    reset_signals()?;
    if plan.die_with_parent {
        sandbox::die_with_parent().step(|| "bind the process's life to the shim's")?;
    }
    nix::unistd::setsid().step(|| "start a session")?;
    scheduling::reset_affinity();
    // In another mount namespace there may be another procfs.
    let outer_pid = match own_mounts || !asks_for_pid(plan) {
        true => None,
        false => Some(outer_pid()?),
    };
    if !own_users {
        namespaces::join(&plan.namespaces)?;
    }
    namespaces::make(&plan.namespaces)?;
    if own_users {
        userns::become_root()?;
        if plan.die_with_parent {
            // The change of user cleared it.
            sandbox::die_with_parent().step(|| "bind the process's life to the shim's")?;
        }
    }
    if spec.makes(NamespaceKind::Network) {
        put_off(sandbox::loopback_up().step(|| "bring the loopback link up")?);
    }
    set_names(spec)?;
    rustix::process::umask(Mode::empty());

    // Nobody can ask for the host's mounts while hooks run, which may take long. Where others use
    // the namespace, its mounts stay as they are.
    let follows_host =
        !own_mounts || own_users || spec.hooks.is_some() || mounts::follow_host(&spec.mounts);
    let propagation = match follows_host {
        true => plan.propagation,
        false => plan.propagation.detached(),
    };
    if own_mounts {
        root::isolate(propagation)?;
    }
    let (root, mut sources, nodes) = match prepared {
        Some(prepared) => (
            prepared.root,
            prepared.sources,
            Nodes::Bound(prepared.devices),
        ),
        None => (
            root::make(plan.rootfs, propagation, None)?,
            Sources::new(&plan.maps, propagation.is_detached(), plan.container()),
            match userns::is_restricted() {
                true => Nodes::Bound(devices::of_host(&spec.linux.devices)?),
                false => Nodes::Made,
            },
        ),
    };
    root::attach(&root, visible_root(plan))?;
    if !own_mounts {
        let copy =
            rustix::io::fcntl_dupfd_cloexec(&root, 3).step(|| "keep the container's root")?;
        *attached = Some(copy);
        root::keep_apart(&root, plan.propagation)?;
    }
    let mounted = mounts::mount_all(root.as_fd(), &spec.mounts, &mut sources, process.terminal)?;
    drop(sources);
    if let Some(folder) = &mounted.devices {
        devices::fill(folder, &nodes)?;
    }
    let fresh = mounted.devices.as_ref();
    devices::make(root.as_fd(), &spec.linux.devices, &nodes, fresh)?;
    drop(nodes);
    let terminal = match process.terminal {
        true => Some(devices::make_terminal(
            root.as_fd(),
            mounted.terminals.as_ref(),
            process.user.uid,
        )?),
        false => None,
    };
    mounted.close_devices()?;
    let proc = match mounted.proc {
        Some(proc) => proc,
        None => procfs::private()?,
    };
    procfs::set_parameters(proc.as_fd(), spec)?;
    let seen = mounted.proc_is_seen.then_some(proc.as_fd());
    let mut hider = Hider::new(root.as_fd(), seen, mounted.sys.as_ref().map(AsFd::as_fd));
    hider.make_readonly(&spec.linux.readonly_paths)?;
    hider.mask(&spec.linux.masked_paths, mounted.devices.as_ref())?;
    hider.finish();
    let readonly = spec.root.as_ref().is_some_and(|root| root.readonly);
    make_working_folder(root.as_fd(), &process.cwd)?;
    let outer_pid = run_hooks(plan, root.as_fd(), channel, outer_pid)?;
    let null = match terminal {
        Some(_) => None,
        None => null::Streams::find(plan.stdio.as_ref()),
    };
    let null = null.map(|streams| streams.open(&root)).transpose()?;
    match own_mounts {
        true => root::enter(&root, readonly, plan.propagation)?,
        false => root::enter_alone(&root, readonly, plan.propagation)?,
    }
    put_off(root);

    if plan.own_keyring {
        join_keyring(plan.id)?;
    }
    limits::set_limits(&process.rlimits)?;
    if let Some(score) = process.oom_score_adj
        && !own_users
    {
        procfs::write_oom_score(proc.as_fd(), score)?;
    }
    if let Some(personality) = &spec.linux.personality {
        limits::set_personality(personality)?;
    }
    if !own_users {
        scheduling::set(process)?;
    }
    connect_standard(plan, terminal.as_ref(), process)?;
    null.map_or(Ok(()), null::Replacement::connect)?;
    become_user(plan)?;
    let command = command::prepare(process)?;
    mounted.terminals.into_iter().for_each(put_off);
    mounted.devices.into_iter().for_each(put_off);
    mounted.sys.into_iter().for_each(put_off);
    let proc = match labels::any(process) {
        true => Some(proc),
        false => {
            put_off(proc);
            None
        }
    };
    close_others(
        plan,
        channel,
        proc.as_ref().map(AsFd::as_fd),
        terminal.as_ref(),
        attached.as_ref(),
    )?;
    if let Some(agent) = &plan.agent {
        // As runc: whoever made the container has the listener when it is made, not started.
        let subject = Subject::new(plan.id, spec, plan.bundle);
        let message = agent.message(subject.state("creating", outer_pid), outer_pid);
        restrict(plan, proc.as_ref(), Some(&message))?;
    }
    channel.ready(terminal.as_ref().map(|terminal| terminal.master.as_fd()))?;
    Ok(Ready {
        command,
        proc,
        outer_pid,
    })
}

/// Closes what is neither the command's nor needed until it is executed.
fn close_others(
    plan: &Plan<'_>,
    channel: &Channel,
    proc: Option<BorrowedFd<'_>>,
    terminal: Option<&Terminal>,
    attached: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let mut kept = vec![channel.as_fd()];
    kept.extend(proc);
    kept.extend(attached.map(AsFd::as_fd));
    kept.extend(plan.start_socket.as_ref().map(AsFd::as_fd));
    kept.extend(
        terminal
            .iter()
            .flat_map(|it| [it.master.as_fd(), it.slave.as_fd()]),
    );
    let mut kept: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    kept.extend(plan.agent.iter().map(AsRawFd::as_raw_fd));
    descriptors::close_others(3 + plan.preserved, &mut kept)
}

/// Where createContainer hooks expect to find the container's mounts: below the path that the
/// bundle names.
fn visible_root<'a>(plan: &Plan<'a>) -> &'a Path {
    let hooked = plan
        .spec
        .hooks
        .as_ref()
        .is_some_and(|hooks| !hooks.create_container.is_empty());
    match plan.rootfs {
        Rootfs::Directory { path } if shared::is_shared(plan.spec) => path,
        // Below a mount that the host shares, nothing may be attached.
        Rootfs::Directory { path } if hooked && !plan.propagation.is_shared() => path,
        _ => Path::new("/"),
    }
}

/// Whether anybody is told the process's number outside.
fn asks_for_pid(plan: &Plan<'_>) -> bool {
    let hooked = plan.spec.hooks.as_ref().is_some_and(|hooks| {
        !hooks.create_container.is_empty() || !hooks.start_container.is_empty()
    });
    hooked || plan.agent.is_some()
}

/// The hooks before the container's root is entered, the parent's first. Gives the process's
/// number outside, which may be known already, or 0 when nobody asks for it.
fn run_hooks(
    plan: &Plan<'_>,
    root: BorrowedFd<'_>,
    channel: &Channel,
    known: Option<i32>,
) -> Result<i32, Failure> {
    let given = plan.spec.hooks.as_ref();
    if hooks::while_creating(given) && !channel.hooks()? {
        return Err(Failure::internal("the runtime has given up"));
    }
    if !asks_for_pid(plan) {
        return Ok(0);
    }
    let pid = match known {
        Some(pid) => pid,
        None => outer_pid()?,
    };
    let Some(given) = given else {
        return Ok(pid);
    };
    let subject = Subject::new(plan.id, plan.spec, plan.bundle);
    // As with runc, these hooks find the container's root as their working directory.
    rustix::process::fchdir(root).step(|| "change to the container's root for hooks")?;
    subject.run("createContainer", &given.create_container, "creating", pid)?;
    Ok(pid)
}

/// The process's number outside. While its root is the host's.
pub(super) fn outer_pid() -> Result<i32, Failure> {
    // The host's procfs counts processes as the runtime does.
    let own = rustix::fs::readlink("/proc/self", Vec::new()).step(|| "read /proc/self")?;
    process_of(own.to_bytes())
}

/// Reads the process's number from what `/proc/self` links to.
fn process_of(link: &[u8]) -> Result<i32, Failure> {
    let number = std::str::from_utf8(link)
        .ok()
        .and_then(|text| text.parse().ok());
    number.filter(|pid| *pid > 0).ok_or_else(|| {
        let link = String::from_utf8_lossy(link);
        Failure::internal(format!(
            "/proc/self leads to {link:?}: the host's /proc is not a procfs"
        ))
    })
}

/// The steps after the start. Returns why they failed.
fn finish(plan: &Plan<'_>, ready: &Ready) -> Failure {
    let restricted = match plan.agent {
        Some(_) => Ok(()),
        None => restrict(plan, ready.proc.as_ref(), None),
    };
    // As with runc, startContainer hooks are restricted as the command is: they are programs that
    // the image could have put there.
    match restricted.and_then(|()| run_start_hooks(plan, ready)) {
        Ok(()) => ready.command.execute(),
        Err(failure) => failure,
    }
}

fn run_start_hooks(plan: &Plan<'_>, ready: &Ready) -> Result<(), Failure> {
    let Some(hooks) = &plan.spec.hooks else {
        return Ok(());
    };
    let mut hooks = hooks.start_container.clone();
    for hook in hooks.iter_mut().filter(|hook| hook.env.is_empty()) {
        // As with runc: they run where the command does.
        hook.env = ready.command.environment();
    }
    let subject = Subject::new(plan.id, plan.spec, plan.bundle);
    subject.run("startContainer", &hooks, "created", ready.outer_pid)
}

fn restrict(
    plan: &Plan<'_>,
    proc: Option<&OwnedFd>,
    message: Option<&[u8]>,
) -> Result<(), Failure> {
    if let Some(proc) = proc {
        let own = nix::unistd::getpid().to_string();
        labels::set(proc.as_fd(), &own, plan.process)?;
    }
    confine(plan, message)
}

/// The last restrictions before the command is executed. The message is for the filter's agent.
pub(super) fn confine(plan: &Plan<'_>, message: Option<&[u8]>) -> Result<(), Failure> {
    if plan.process.no_new_privileges {
        sandbox::set_no_new_privileges().step(|| "process.noNewPrivileges: set")?;
    }
    if let Some(filter) = &plan.filter {
        // Before the capabilities go: without no_new_privs this takes CAP_SYS_ADMIN.
        let listener = seccomp::install(&filter.program, filter.flags)
            .step(|| "linux.seccomp: install the filter")?;
        if let (Some(listener), Some(agent), Some(message)) = (listener, &plan.agent, message) {
            agent.send(message, listener.as_fd())?;
        }
    }
    capabilities::apply(&plan.capabilities)
}

pub(super) fn reset_signals() -> Result<(), Failure> {
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

fn set_names(spec: &Spec) -> Result<(), Failure> {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(name) = given(&spec.hostname) {
        rustix::system::sethostname(name.as_bytes())
            .step(|| format!("hostname: set to {name:?}"))?;
    }
    if let Some(name) = given(&spec.domainname) {
        rustix::system::setdomainname(name.as_bytes())
            .step(|| format!("domainname: set to {name:?}"))?;
    }
    Ok(())
}

/// The container does not share the keys of whoever started it.
pub(super) fn join_keyring(id: &str) -> Result<(), Failure> {
    let name = std::ffi::CString::new(format!("_ses.{id}"))
        .map_err(|_| Failure::invalid("the identifier contains a zero byte"))?;
    match sandbox::join_session_keyring(&name) {
        // A kernel without keys has none to protect.
        Err(Errno::ENOSYS) => Ok(()),
        other => other.step(|| "make a session keyring"),
    }
}

pub(super) fn connect_standard(
    plan: &Plan<'_>,
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

/// As runc: line ends come out as they were written. The caller's terminal adds what it needs, and
/// a file or a pipe of the caller's needs nothing.
fn keep_line_ends(terminal: &OwnedFd) -> Result<(), Failure> {
    use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
    let step = || "prepare the terminal";
    let mut settings = tcgetattr(terminal).step(step)?;
    settings.output_flags.remove(OutputFlags::ONLCR);
    tcsetattr(terminal, SetArg::TCSANOW, &settings).step(step)
}

/// Gives the pipes among the standard streams to the user, so that /dev/stdout can be opened again
/// by name. Not ours to give: what has a name on the host, such as files, terminals and FIFOs, would
/// stay that user's when the container is gone. Engines that want that do it themselves.
fn own_streams(plan: &Plan<'_>, owner: u32) {
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
        // As runc: a pipe of somebody whom this user namespace doesn't know stays theirs.
        let _ = rustix::fs::fchown(&stream, Some(rustix::fs::Uid::from_raw(owner)), None);
    }
}

/// Makes the same gift where the user is known outside by another number.
pub(super) fn own_streams_outside(plan: &Plan<'_>) {
    let owner = mappings::outside(&plan.spec.linux.uid_mappings, plan.process.user.uid);
    if let Some(owner) = owner
        && !plan.process.terminal
    {
        own_streams(plan, owner);
    }
}

/// Makes the working directory where there is nothing. It may be within nobody's reach but the
/// user's, which the change to it tells.
fn make_working_folder(root: BorrowedFd<'_>, folder: &str) -> Result<(), Failure> {
    if folder == "/" {
        return Ok(());
    }
    match paths::find(root, folder) {
        Ok(found) => put_off(found),
        Err(rustix::io::Errno::NOENT) => {
            let made = paths::make_folder(root, folder).map_err(|failure| Failure {
                message: format!("process.cwd: {}", failure.message),
                ..failure
            })?;
            put_off(made);
        }
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(not_changed(folder, Errno::from_raw(error.raw_os_error()))),
    }
    Ok(())
}

/// Changes to the working directory, as whoever may enter it: first as the runtime, which is the
/// only one to get by a folder of somebody else's; then as the user, who alone may enter what is
/// closed to root, such as a network file system.
pub(super) fn become_user(plan: &Plan<'_>) -> Result<(), Failure> {
    let folder = &plan.process.cwd;
    let denied = match change_folder(folder) {
        Err(Errno::EACCES | Errno::EPERM) => true,
        other => {
            other.map_err(|errno| not_changed(folder, errno))?;
            false
        }
    };
    change_user(plan)?;
    if denied {
        change_folder(folder).map_err(|errno| not_changed(folder, errno))?;
    }
    check_folder()
}

fn change_folder(folder: &str) -> Result<(), Errno> {
    // The root is where the process is already.
    if folder == "/" {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let within = ResolveFlags::NO_MAGICLINKS;
    paths::openat2(rustix::fs::CWD, folder, flags, Mode::empty(), within)
        .and_then(rustix::process::fchdir)
        .map_err(|error| Errno::from_raw(error.raw_os_error()))
}

/// In the words by which engines tell exit codes.
fn not_changed(folder: &str, errno: Errno) -> Failure {
    let (reason, text) = match errno {
        Errno::ENOENT => (FailReason::NotFound, "no such file or directory"),
        Errno::ENOTDIR => (FailReason::NotExecutable, "not a directory"),
        Errno::EACCES | Errno::EPERM => (FailReason::NotExecutable, "permission denied"),
        other => (FailReason::NotExecutable, other.desc()),
    };
    Failure::command(
        reason,
        format!("process.cwd: chdir to cwd ({folder:?}) set in config.json failed: {text}"),
    )
}

/// Makes sure that the working directory is inside the container's root: a descriptor that leaked
/// in could lead outside (CVE-2024-21626).
fn check_folder() -> Result<(), Failure> {
    let path = rustix::process::getcwd(Vec::new()).step(|| "process.cwd: examine")?;
    // The kernel marks a folder that is not below the root as "(unreachable)".
    if !path.to_bytes().starts_with(b"/") {
        return Err(Failure::internal(
            "process.cwd: the working directory is outside the container",
        ));
    }
    Ok(())
}

/// Sets the process's groups, unless it keeps those of the caller.
pub(super) fn set_groups(plan: &Plan<'_>, groups: &[u32]) -> Result<(), Errno> {
    match plan.keep_groups {
        true => Ok(()),
        false => sandbox::set_groups(groups),
    }
}

fn change_user(plan: &Plan<'_>) -> Result<(), Failure> {
    let user = &plan.process.user;
    capabilities::limit_bounding(plan.capabilities.bounding)?;
    if user.uid != 0 {
        sandbox::keep_capabilities().step(|| "keep capabilities")?;
    }
    match set_groups(plan, &user.additional_gids) {
        // Groups can't be set in a user namespace whose maker forbade it. Those of the host's were
        // given up before it was entered.
        Err(Errno::EPERM)
            if user.additional_gids.is_empty()
                && plan.spec.namespace(NamespaceKind::User).is_some() => {}
        other => other.step(|| "process.user.additionalGids: set groups")?,
    }
    if !(plan.is_root && user.uid == 0 && user.gid == 0) {
        sandbox::set_group(user.gid)
            .step(|| format!("process.user.gid: set group {}", user.gid))?;
        sandbox::set_user(user.uid).step(|| format!("process.user.uid: set user {}", user.uid))?;
        if plan.die_with_parent {
            // The change of user cleared it.
            sandbox::die_with_parent().step(|| "bind the process's life to the shim's")?;
        }
    }
    let kept = plan.capabilities.process;
    // Kept in the permitted set, needed in the effective one to install the filter.
    let admin = match plan.filter.is_some() && !plan.process.no_new_privileges {
        true => capabilities::SYS_ADMIN | capabilities::SETPCAP,
        // A failure from here on takes the container's mounts away again.
        false if shared::is_shared(plan.spec) => capabilities::SYS_ADMIN,
        false => 0,
    };
    // And the command is looked for with those that it is executed with.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_process_is_told_of_that_is_none() {
        assert_eq!(process_of(b"4711").unwrap(), 4711);
        for link in ["", "0", "-1", "self", "4711/task/4711", "99999999999"] {
            let message = process_of(link.as_bytes()).unwrap_err().message;
            assert!(message.contains("/proc/self"), "{message}");
        }
    }
}

//! The child's way from clone3 to the container's command.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use keelson_shim_protocol::{OciStatus, Rootfs};
use keelson_sys::{clone, sandbox};
use nix::errno::Errno;
use rustix::fs::Mode;

use super::channel::Channel;
use super::command::{self, Command};
use super::confinement::{self, Confinement};
use super::hooks;
use super::{labels, limits, scheduling, signals};
use crate::failure::{Failure, Step};
use crate::sandbox::descriptors::put_off;
use crate::sandbox::devices::{self, Nodes, Terminal};
use crate::sandbox::hidden::Hider;
use crate::sandbox::mounts::{self, Sources};
use crate::sandbox::userns::{self, MountMaps};
use crate::sandbox::{descriptors, namespaces, null, paths, procfs, root, shared};
use crate::spec::{HookKind, NamespaceKind, Spec};

/// Everything that a container's first process needs, computed before the clone.
pub(crate) struct Plan<'a> {
    /// Settings of any process in the container.
    pub(crate) common: Confinement<'a>,
    pub(crate) rootfs: &'a Rootfs,
    pub(crate) propagation: root::Propagation,
    pub(crate) namespaces: namespaces::NamespacePlan,
    /// User namespaces of id-mapped mounts.
    pub(crate) maps: MountMaps,
    pub(crate) own_keyring: bool,
    /// Where to wait for the start: the channel, or a connection that this socket gets.
    pub(crate) start_socket: Option<OwnedFd>,
}

impl<'a> Plan<'a> {
    /// Settings that the mounts depend on.
    pub(super) fn container(&self) -> mounts::MountFacts<'a> {
        mounts::MountFacts {
            cgroup: self.common.spec.linux.cgroups_path.as_deref(),
            root: match self.rootfs {
                Rootfs::Directory { path } => Some(path),
                Rootfs::Overlay { .. } => None,
            },
        }
    }
}

/// What the parent process has prepared for a child inside a user namespace.
pub(crate) struct Prepared<'a> {
    /// The root mount, not attached anywhere yet.
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
        // This was a process that only checked whether the socket answers.
        if connection.wait_for_start() {
            return Some(Some(connection));
        }
    }
}

/// The input of the last steps.
struct Ready {
    command: Command,
    /// The container's procfs, if settings are still to be written to it.
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
    let (spec, process) = (plan.common.spec, plan.common.process);
    let own_users = prepared.is_some();
    let own_mounts = !shared::is_shared(spec);
    signals::reset()?;
    plan.common.keeper.bind()?;
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
        // The change of user cleared it.
        plan.common.keeper.bind()?;
    }
    if spec.makes(NamespaceKind::Network) {
        put_off(sandbox::loopback_up().step(|| "bring the loopback link up")?);
    }
    set_names(spec)?;
    rustix::process::umask(Mode::empty());

    // While hooks run, which may take long, the host's mounts must not be reachable from here. If
    // other processes use the mount namespace, its mounts stay as they are.
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
    if let Some(directory) = &mounted.devices {
        devices::fill(directory, &nodes)?;
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
    make_working_directory(root.as_fd(), &process.cwd)?;
    let outer_pid = run_hooks(plan, root.as_fd(), channel, outer_pid)?;
    let null = match terminal {
        Some(_) => None,
        None => null::NullStreams::find(plan.common.stdio.as_ref()),
    };
    let null = null.map(|streams| streams.open(&root)).transpose()?;
    match own_mounts {
        true => root::enter(&root, readonly, plan.propagation)?,
        false => root::enter_alone(&root, readonly, plan.propagation)?,
    }
    put_off(root);

    if plan.own_keyring {
        confinement::join_keyring(plan.common.id)?;
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
    confinement::connect_standard(&plan.common, terminal.as_ref(), process)?;
    null.map_or(Ok(()), null::Replacement::connect)?;
    confinement::become_user(&plan.common)?;
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
    if let Some(agent) = &plan.common.agent {
        // As runc: the agent gets the listener when the container is created, not when it is
        // started.
        let subject = plan.common.subject();
        let message = agent.message(subject.state(OciStatus::Creating, outer_pid), outer_pid);
        restrict(plan, proc.as_ref(), Some(&message))?;
    }
    channel.ready(terminal.as_ref().map(|terminal| terminal.master.as_fd()))?;
    Ok(Ready {
        command,
        proc,
        outer_pid,
    })
}

/// Closes descriptors that neither the command nor the remaining steps need.
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
    kept.extend(plan.common.agent.iter().map(AsRawFd::as_raw_fd));
    descriptors::close_others(3 + plan.common.preserved, &mut kept)
}

/// Where createContainer hooks expect to find the container's mounts: below the path that the
/// bundle names.
fn visible_root<'a>(plan: &Plan<'a>) -> &'a Path {
    let hooked = plan
        .common
        .spec
        .hooks
        .as_ref()
        .is_some_and(|hooks| !hooks.create_container.is_empty());
    match plan.rootfs {
        Rootfs::Directory { path } if shared::is_shared(plan.common.spec) => path,
        // Nothing may be attached below a mount that is shared with the host.
        Rootfs::Directory { path } if hooked && !plan.propagation.is_shared() => path,
        _ => Path::new("/"),
    }
}

/// Whether anybody needs the process's number as seen from the host.
fn asks_for_pid(plan: &Plan<'_>) -> bool {
    let hooked = plan.common.spec.hooks.as_ref().is_some_and(|hooks| {
        !hooks.create_container.is_empty() || !hooks.start_container.is_empty()
    });
    hooked || plan.common.agent.is_some()
}

/// Runs the hooks before the container's root is entered: the parent's first. Returns the process's
/// number as seen from the host, or 0 if nobody needs it. The number may be known already.
fn run_hooks(
    plan: &Plan<'_>,
    root: BorrowedFd<'_>,
    channel: &Channel,
    known: Option<i32>,
) -> Result<i32, Failure> {
    let given = plan.common.spec.hooks.as_ref();
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
    let subject = plan.common.subject();
    // As with runc, these hooks find the container's root as their working directory.
    rustix::process::fchdir(root).step(|| "change to the container's root for hooks")?;
    subject.run(HookKind::CreateContainer, &given.create_container, pid)?;
    Ok(pid)
}

/// The process's number as seen from the host. Works only while the root is the host's.
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
    let restricted = match plan.common.agent {
        Some(_) => Ok(()),
        None => restrict(plan, ready.proc.as_ref(), None),
    };
    // As with runc, startContainer hooks have the same restrictions as the command: they may be
    // programs from the image.
    match restricted.and_then(|()| run_start_hooks(plan, ready)) {
        Ok(()) => ready.command.execute(),
        Err(failure) => failure,
    }
}

fn run_start_hooks(plan: &Plan<'_>, ready: &Ready) -> Result<(), Failure> {
    let Some(hooks) = &plan.common.spec.hooks else {
        return Ok(());
    };
    let mut hooks = hooks.start_container.clone();
    for hook in hooks.iter_mut().filter(|hook| hook.env.is_none()) {
        // As with runc: they run in the command's working directory.
        hook.env = Some(ready.command.environment());
    }
    let subject = plan.common.subject();
    subject.run(HookKind::StartContainer, &hooks, ready.outer_pid)
}

fn restrict(
    plan: &Plan<'_>,
    proc: Option<&OwnedFd>,
    message: Option<&[u8]>,
) -> Result<(), Failure> {
    if let Some(proc) = proc {
        let own = nix::unistd::getpid().to_string();
        labels::set(proc.as_fd(), &own, plan.common.process)?;
    }
    confinement::confine(&plan.common, message)
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

/// Creates the working directory if it does not exist. Perhaps only the user can reach it; then the
/// later change to the directory shows whether it is there.
fn make_working_directory(root: BorrowedFd<'_>, directory: &str) -> Result<(), Failure> {
    if directory == "/" {
        return Ok(());
    }
    match paths::find(root, directory) {
        Ok(found) => put_off(found),
        Err(rustix::io::Errno::NOENT) => {
            let made = paths::make_directory(root, directory).map_err(|failure| Failure {
                message: format!("process.cwd: {}", failure.message),
                ..failure
            })?;
            put_off(made);
        }
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {}
        Err(error) => {
            return Err(confinement::not_changed(
                directory,
                Errno::from_raw(error.raw_os_error()),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_number_is_no_process() {
        assert_eq!(process_of(b"4711").unwrap(), 4711);
        for link in ["", "0", "-1", "self", "4711/task/4711", "99999999999"] {
            let message = process_of(link.as_bytes()).unwrap_err().message;
            assert!(message.contains("/proc/self"), "{message}");
        }
    }
}

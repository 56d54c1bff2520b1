//! The parent's steps, until the container's command waits for its execution.

use std::os::fd::{AsFd, OwnedFd};

use keelson_shim_protocol::Rootfs;
use keelson_sys::clone::{self, CloneRequest, Cloned};
use keelson_sys::entry;
use nix::poll::{PollFd, PollFlags};
use nix::sys::wait::WaitStatus;
use rustix::process::PidfdFlags;

use super::channel::{Channel, Message};
use super::confinement::{Asked, Confinement};
use super::hooks::{self, Subject};
use super::keeper::Keeper;
use super::pid_namespace::PidNamespace;
use super::{capabilities, child, inner, labels, settings};
use crate::cgroup::{Cgroup, devices, resources};
use crate::failure::{self, Failure, Step};
use crate::sandbox::namespaces;
use crate::sandbox::root::Propagation;
use crate::sandbox::shared::{self, Shared};
use crate::sandbox::userns::{self, MountMaps};
use crate::seccomp;
use crate::spec::{HookKind, NamespaceKind, Spec};

/// How long an abandoned process may take to unmount, in milliseconds.
const LAST_STEPS: u16 = 10_000;

/// The input for a container.
pub(crate) struct Request<'a> {
    /// Settings of any process in the container.
    pub(crate) common: Asked<'a>,
    /// Its root file system.
    pub(crate) rootfs: &'a Rootfs,
    /// Whether the container gets a session keyring of its own.
    pub(crate) own_keyring: bool,
    /// A listening socket that receives the start, instead of the channel.
    pub(crate) start_socket: Option<OwnedFd>,
    /// Called with the container's first process as soon as it exists. An error ends the process.
    pub(crate) announce: &'a dyn Fn(i32) -> Result<(), Failure>,
}

/// A container whose command waits.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its first process.
    pub(crate) pid: i32,
    /// The same, as a descriptor.
    pub(crate) pidfd: OwnedFd,
    /// Its cgroup, when it has one.
    pub(crate) cgroup: Option<Cgroup>,
    /// The channel for the start, unless there is a start socket.
    pub(crate) channel: Channel,
    /// The master end of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
    /// What remains after the process.
    pub(crate) shared: Option<Shared>,
}

impl Container {
    /// Ends a container that was created but that the caller can't use. Nothing of it remains.
    pub(crate) fn discard(&self, subject: Subject<'_>, spec: &Spec, keeper: Keeper) {
        let _ = end(self.pid, &self.pidfd);
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.remove();
        }
        if let Some(shared) = &self.shared {
            let _ = shared.unmount();
        }
        undo_hooks(subject, spec, keeper);
    }
}

/// Kills a child and waits for its end.
fn end(pid: i32, pidfd: &OwnedFd) -> nix::Result<WaitStatus> {
    let _ = clone::signal_process(pidfd.as_fd(), libc::SIGKILL);
    collect(pid)
}

fn collect(pid: i32) -> nix::Result<WaitStatus> {
    loop {
        match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Creates a container. A failure leaves nothing of it.
pub(crate) fn create(request: Request<'_>) -> Result<Container, Failure> {
    let (spec, keeper) = (request.common.spec, request.common.keeper);
    let subject = Subject::new(request.common.id, spec, request.common.bundle);
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Failure::invalid("config.json: process: is missing"))?;
    settings::check(spec)?;
    labels::check(process)?;
    labels::check_mounts(&spec.linux)?;
    let propagation = Propagation::parse(spec.linux.rootfs_propagation.as_deref())?;
    if shared::is_shared(spec) && !keeper.unmounts() {
        return Err(Failure::unsupported(
            "linux.namespaces: under a shim a new mount namespace is required",
        ));
    }
    let namespaces = namespaces::plan(spec)?;
    let user = namespaces.user.as_ref().map(AsFd::as_fd);
    let maps = MountMaps::new(&spec.mounts, user)?;
    let filter = seccomp::filter_of(spec).map_err(|error| Failure::invalid(error.to_string()))?;
    let capabilities = capabilities::parse(process.capabilities.as_ref(), user.is_some())?;
    let bounding = capabilities.bounding;
    let is_root = spec.namespace(NamespaceKind::User).is_none() && entry::executed_as_root();
    let common = Confinement::new(request.common, process, capabilities, filter, is_root)?;
    let cgroup = make_cgroup(spec, bounding)?;
    let plan = child::Plan {
        common,
        rootfs: request.rootfs,
        propagation,
        namespaces,
        maps,
        own_keyring: request.own_keyring,
        start_socket: request.start_socket,
    };
    let created = clone_and_wait(&plan, cgroup.as_ref(), request.announce);
    match created {
        Ok((pid, pidfd, channel, terminal, shared)) => Ok(Container {
            pid,
            pidfd,
            cgroup,
            channel,
            terminal,
            shared,
        }),
        Err(failure) => {
            if let Some(cgroup) = cgroup {
                // The caller needs to know the first failure.
                let _ = cgroup.remove();
            }
            undo_hooks(subject, spec, keeper);
            Err(failure)
        }
    }
}

/// Makes the container's cgroup with its limits but without the device filter, if it gets one.
/// `bounding`: the capabilities that its processes may ever have.
fn make_cgroup(spec: &Spec, bounding: u64) -> Result<Option<Cgroup>, Failure> {
    let limits = spec.linux.resources.as_ref();
    let Some(path) = spec
        .linux
        .cgroups_path
        .as_deref()
        .filter(|path| !path.is_empty())
    else {
        if let Some(limits) = limits {
            let planned = resources::plan(limits)?;
            if let Some(setting) = planned.iter().find(|setting| !setting.is_usual()) {
                return Err(Failure::invalid(format!(
                    "{}: a limit needs linux.cgroupsPath",
                    setting.member
                )));
            }
            let makes_devices = bounding & capabilities::MKNOD != 0
                && spec.namespace(NamespaceKind::User).is_none()
                && !userns::is_restricted();
            if makes_devices && !devices::allow_everything(&limits.devices)? {
                return Err(Failure::invalid(
                    "linux.resources.devices: the filter needs linux.cgroupsPath; only a process without CAP_MKNOD, or in a user namespace of its own, can do without",
                ));
            }
        }
        return Ok(None);
    };
    let cgroup = Cgroup::create(path)?;
    if let Some(limits) = limits
        && let Err(failure) = cgroup.limit(limits)
    {
        let _ = cgroup.remove();
        return Err(failure);
    }
    Ok(Some(cgroup))
}

type Created = (i32, OwnedFd, Channel, Option<OwnedFd>, Option<Shared>);

fn clone_and_wait(
    plan: &child::Plan<'_>,
    cgroup: Option<&Cgroup>,
    announce: &dyn Fn(i32) -> Result<(), Failure>,
) -> Result<Created, Failure> {
    let (parent, child) = Channel::pair()?;
    let inside_user = plan.namespaces.user.is_some();
    let request = CloneRequest {
        namespaces: if inside_user {
            0
        } else {
            plan.namespaces.create
        },
        cgroup: cgroup.filter(|_| !inside_user).map(Cgroup::directory),
        sibling: false,
    };
    let joined = match &plan.namespaces.join_pid {
        Some(namespace) if !inside_user => Some(PidNamespace::enter(namespace)?),
        _ => None,
    };
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let cloned = unsafe { clone::clone3(&request) };
    let cloned = match cloned.step(|| "clone3 the container's process") {
        Ok(Cloned::Child) => {
            drop(parent);
            match inside_user {
                true => inner::run(plan, cgroup, &child),
                false => child::run(plan, None, &child),
            }
        }
        Ok(Cloned::Parent { pid, pidfd }) => Ok((pid, pidfd)),
        Err(failure) => Err(failure),
    };
    // Hooks, additional processes and the copies of this one stay in their cgroup.
    let alone = plan.common.spec.hooks.is_none();
    let left = joined.map_or(Ok(()), |joined| joined.leave(alone));
    let (pid, pidfd) = cloned?;
    drop(child);
    if let Err(failure) = left {
        let _ = end(pid, &pidfd);
        return Err(failure);
    }
    let (pid, pidfd) = match inside_user {
        true => replacement(plan, cgroup, &parent, (pid, pidfd))?,
        false => (pid, pidfd),
    };
    // Done while the child makes its mounts. The child executes nothing before it gets the message
    // to start.
    let made = announce(pid)
        .and_then(|()| filter_devices(plan.common.spec, cgroup))
        .and_then(|()| set_up(plan, &parent, pid));
    match made {
        Ok(Some(terminal)) => match shared_by(plan, pid) {
            Ok(shared) => Ok((pid, pidfd, parent, terminal, shared)),
            Err(failure) => {
                let _ = end(pid, &pidfd);
                Err(failure)
            }
        },
        Ok(None) => Err(Failure::internal(format!(
            "the container's process ended while it was set up: {:?}",
            end(pid, &pidfd)
        ))),
        Err(failure) => {
            if shared::is_shared(plan.common.spec) {
                // The child sees that nobody listens any more, and removes its mounts.
                drop(parent);
                let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
                let _ = nix::poll::poll(&mut ready, LAST_STEPS);
            }
            let _ = end(pid, &pidfd);
            Err(failure)
        }
    }
}

/// What remains of the container after its processes.
fn shared_by(plan: &child::Plan<'_>, pid: i32) -> Result<Option<Shared>, Failure> {
    match plan.rootfs {
        Rootfs::Directory { path } => Shared::of(plan.common.spec, path, pid),
        // Only a shim leaves such mounts.
        Rootfs::Overlay { .. } => Ok(None),
    }
}

/// Waits until the process is set up. Returns its terminal, if it has one. `None`: the process
/// ended.
fn set_up(
    plan: &child::Plan<'_>,
    channel: &Channel,
    pid: i32,
) -> Result<Option<Option<OwnedFd>>, Failure> {
    let mut message = channel.receive()?;
    if let Message::Hooks = message {
        run_hooks(plan, pid)?;
        channel.start()?;
        message = channel.receive()?;
    }
    match message {
        Message::Ready(terminal) => Ok(Some(terminal)),
        Message::Failed(failure) => Err(failure),
        Message::Closed => Ok(None),
        Message::Hooks | Message::Made(_) => Err(Failure::internal(
            "the container's process reported a step twice",
        )),
    }
}

fn filter_devices(spec: &Spec, cgroup: Option<&Cgroup>) -> Result<(), Failure> {
    match (cgroup, &spec.linux.resources) {
        (Some(cgroup), Some(resources)) => cgroup.filter_devices(resources),
        _ => Ok(()),
    }
}

/// Waits for the process that [`inner`] makes inside the user namespace, and lets it go on.
fn replacement(
    plan: &child::Plan<'_>,
    cgroup: Option<&Cgroup>,
    channel: &Channel,
    (first, pidfd): (i32, OwnedFd),
) -> Result<(i32, OwnedFd), Failure> {
    let message = channel.receive();
    let status = match message {
        Ok(_) => collect(first),
        Err(_) => end(first, &pidfd),
    };
    let pid = match message? {
        Message::Made(pid) => pid,
        Message::Failed(failure) => return Err(failure),
        _ => {
            return Err(Failure::internal(format!(
                "the process that makes the container's ended early: {status:?}"
            )));
        }
    };
    let opened = rustix::process::Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .step(|| format!("open process {pid}"))
        .and_then(|pidfd| {
            if let Some(cgroup) = cgroup {
                delegate(plan.common.spec, cgroup)?;
            }
            channel.start().map(|()| pidfd)
        });
    if opened.is_err() {
        let _ = clone::signal_pid(pid, libc::SIGKILL);
        let _ = collect(pid);
    }
    opened.map(|pidfd| (pid, pidfd))
}

/// Makes the user who executes the command the owner of the cgroup, under the specification's
/// conditions.
fn delegate(spec: &Spec, cgroup: &Cgroup) -> Result<(), Failure> {
    let writable = spec.mounts.iter().any(|mount| {
        mount.source.as_deref() == Some("cgroup")
            && mount.destination == "/sys/fs/cgroup"
            && !mount.options.iter().any(|option| option == "ro")
    });
    let user = spec.process.as_ref().map_or(0, |process| process.user.uid);
    match crate::spec::mappings::outside(&spec.linux.uid_mappings, user) {
        Some(owner) if writable && spec.makes(NamespaceKind::Cgroup) => cgroup.delegate(owner),
        _ => Ok(()),
    }
}

/// The hooks that run in the runtime's namespaces while the container is made.
fn run_hooks(plan: &child::Plan<'_>, pid: i32) -> Result<(), Failure> {
    let Some(hooks) = &plan.common.spec.hooks else {
        return Ok(());
    };
    let subject = plan.common.subject();
    subject.run(HookKind::Prestart, &hooks.prestart, pid)?;
    subject.run(HookKind::CreateRuntime, &hooks.create_runtime, pid)
}

/// Runs the hooks for the container's end: they undo what hooks did while it was made. Others wait
/// for a shim, so it runs the hooks in another process.
fn undo_hooks(subject: Subject<'_>, spec: &Spec, keeper: Keeper) {
    let Some(hooks) = &spec.hooks else {
        return;
    };
    let creating = [
        &hooks.prestart,
        &hooks.create_runtime,
        &hooks.create_container,
    ];
    if creating.iter().all(|hooks| hooks.is_empty()) {
        return;
    }
    let (kind, poststop) = (HookKind::Poststop, &hooks.poststop);
    if keeper.serves_others() {
        let _ = hooks::in_background(subject, kind, poststop, 0);
    } else {
        failure::warn(&subject.run_all(kind, poststop, 0));
    }
}

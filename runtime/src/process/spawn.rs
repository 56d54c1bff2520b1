//! The parent's way to a container whose command waits to be executed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use keelson_model::shim::Rootfs;
use keelson_sys::clone::{self, CloneRequest, Cloned};
use rustix::process::PidfdFlags;

use super::channel::{Channel, Message};
use super::exec::PidNamespace;
use super::hooks::{self, Subject};
use super::notify::Agent;
use super::{capabilities, child, inner, labels, settings};
use crate::cgroup::{Cgroup, devices, resources};
use crate::failure::{Failure, Step};
use crate::sandbox::namespaces;
use crate::sandbox::root::Propagation;
use crate::sandbox::userns::MountMaps;
use crate::seccomp;
use crate::spec::{NamespaceKind, Spec};

/// What a container is made from.
pub(crate) struct Request<'a> {
    /// Its identifier.
    pub(crate) id: &'a str,
    /// Its specification.
    pub(crate) spec: &'a Spec,
    /// Its bundle, absolute.
    pub(crate) bundle: &'a Path,
    /// Its root file system.
    pub(crate) rootfs: &'a Rootfs,
    /// Standard input, output and error, unless it gets a terminal.
    pub(crate) stdio: Option<[OwnedFd; 3]>,
    /// Whether it is killed when the calling process ends.
    pub(crate) die_with_parent: bool,
    /// Descriptors from 3 on that the command inherits.
    pub(crate) preserved: u32,
    /// Whether the container gets a session keyring of its own.
    pub(crate) own_keyring: bool,
    /// A listening socket over which the start is announced, instead of the channel.
    pub(crate) start_socket: Option<OwnedFd>,
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
    /// For the start, unless there is a start socket.
    pub(crate) channel: Channel,
    /// The master end of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Makes a container. When that fails, nothing of it is left.
pub(crate) fn create(request: Request<'_>) -> Result<Container, Failure> {
    let spec = request.spec;
    let process = spec
        .process
        .as_ref()
        .ok_or_else(|| Failure::invalid("config.json: process: is missing"))?;
    settings::check(spec)?;
    labels::check(process)?;
    let propagation = Propagation::parse(spec.linux.rootfs_propagation.as_deref())?;
    let namespaces = namespaces::plan(spec)?;
    let user = namespaces.user.as_ref().map(AsFd::as_fd);
    let maps = MountMaps::new(&spec.mounts, user)?;
    let filter = seccomp::filter_of(spec).map_err(|error| Failure::invalid(error.to_string()))?;
    let capabilities = capabilities::parse(process.capabilities.as_ref(), user.is_some())?;
    let agent = Agent::connect(spec, filter.as_ref())?;
    let cgroup = make_cgroup(spec, capabilities.bounding)?;
    let plan = child::Plan {
        id: request.id,
        bundle: request.bundle,
        spec,
        process,
        rootfs: request.rootfs,
        propagation,
        namespaces,
        maps,
        capabilities,
        filter,
        agent,
        stdio: request.stdio,
        die_with_parent: request.die_with_parent,
        preserved: request.preserved,
        own_keyring: request.own_keyring,
        start_socket: request.start_socket,
    };
    let created = clone_and_wait(&plan, cgroup.as_ref());
    match created {
        Ok((pid, pidfd, channel, terminal)) => Ok(Container {
            pid,
            pidfd,
            cgroup,
            channel,
            terminal,
        }),
        Err(failure) => {
            if let Some(cgroup) = cgroup {
                // What failed first is what the caller needs to know.
                let _ = cgroup.remove();
            }
            undo_hooks(&plan);
            Err(failure)
        }
    }
}

/// Makes the container's cgroup, if it gets one. `bounding`: the capabilities that its processes may
/// ever have.
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
                && spec.namespace(NamespaceKind::User).is_none();
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
        && let Err(failure) = cgroup.apply(limits)
    {
        let _ = cgroup.remove();
        return Err(failure);
    }
    Ok(Some(cgroup))
}

type Created = (i32, OwnedFd, Channel, Option<OwnedFd>);

fn clone_and_wait(plan: &child::Plan<'_>, cgroup: Option<&Cgroup>) -> Result<Created, Failure> {
    let (parent, child) = Channel::pair()?;
    let inside_user = plan.namespaces.user.is_some();
    let request = CloneRequest {
        namespaces: if inside_user {
            0
        } else {
            plan.namespaces.create
        },
        cgroup: cgroup.filter(|_| !inside_user).map(Cgroup::folder),
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
    // Hooks, further processes and the copies of this one stay where they were.
    let left = joined.map_or(Ok(()), PidNamespace::leave);
    let (pid, pidfd) = cloned?;
    drop(child);
    let (pid, pidfd) = match inside_user {
        true => left.and_then(|()| replacement(plan, cgroup, &parent, pid)),
        false => left.map(|()| (pid, pidfd)),
    }?;
    let mut message = parent.receive();
    if let Ok(Message::Hooks) = message {
        message = run_hooks(plan, pid)
            .and_then(|()| parent.start())
            .and_then(|()| parent.receive());
    }
    match message {
        Ok(Message::Ready(terminal)) => Ok((pid, pidfd, parent, terminal)),
        other => {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
            Err(match other {
                Ok(Message::Failed(failure)) => failure,
                Err(failure) => failure,
                _ => Failure::internal(format!(
                    "the container's process ended while it was set up: {status:?}"
                )),
            })
        }
    }
}

/// Waits for the process that [`inner`] makes inside the user namespace, and lets it go on.
fn replacement(
    plan: &child::Plan<'_>,
    cgroup: Option<&Cgroup>,
    channel: &Channel,
    first: i32,
) -> Result<(i32, OwnedFd), Failure> {
    let message = channel.receive();
    let first = nix::unistd::Pid::from_raw(first);
    let status = nix::sys::wait::waitpid(first, None);
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
                delegate(plan.spec, cgroup)?;
            }
            channel.start().map(|()| pidfd)
        });
    if opened.is_err() {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
    }
    opened.map(|pidfd| (pid, pidfd))
}

/// Gives the cgroup to the user who executes the command, under the specification's conditions.
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
    let Some(hooks) = &plan.spec.hooks else {
        return Ok(());
    };
    let subject = Subject::new(plan.id, plan.spec, plan.bundle);
    subject.run("prestart", &hooks.prestart, "creating", pid)?;
    subject.run("createRuntime", &hooks.create_runtime, "creating", pid)
}

/// What hooks have done while the container was made is undone by those for its end.
fn undo_hooks(plan: &child::Plan<'_>) {
    let Some(hooks) = &plan.spec.hooks else {
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
    let subject = Subject::new(plan.id, plan.spec, plan.bundle);
    if plan.die_with_parent {
        // A shim is waited for.
        let _ = hooks::in_background(subject, "poststop", &hooks.poststop, "stopped", 0);
        return;
    }
    for failure in subject.run_all("poststop", &hooks.poststop, "stopped", 0) {
        eprintln!("keelson-runtime: warning: {failure}");
    }
}

//! The parent's way to a container whose command waits to be executed.

use std::os::fd::OwnedFd;
use std::path::Path;

use keelson_model::shim::Rootfs;
use keelson_sys::clone::{self, CloneRequest, Cloned};

use super::channel::{Channel, Message};
use super::hooks::Subject;
use super::{capabilities, child};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::sandbox::namespaces;
use crate::seccomp;
use crate::spec::Spec;

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
    if let Some(profile) = &process.apparmor_profile {
        check_apparmor(profile)?;
    }
    let namespaces = namespaces::plan(spec)?;
    let filter = seccomp::filter_of(spec).map_err(|error| Failure::invalid(error.to_string()))?;
    let capabilities = capabilities::parse(process.capabilities.as_ref())?;
    let cgroup = make_cgroup(spec)?;
    let plan = child::Plan {
        id: request.id,
        bundle: request.bundle,
        spec,
        process,
        rootfs: request.rootfs,
        namespaces,
        capabilities,
        filter,
        stdio: request.stdio,
        die_with_parent: request.die_with_parent,
        preserved: request.preserved,
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
            Err(failure)
        }
    }
}

fn make_cgroup(spec: &Spec) -> Result<Option<Cgroup>, Failure> {
    let resources = spec.linux.resources.as_ref();
    let Some(path) = spec
        .linux
        .cgroups_path
        .as_deref()
        .filter(|path| !path.is_empty())
    else {
        if let Some(resources) = resources
            && let Some(setting) = crate::cgroup::resources::plan(resources)?.first()
        {
            return Err(Failure::invalid(format!(
                "{}: a limit needs linux.cgroupsPath",
                setting.member
            )));
        }
        return Ok(None);
    };
    let cgroup = Cgroup::create(path)?;
    if let Some(resources) = resources
        && let Err(failure) = cgroup.apply(resources)
    {
        let _ = cgroup.remove();
        return Err(failure);
    }
    Ok(Some(cgroup))
}

type Created = (i32, OwnedFd, Channel, Option<OwnedFd>);

fn clone_and_wait(plan: &child::Plan<'_>, cgroup: Option<&Cgroup>) -> Result<Created, Failure> {
    if let Some(namespace) = &plan.namespaces.join_pid {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWPID)
            .step(|| "join the pid namespace")?;
    }
    let (parent, child) = Channel::pair()?;
    let request = CloneRequest {
        namespaces: plan.namespaces.create,
        cgroup: cgroup.map(Cgroup::folder),
        sibling: false,
    };
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let cloned = unsafe { clone::clone3(&request) };
    let (pid, pidfd) = match cloned.step(|| "clone3 the container's process")? {
        Cloned::Child => {
            drop(parent);
            child::run(plan, &child)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(child);
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

/// The hooks that run in the runtime's namespaces while the container is made.
fn run_hooks(plan: &child::Plan<'_>, pid: i32) -> Result<(), Failure> {
    let Some(hooks) = &plan.spec.hooks else {
        return Ok(());
    };
    let subject = Subject::new(plan.id, plan.spec, plan.bundle);
    subject.run("prestart", &hooks.prestart, "creating", pid)?;
    subject.run("createRuntime", &hooks.create_runtime, "creating", pid)
}

pub(super) fn check_apparmor(profile: &str) -> Result<(), Failure> {
    if profile.is_empty() {
        return Ok(());
    }
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'));
    if enabled {
        Ok(())
    } else {
        Err(Failure::invalid(format!(
            "process.apparmorProfile {profile:?}: AppArmor is not enabled in this kernel"
        )))
    }
}

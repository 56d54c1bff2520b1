//! Creates a container's first process inside a user namespace.
//!
//! A copy of the runtime, still with the host's privileges, joins the other existing namespaces. It
//! does everything that needs these rights: the root, bind mounts from the host, file systems of
//! namespaces that the user namespace does not own, raised limits. Then it enters the user
//! namespace and clones the first process into new namespaces, which therefore belong to the user
//! namespace. The first process is a child of the runtime. The copy then ends.

use std::os::fd::AsFd;

use keelson_sys::clone::{self, CloneRequest, Cloned};
use keelson_sys::sandbox;
use nix::sched::CloneFlags;

use super::channel::Channel;
use super::child::{self, Plan, Prepared};
use super::{confinement, limits, scheduling};
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::sandbox::layers::Owner;
use crate::sandbox::mounts::Sources;
use crate::sandbox::{devices, namespaces, procfs, root, userns};
use crate::spec::{NamespaceKind, Spec};

/// Runs in the copy and never returns, neither there nor in the first process.
pub(crate) fn run(plan: &Plan<'_>, cgroup: Option<&Cgroup>, channel: &Channel) -> ! {
    if let Err(failure) = make(plan, cgroup, channel) {
        channel.failed(&failure);
        clone::exit_now(1);
    }
    clone::exit_now(0)
}

fn make(plan: &Plan<'_>, cgroup: Option<&Cgroup>, channel: &Channel) -> Result<(), Failure> {
    let (spec, process) = (plan.common.spec, plan.common.process);
    // Every process that is made from here on dies with the runtime, or is killed by it.
    sandbox::die_with_parent().step(|| "bind the process's life to the runtime's")?;
    // No process in the user namespace may inspect this process or its copy.
    sandbox::set_undumpable().step(|| "hide the process from the container")?;
    namespaces::join(&plan.namespaces)?;
    if let Some(namespace) = &plan.namespaces.join_pid {
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWPID).step(|| "join the pid namespace")?;
    }
    let foreign = |filesystem: &str| is_foreign(spec, filesystem);
    let sources = Sources::prepare(&plan.maps, &spec.mounts, plan.container(), foreign)?;
    // The last step that uses paths of the host: after it, paths lead elsewhere.
    let user = plan.namespaces.user.as_ref();
    let owner = user.and_then(|user| Owner::new(user, &spec.linux));
    let root = root::make(plan.rootfs, plan.propagation, owner)?;
    let devices = devices::prepare(&spec.linux)?;
    limits::raise(&process.rlimits)?;
    if let Some(score) = process.oom_score_adj {
        procfs::set_oom_score(score)?;
    }
    scheduling::set(process)?;
    confinement::own_streams_outside(&plan.common);
    confinement::set_groups(&plan.common, &[]).step(|| "give up the runtime's groups")?;

    if let Some(user) = &plan.namespaces.user {
        nix::sched::setns(user, CloneFlags::CLONE_NEWUSER)
            .step(|| "linux.namespaces: join the user namespace")?;
    }
    if !spec.makes(NamespaceKind::User) {
        userns::compare(&spec.linux.uid_mappings, &spec.linux.gid_mappings)?;
    }
    let request = CloneRequest {
        namespaces: plan.namespaces.create,
        cgroup: cgroup.map(Cgroup::directory),
        sibling: true,
    };
    let prepared = Prepared {
        root,
        sources,
        devices,
    };
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let cloned = unsafe { clone::clone3(&request) };
    match cloned.step(|| "clone3 the container's process")? {
        Cloned::Child => match channel.wait_for_start() {
            true => child::run(plan, Some(prepared), channel),
            false => clone::exit_now(1),
        },
        Cloned::Parent { pid, pidfd } => {
            let told = channel.made(pid);
            if told.is_err() {
                let _ = clone::signal_process(pidfd.as_fd(), libc::SIGKILL);
            }
            told
        }
    }
}

/// Whether a file system shows a namespace that is not made in the user namespace.
fn is_foreign(spec: &Spec, filesystem: &str) -> bool {
    let shown = match filesystem {
        "proc" => NamespaceKind::Pid,
        "sysfs" => NamespaceKind::Network,
        "mqueue" => NamespaceKind::Ipc,
        "cgroup" | "cgroup2" => NamespaceKind::Cgroup,
        _ => return false,
    };
    match spec.namespace(shown) {
        None => true,
        // A process sees only the processes of the pid namespace that it was created in.
        Some(namespace) => namespace.path.is_some() && shown != NamespaceKind::Pid,
    }
}

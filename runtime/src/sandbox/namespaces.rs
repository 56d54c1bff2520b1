//! Which namespaces are made, joined or shared.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};
use crate::spec::{NamespaceKind, Spec};

/// What to do about namespaces around clone3(2).
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// `CLONE_NEW…` flags for clone3.
    pub(crate) create: u64,
    /// Make the cgroup namespace after the clone: its root is the cgroup that the process is in
    /// when it asks, and at clone time that is still the parent's.
    pub(crate) unshare_cgroup: bool,
    /// Joined by the parent, because a pid namespace takes effect for children only.
    pub(crate) join_pid: Option<OwnedFd>,
    /// Joined by the child.
    pub(crate) join: Vec<(OwnedFd, CloneFlags, NamespaceKind)>,
}

/// Reads the namespaces of a specification and opens those that are joined.
pub(crate) fn plan(spec: &Spec) -> Result<Plan, Failure> {
    let mut plan = Plan {
        create: 0,
        unshare_cgroup: false,
        join_pid: None,
        join: Vec::new(),
    };
    if !spec.makes(NamespaceKind::Mount) {
        return Err(Failure::unsupported(
            "linux.namespaces: a new mount namespace is required",
        ));
    }
    for namespace in &spec.linux.namespaces {
        let flag = match namespace.kind {
            NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
            NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
            NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
            NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
            NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
            NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            NamespaceKind::User | NamespaceKind::Time => {
                return Err(Failure::unsupported(format!(
                    "linux.namespaces: type {:?} is not supported yet",
                    format!("{:?}", namespace.kind).to_lowercase()
                )));
            }
        };
        match &namespace.path {
            None if namespace.kind == NamespaceKind::Cgroup => plan.unshare_cgroup = true,
            None => plan.create |= flag.bits() as u64,
            Some(path) => {
                let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .step(|| format!("linux.namespaces: open {}", path.display()))?;
                if namespace.kind == NamespaceKind::Pid {
                    plan.join_pid = Some(fd);
                } else {
                    plan.join.push((fd, flag, namespace.kind));
                }
            }
        }
    }
    let linux = &spec.linux;
    if !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty() {
        return Err(Failure::unsupported(
            "linux.uidMappings: user namespaces are not supported yet",
        ));
    }
    Ok(plan)
}

/// The child's part.
pub(crate) fn enter(plan: &Plan) -> Result<(), Failure> {
    for (fd, flag, kind) in &plan.join {
        nix::sched::setns(fd, *flag).step(|| format!("join the {kind:?} namespace"))?;
    }
    if plan.unshare_cgroup {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "make a cgroup namespace")?;
    }
    Ok(())
}

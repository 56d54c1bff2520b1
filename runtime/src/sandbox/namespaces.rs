//! Which namespaces are made, joined or shared.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use super::userns;
use crate::failure::{Failure, Step};
use crate::spec::{NamespaceKind, Spec, TimeOffset};

/// The file system of namespaces (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// nix has no flag for it.
pub(crate) const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// The plan for namespaces around clone3(2).
#[derive(Debug, Default)]
pub(crate) struct NamespacePlan {
    /// `CLONE_NEW…` flags for clone3.
    pub(crate) create: u64,
    /// Make the cgroup namespace after the clone: its root is the cgroup that the process is in
    /// when it is made, and at clone time that is still the parent's.
    pub(crate) unshare_cgroup: bool,
    /// Make a time namespace with these offsets, in the kernel's format. It is also made after the
    /// clone: it starts empty, and the process enters it when it executes the command.
    pub(crate) time_offsets: Option<String>,
    /// The parent joins it, because a pid namespace takes effect for children only.
    pub(crate) join_pid: Option<OwnedFd>,
    /// The user namespace. With one, the container's first process is made by a copy of the
    /// runtime that enters the namespaces first ([`crate::process::inner`]).
    pub(crate) user: Option<OwnedFd>,
    /// The child joins it.
    pub(crate) join: Vec<(OwnedFd, CloneFlags, NamespaceKind)>,
}

/// Checks the namespaces of a specification.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    let users = spec.namespace(NamespaceKind::User).is_some();
    if users && spec.namespace(NamespaceKind::Mount).is_none() {
        return Err(Failure::invalid(
            "linux.namespaces: a user namespace needs a mount namespace, since nothing may be \
             mounted in the runtime's from inside it",
        ));
    }
    if users && !spec.makes(NamespaceKind::Mount) && !spec.linux.devices.is_empty() {
        return Err(Failure::unsupported(
            "linux.devices: with a user namespace a new mount namespace is required, since nodes \
             are made in a copy of the one that is given by path",
        ));
    }
    if !spec.makes(NamespaceKind::Time) && !spec.linux.time_offsets.is_empty() {
        return Err(Failure::invalid(
            "linux.timeOffsets: needs a new time namespace",
        ));
    }
    offsets(&spec.linux.time_offsets)?;
    for (member, name) in [
        ("hostname", &spec.hostname),
        ("domainname", &spec.domainname),
    ] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if spec.namespace(NamespaceKind::Uts).is_none() {
            return Err(Failure::invalid(format!(
                "{member}: {name:?} needs a uts namespace of the container's own"
            )));
        }
        if name.len() > LONGEST_NAME {
            return Err(Failure::invalid(format!(
                "{member}: {name:?} is longer than {LONGEST_NAME} bytes"
            )));
        }
    }
    Ok(())
}

/// Longest host name or domain name that the kernel accepts.
const LONGEST_NAME: usize = 64;

/// Reads the namespaces of a specification and opens those that are joined.
pub(crate) fn plan(spec: &Spec) -> Result<NamespacePlan, Failure> {
    let mut plan = NamespacePlan {
        create: 0,
        unshare_cgroup: false,
        time_offsets: None,
        join_pid: None,
        user: None,
        join: Vec::new(),
    };
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        let flag = match namespace.kind {
            NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
            NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
            NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
            NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
            NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
            NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            NamespaceKind::Time => CLONE_NEWTIME,
            NamespaceKind::User => {
                plan.user = Some(match &namespace.path {
                    Some(path) => open(index, namespace.kind, path)?,
                    None => userns::make(&spec.linux.uid_mappings, &spec.linux.gid_mappings)?,
                });
                continue;
            }
        };
        match &namespace.path {
            None if namespace.kind == NamespaceKind::Cgroup => plan.unshare_cgroup = true,
            None if namespace.kind == NamespaceKind::Time => {
                plan.time_offsets = Some(offsets(&spec.linux.time_offsets)?);
            }
            None => plan.create |= flag.bits() as u64,
            Some(path) => {
                let fd = open(index, namespace.kind, path)?;
                if namespace.kind == NamespaceKind::Pid {
                    plan.join_pid = Some(fd);
                } else {
                    plan.join.push((fd, flag, namespace.kind));
                }
            }
        }
    }
    Ok(plan)
}

/// Opens a namespace, which must be of the expected kind.
fn open(index: usize, kind: NamespaceKind, path: &Path) -> Result<OwnedFd, Failure> {
    let shown = path.display();
    let member = format!("linux.namespaces[{index}].path");
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .step(|| format!("{member}: open {shown}"))?;
    let own = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let link = rustix::fs::readlink(&own, Vec::new()).step(|| format!("examine {shown}"))?;
    let name = match kind {
        NamespaceKind::Mount => "mnt",
        NamespaceKind::Network => "net",
        other => other.name(),
    };
    // The kernel names such files `net:[4026531840]`. If the file is bind mounted elsewhere, the
    // link shows that path instead, and the kernel checks the kind when the namespace is joined.
    let found = link.to_string_lossy();
    let is_named = match found.split_once(":[") {
        Some((found, _)) if !found.starts_with('/') => found == name,
        _ => rustix::fs::fstatfs(&fd).is_ok_and(|status| status.f_type as u64 == NSFS_MAGIC),
    };
    if !is_named {
        return Err(Failure::invalid(format!(
            "{member}: {shown} is not a {} namespace",
            kind.name()
        )));
    }
    Ok(fd)
}

/// The lines for /proc/PID/timens_offsets.
fn offsets(given: &BTreeMap<String, TimeOffset>) -> Result<String, Failure> {
    let mut text = String::new();
    for (clock, offset) in given {
        if clock != "monotonic" && clock != "boottime" {
            return Err(Failure::invalid(format!(
                "linux.timeOffsets: {clock:?} is not a clock (monotonic, boottime)"
            )));
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(Failure::invalid(format!(
                "linux.timeOffsets.{clock}.nanosecs: {} is a second or more",
                offset.nanosecs
            )));
        }
        text.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(text)
}

/// Joins existing namespaces.
pub(crate) fn join(plan: &NamespacePlan) -> Result<(), Failure> {
    for (fd, flag, kind) in &plan.join {
        nix::sched::setns(fd, *flag).step(|| {
            let name = kind.name();
            format!("linux.namespaces: join the {name} namespace")
        })?;
    }
    Ok(())
}

/// Makes the namespaces that clone3 does not make, while the host's files can still be reached.
pub(crate) fn make(plan: &NamespacePlan) -> Result<(), Failure> {
    if plan.unshare_cgroup {
        nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).step(|| "make a cgroup namespace")?;
    }
    if let Some(offsets) = &plan.time_offsets {
        nix::sched::unshare(CLONE_NEWTIME).step(|| "make a time namespace")?;
        if !offsets.is_empty() {
            std::fs::write("/proc/self/timens_offsets", offsets)
                .step(|| format!("linux.timeOffsets: set {offsets:?}"))?;
        }
    }
    Ok(())
}

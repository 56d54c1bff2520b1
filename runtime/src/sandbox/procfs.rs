//! Writes to procfs files from inside the container, through a procfs that the image can't
//! redirect.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::descriptors::put_off;
use super::filesystem::new_filesystem;
use super::options::Attributes;
use super::{paths, userns};
use crate::failure::{Failure, Step};
use crate::spec::{NamespaceKind, Spec};

/// Makes a procfs of the process's pid namespace that is not mounted anywhere. The process must
/// still have the host's root.
///
/// An ordinary user can't make a procfs of the host's pid namespace, which the container shares in
/// this case. The user's own procfs shows the same namespace, and the image can't redirect it
/// either.
pub(crate) fn private() -> Result<OwnedFd, Failure> {
    match new_filesystem("proc", None, &[], Attributes::default()) {
        Err(error) if error.errno == Errno::PERM && userns::is_restricted() => host(),
        made => made.step(|| "make a private procfs"),
    }
}

/// `f_type` of a procfs (statfs(2)).
pub(super) const MAGIC: u64 = 0x9fa0;

/// The host's procfs, in a process that still has the host's root.
pub(crate) fn host() -> Result<OwnedFd, Failure> {
    rustix::fs::open(
        "/proc",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step(|| "open /proc")
}

/// Sets the calling process's OOM score adjustment through the host's procfs, which containers
/// can't change.
pub(crate) fn set_oom_score(score: i32) -> Result<(), Failure> {
    write_oom_score(host()?.as_fd(), score)
}

/// The same through another procfs.
pub(crate) fn write_oom_score(proc: BorrowedFd<'_>, score: i32) -> Result<(), Failure> {
    write(proc, "self/oom_score_adj", &score.to_string()).map_err(|failure| Failure {
        message: format!("process.oomScoreAdj: {}", failure.message),
        ..failure
    })
}

/// Writes one value to a file of procfs.
pub(crate) fn write(proc: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Failure> {
    let step = || format!("write {value:?} to /proc/{file}");
    let fd = paths::openat2(
        proc,
        file,
        OFlags::WRONLY | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    )
    .step(step)?;
    rustix::io::write(&fd, value.as_bytes()).step(step)?;
    put_off(fd);
    Ok(())
}

/// Checks kernel parameters. Only those of a namespace that belongs to the container alone are
/// allowed.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    check_parameters(&spec.linux.sysctl, |kind| spec.namespace(kind).is_some())
}

/// Sets kernel parameters.
pub(crate) fn set_parameters(proc: BorrowedFd<'_>, spec: &Spec) -> Result<(), Failure> {
    check(spec)?;
    for (name, value) in &spec.linux.sysctl {
        write(proc.as_fd(), &file_of(name), value).map_err(|failure| Failure {
            message: format!("linux.sysctl {name}: {}", failure.message),
            ..failure
        })?;
    }
    Ok(())
}

/// The file of a parameter. Slashes may be used instead of dots, for names of network links that
/// contain dots.
fn file_of(name: &str) -> String {
    let path = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    format!("sys/{path}")
}

fn check_parameters(
    parameters: &BTreeMap<String, String>,
    has: impl Fn(NamespaceKind) -> bool,
) -> Result<(), Failure> {
    const IPC: &[&str] = &[
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    for name in parameters.keys() {
        // With `..` the path would lead to other parameters than the name begins with.
        if file_of(name)
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return Err(Failure::invalid(format!(
                "linux.sysctl: {name:?} is not the name of a kernel parameter"
            )));
        }
        let dotted = name.replace('/', ".");
        let kind = if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            NamespaceKind::Ipc
        } else if dotted.starts_with("net.") {
            NamespaceKind::Network
        } else if dotted == "kernel.domainname" {
            NamespaceKind::Uts
        } else {
            return Err(Failure::invalid(format!(
                "linux.sysctl: {name} does not belong to a namespace; it would change the host"
            )));
        };
        if !has(kind) {
            return Err(Failure::invalid(format!(
                "linux.sysctl: {name} needs a {} namespace of the container's own",
                kind.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_own_namespaces_pass() {
        let check = |name: &str, own: bool| {
            let parameters = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            check_parameters(&parameters, |_| own).is_ok()
        };
        assert!(check("net.ipv4.ip_forward", true));
        assert!(check("net/ipv4/conf/eth0.1/rp_filter", true));
        assert!(check("kernel.sem", true));
        assert!(!check("net.ipv4.ip_forward", false));
        assert!(!check("kernel.panic", true));
        assert!(!check("vm.swappiness", true));
        assert!(!check("net/../vm/swappiness", true));
        assert!(!check("net//ipv4", true));
        assert!(!check("net..ipv4", true));
        assert_eq!(file_of("net.ipv4.ip_forward"), "sys/net/ipv4/ip_forward");
    }
}

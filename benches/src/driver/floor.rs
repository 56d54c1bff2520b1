//! The kernel's part alone: one clone3 into the namespaces, the mounts, pivot_root, the seccomp
//! filter, the command. No cgroup, no devices, no capabilities, no checks.

use std::ffi::CString;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use keelson_runtime::check;
use keelson_sys::clone::{self, CloneRequest};
use keelson_sys::seccomp;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;

use super::Outcome;
use crate::bundle::{FILES, MASKED, READONLY};
use crate::usage;

/// Runs from clone3 until the process is reaped. The time for values that can be computed in
/// advance is not counted: a real runtime needs it, but the floor is the part that can't be
/// avoided.
pub(super) fn cycle(bundle: &Path, root: &Path) -> Result<Outcome> {
    let config = std::fs::read(bundle.join("config.json"))?;
    let Some(filter) = check::config(&config)? else {
        bail!("the bundle has no seccomp filter");
    };
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    let request = CloneRequest {
        namespaces: namespaces.bits() as u64,
        ..CloneRequest::default()
    };
    let begin = Instant::now();
    let (pid, _pidfd) = clone::run_in_child(&request, || match child(bundle, root, &filter) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("floor: {error:#}");
            1
        }
    })?;
    let (used, code) = usage::reap(pid)?;
    if code != 0 {
        bail!("the floor's process ended with code {code}");
    }
    let total = begin.elapsed();
    Ok(Outcome::new(total, total, used))
}

fn child(bundle: &Path, root: &Path, filter: &check::FilterProgram) -> Result<()> {
    let locked = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    change("/", MsFlags::MS_SLAVE | MsFlags::MS_REC)?;
    bind(root, root, MsFlags::MS_REC)?;
    std::env::set_current_dir(root)?;
    attach("proc", "proc", locked, "")?;
    attach("tmpfs", "dev", MsFlags::MS_NOSUID, "mode=755,size=65536k")?;
    for name in ["dev/pts", "dev/mqueue", "dev/shm"] {
        nix::unistd::mkdir(name, nix::sys::stat::Mode::S_IRWXU)?;
    }
    attach(
        "devpts",
        "dev/pts",
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5",
    )?;
    attach("sysfs", "sys", locked | MsFlags::MS_RDONLY, "")?;
    attach("cgroup2", "sys/fs/cgroup", locked | MsFlags::MS_RDONLY, "")?;
    attach("mqueue", "dev/mqueue", locked, "")?;
    attach("tmpfs", "dev/shm", locked, "mode=1777,size=67108864")?;
    for name in FILES {
        bind(
            &bundle.join(name),
            &Path::new("etc").join(name),
            MsFlags::empty(),
        )?;
    }
    for path in READONLY {
        let path = path.trim_start_matches('/');
        if !Path::new(path).exists() {
            continue;
        }
        bind(Path::new(path), Path::new(path), MsFlags::MS_REC)?;
        change(
            path,
            MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | locked,
        )?;
    }
    for path in MASKED {
        let path = Path::new(path.trim_start_matches('/'));
        if path.is_dir() {
            let flags = MsFlags::MS_RDONLY;
            mount(None::<&str>, path, Some("tmpfs"), flags, None::<&str>)?;
        } else if path.exists() {
            bind(Path::new("/dev/null"), path, MsFlags::empty())?;
        }
    }
    nix::unistd::pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmount the old root")?;
    nix::unistd::sethostname("bench")?;
    seccomp::install(&filter.instructions, filter.flags).context("seccomp")?;
    let environment: [CString; 0] = [];
    nix::unistd::execve(c"/bin/true", &[c"true"], &environment).context("execute")?;
    Ok(())
}

fn attach(kind: &str, to: &str, flags: MsFlags, data: &str) -> Result<()> {
    mount(Some(kind), to, Some(kind), flags, Some(data)).with_context(|| format!("mount {to}"))
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(Some(from), to, none, flags | MsFlags::MS_BIND, none)
        .with_context(|| format!("bind {}", to.display()))
}

fn change(path: &str, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(none, path, none, flags, none).with_context(|| format!("change {path}"))
}

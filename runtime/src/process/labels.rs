//! AppArmor profiles and SELinux labels: checked against what this kernel has, and set for the
//! command through the procfs file for the next execution.

use std::os::fd::BorrowedFd;

use crate::failure::Failure;
use crate::sandbox::procfs;
use crate::spec::{Linux, Process};

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// Refuses what this kernel can't enforce.
pub(crate) fn check(process: &Process) -> Result<(), Failure> {
    if let Some(profile) = given(&process.apparmor_profile)
        && !has_apparmor()
    {
        return Err(Failure::invalid(format!(
            "process.apparmorProfile {profile:?}: AppArmor is not enabled in this kernel"
        )));
    }
    if let Some(label) = given(&process.selinux_label)
        && !has_selinux()
    {
        return Err(Failure::invalid(format!(
            "process.selinuxLabel {label:?}: SELinux is not enabled in this kernel"
        )));
    }
    Ok(())
}

/// Refuses labels of mounts if the kernel has no labels.
pub(crate) fn check_mounts(linux: &Linux) -> Result<(), Failure> {
    match given(&linux.mount_label) {
        Some(label) if !has_selinux() => Err(Failure::invalid(format!(
            "linux.mountLabel {label:?}: SELinux is not enabled in this kernel"
        ))),
        _ => Ok(()),
    }
}

/// Whether the kernel enforces AppArmor profiles.
fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.starts_with('Y'))
}

/// Whether the kernel enforces SELinux labels.
fn has_selinux() -> bool {
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|status| status.f_type as u64 == SELINUX_MAGIC)
}

/// Whether [`set`] has something to do.
pub(crate) fn any(process: &Process) -> bool {
    given(&process.apparmor_profile).is_some() || given(&process.selinux_label).is_some()
}

/// Sets the profile and the label for the process's next execution. `own` names the process in the
/// procfs.
pub(crate) fn set(proc: BorrowedFd<'_>, own: &str, process: &Process) -> Result<(), Failure> {
    let named = |member: &str, failure: Failure| Failure {
        message: format!("{member}: {}", failure.message),
        ..failure
    };
    if let Some(profile) = given(&process.apparmor_profile) {
        let value = format!("exec {profile}");
        // The first is the interface's own place, the second the one it shared with other modules.
        procfs::write(proc, &format!("{own}/attr/apparmor/exec"), &value)
            .or_else(|_| procfs::write(proc, &format!("{own}/attr/exec"), &value))
            .map_err(|failure| named("process.apparmorProfile", failure))?;
    }
    if let Some(label) = given(&process.selinux_label) {
        procfs::write(proc, &format!("{own}/attr/exec"), label)
            .map_err(|failure| named("process.selinuxLabel", failure))?;
    }
    Ok(())
}

//! Checks of a specification that need no machine and that its parser does not do: names, ranges,
//! and settings that exclude each other. The modules that apply the settings provide the error
//! texts. Done before anything is made.

use super::{limits, scheduling};
use crate::cgroup;
use crate::failure::Failure;
use crate::sandbox::root::Propagation;
use crate::sandbox::{devices, mounts, namespaces, procfs};
use crate::spec::{Process, Spec};

/// Checks a container's specification.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    let linux = &spec.linux;
    namespaces::check(spec)?;
    Propagation::parse(linux.rootfs_propagation.as_deref())?;
    mounts::check(&spec.mounts)?;
    devices::check(&linux.devices)?;
    procfs::check(spec)?;
    if let Some(personality) = &linux.personality {
        limits::domain_of(personality)?;
    }
    if let Some(resources) = &linux.resources {
        cgroup::resources::plan(resources)?;
        cgroup::devices::judge(&resources.devices)?;
    }
    match &spec.process {
        Some(process) => check_process(process),
        None => Ok(()),
    }
}

/// Checks a process on its own.
pub(crate) fn check_process(process: &Process) -> Result<(), Failure> {
    limits::check(&process.rlimits)?;
    scheduling::check(process)
}

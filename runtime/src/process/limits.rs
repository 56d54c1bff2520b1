//! Resource limits and execution domain of the process.

use keelson_sys::sandbox;

use crate::failure::{Failure, Step};
use crate::spec::{Personality, Rlimit};

/// Names in the order of their numbers on x86.
const NAMES: &[&str] = &[
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

fn number_of(index: usize, limit: &Rlimit) -> Result<u32, Failure> {
    NAMES
        .iter()
        .position(|name| *name == limit.kind)
        .map(|number| number as u32)
        .ok_or_else(|| {
            Failure::invalid(format!(
                "process.rlimits[{index}].type: {:?} is not a limit",
                limit.kind
            ))
        })
}

fn set(number: u32, index: usize, limit: &Rlimit) -> Result<(), Failure> {
    sandbox::set_limit(number, limit.soft, limit.hard).step(|| {
        format!(
            "process.rlimits[{index}]: set {} to {} (hard {})",
            limit.kind, limit.soft, limit.hard
        )
    })
}

/// Checks the limits' names.
pub(crate) fn check(limits: &[Rlimit]) -> Result<(), Failure> {
    for (index, limit) in limits.iter().enumerate() {
        number_of(index, limit)?;
    }
    Ok(())
}

/// Sets the resource limits.
pub(crate) fn set_limits(limits: &[Rlimit]) -> Result<(), Failure> {
    for (index, limit) in limits.iter().enumerate() {
        set(number_of(index, limit)?, index, limit)?;
    }
    Ok(())
}

/// Raises hard limits to the requested values, which needs privileges on the host. When the set-up
/// is done, [`set_limits`] only has to lower limits.
pub(crate) fn raise(limits: &[Rlimit]) -> Result<(), Failure> {
    for (index, limit) in limits.iter().enumerate() {
        let number = number_of(index, limit)?;
        let (soft, hard) = sandbox::limit(number)
            .step(|| format!("process.rlimits[{index}]: read {}", limit.kind))?;
        if hard < limit.hard {
            let raised = Rlimit {
                soft,
                ..limit.clone()
            };
            set(number, index, &raised)?;
        }
    }
    Ok(())
}

/// The number of an execution domain.
pub(crate) fn domain_of(personality: &Personality) -> Result<u64, Failure> {
    if let Some(flag) = personality.flags.first() {
        return Err(Failure::unsupported(format!(
            "linux.personality.flags: {flag:?} is not supported"
        )));
    }
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Failure::invalid(format!(
            "linux.personality.domain: {other:?} is not LINUX or LINUX32"
        ))),
    }
}

/// Sets the execution domain.
pub(crate) fn set_personality(personality: &Personality) -> Result<(), Failure> {
    sandbox::set_personality(domain_of(personality)?).step(|| "linux.personality: set")
}

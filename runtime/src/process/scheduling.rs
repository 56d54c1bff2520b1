//! `process.scheduler` and `process.ioPriority`.

use keelson_sys::scheduling::{self, SchedulingAttributes};
use nix::sched::CpuSet;

use crate::failure::{self, Failure, Step};
use crate::spec::{IoPriority, Process, Scheduler};

/// Names of policies with their numbers.
const POLICIES: &[(&str, u32)] = &[
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: &[(&str, u64)] = &[
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const CLASSES: &[(&str, u32)] = &[
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];

fn number<T: Copy>(member: &str, names: &[(&str, T)], name: &str) -> Result<T, Failure> {
    names
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
        .ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
            refused(member, &format!("{name:?} is none of {}", known.join(", ")))
        })
}

fn refused(member: &str, reason: &str) -> Failure {
    Failure::invalid(format!("process.{member}: {reason}"))
}

/// Checks the scheduling settings of a process.
pub(crate) fn check(process: &Process) -> Result<(), Failure> {
    if let Some(scheduler) = &process.scheduler {
        attributes(scheduler)?;
    }
    if let Some(priority) = &process.io_priority {
        class_of(priority)?;
    }
    if let Some(affinity) = &process.exec_cpu_affinity {
        for (name, list) in [("initial", &affinity.initial), ("final", &affinity.last)] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                processors_of(name, list)?;
            }
        }
    }
    Ok(())
}

fn attributes(scheduler: &Scheduler) -> Result<SchedulingAttributes, Failure> {
    let mut flags = 0;
    for (index, flag) in scheduler.flags.iter().enumerate() {
        flags |= number(&format!("scheduler.flags[{index}]"), FLAGS, flag)?;
    }
    let policy = number("scheduler.policy", POLICIES, &scheduler.policy)?;
    let name = &scheduler.policy;
    let real_time = matches!(name.as_str(), "SCHED_FIFO" | "SCHED_RR");
    let range = if real_time { 1..=99 } else { 0..=0 };
    let priority = u32::try_from(scheduler.priority)
        .ok()
        .filter(|priority| range.contains(priority))
        .ok_or_else(|| {
            let (given, first, last) = (scheduler.priority, range.start(), range.end());
            let reason = format!("{given} is not between {first} and {last}, as {name} needs it");
            refused("scheduler.priority", &reason)
        })?;
    if !(-20..=19).contains(&scheduler.nice) {
        let reason = format!("{} is not between -20 and 19", scheduler.nice);
        return Err(refused("scheduler.nice", &reason));
    }
    check_deadline(scheduler)?;
    Ok(SchedulingAttributes {
        policy,
        flags,
        nice: scheduler.nice,
        priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..SchedulingAttributes::default()
    })
}

/// The times of the deadline policy, in nanoseconds; without a period it is the deadline.
fn check_deadline(scheduler: &Scheduler) -> Result<(), Failure> {
    let Scheduler {
        policy,
        runtime,
        deadline,
        period,
        ..
    } = scheduler;
    for (name, time) in [
        ("runtime", *runtime),
        ("deadline", *deadline),
        ("period", *period),
    ] {
        if policy != "SCHED_DEADLINE" && time != 0 {
            let reason = format!("{time} has no meaning for {policy}, only for SCHED_DEADLINE");
            return Err(refused(&format!("scheduler.{name}"), &reason));
        }
    }
    if runtime > deadline {
        let reason = format!("{runtime} is more than the deadline {deadline}");
        return Err(refused("scheduler.runtime", &reason));
    }
    if *period != 0 && deadline > period {
        let reason = format!("{deadline} is more than the period {period}");
        return Err(refused("scheduler.deadline", &reason));
    }
    Ok(())
}

/// Sets both for the calling process.
pub(crate) fn set(process: &Process) -> Result<(), Failure> {
    if let Some(scheduler) = &process.scheduler {
        set_scheduler(scheduler)?;
    }
    if let Some(priority) = &process.io_priority {
        set_io_priority(priority)?;
    }
    Ok(())
}

/// Sets how the process is scheduled.
fn set_scheduler(scheduler: &Scheduler) -> Result<(), Failure> {
    let attributes = attributes(scheduler)?;
    scheduling::set_scheduling(&attributes)
        .step(|| format!("process.scheduler: set {}", scheduler.policy))
}

/// Sets the priority of the process's disk accesses.
fn set_io_priority(priority: &IoPriority) -> Result<(), Failure> {
    scheduling::set_io_priority(class_of(priority)?, priority.priority)
        .step(|| format!("process.ioPriority: set {}", priority.class))
}

fn class_of(priority: &IoPriority) -> Result<u32, Failure> {
    let class = number("ioPriority.class", CLASSES, &priority.class)?;
    if priority.priority > 7 {
        let reason = format!("{} is not a level (0 to 7)", priority.priority);
        return Err(refused("ioPriority.priority", &reason));
    }
    Ok(class)
}

/// Lets the process run on every processor that its cgroup has: the caller may have been pinned to
/// some processors, but that is no choice of the container.
pub(crate) fn reset_affinity() {
    let mut all = CpuSet::new();
    let filled = (0..CpuSet::count()).try_for_each(|number| all.set(number));
    let this = nix::unistd::Pid::from_raw(0);
    if let Err(errno) = filled.and_then(|()| nix::sched::sched_setaffinity(this, &all)) {
        // As runc: the process runs anyway, on fewer processors.
        failure::warning(format!("reset the CPU affinity: {}", errno.desc()));
    }
}

/// Sets on which processors a further process of a container runs: first `initial`, until the
/// process is set up, then `final`. Without `final`, `initial` stays.
pub(crate) fn set_affinity(process: &Process, last: bool) -> Result<(), Failure> {
    let Some(affinity) = &process.exec_cpu_affinity else {
        return Ok(());
    };
    let (name, list) = match last {
        false => ("initial", &affinity.initial),
        true => ("final", &affinity.last),
    };
    let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else {
        return Ok(());
    };
    let processors = processors_of(name, list)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &processors)
        .step(|| format!("process.execCPUAffinity.{name}: run on {list}"))
}

fn processors_of(name: &str, list: &str) -> Result<CpuSet, Failure> {
    processors(list).ok_or_else(|| {
        let reason = format!("{list:?} is not a list of processors such as 0-3,7");
        refused(&format!("execCPUAffinity.{name}"), &reason)
    })
}

fn processors(list: &str) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CpuSet::count() {
            return None;
        }
        for number in first..=last {
            set.set(number).ok()?;
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        let set = processors("0-2, 5").unwrap();
        let found: Vec<usize> = (0..8).filter(|cpu| set.is_set(*cpu).unwrap()).collect();
        assert_eq!(found, [0, 1, 2, 5]);
        for list in ["", "x", "3-1", "1-", "99999", "1,,2"] {
            assert!(processors(list).is_none(), "{list:?}");
        }
    }

    #[test]
    fn names_become_numbers() {
        let scheduler = |text: &str| serde_json::from_str::<Scheduler>(text).unwrap();
        let parsed = attributes(&scheduler(
            r#"{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_FLAG_RESET_ON_FORK"]}"#,
        ))
        .unwrap();
        assert_eq!((parsed.policy, parsed.nice, parsed.flags), (3, 5, 1));
        for (text, member) in [
            (r#"{"policy":"SCHED_X"}"#, "scheduler.policy"),
            (
                r#"{"policy":"SCHED_RR","priority":-1}"#,
                "scheduler.priority",
            ),
            (
                r#"{"policy":"SCHED_RR","flags":["X"]}"#,
                "scheduler.flags[0]",
            ),
        ] {
            let message = attributes(&scheduler(text)).unwrap_err().message;
            assert!(message.contains(member), "{message}");
        }
    }
}

//! Capabilities by Docker's rules.

use crate::EngineError;

/// capabilities(7), by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when nothing is asked for.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The set that results from the default one and what a client adds and drops, as a bit mask.
/// `available` is what the engine itself can give away (CapBnd of its process).
pub(crate) fn resolve(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: u64,
) -> Result<u64, EngineError> {
    let add = parse("CapAdd", add)?;
    let drop = parse("CapDrop", drop)?;
    if privileged {
        return Ok(available);
    }
    let (mut set, dropped) = match (add, drop) {
        (Wanted::All, Wanted::All) => (0, 0),
        (Wanted::All, Wanted::These(drop)) => (available, drop),
        (Wanted::These(_), Wanted::All) => (0, 0),
        (Wanted::These(_), Wanted::These(drop)) => (default_set() & available, drop),
    };
    set &= !dropped;
    if let Wanted::These(add) = add {
        if let Some(name) = names(add & !available).first() {
            return Err(EngineError::Invalid(format!(
                "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \"{name}\""
            )));
        }
        set |= add;
    }
    Ok(set)
}

/// The names in a set: `CAP_CHOWN`, …, by number.
pub(crate) fn names(set: u64) -> Vec<String> {
    ALL.iter()
        .enumerate()
        .filter(|(number, _)| set & (1 << number) != 0)
        .map(|(_, name)| format!("CAP_{name}"))
        .collect()
}

#[derive(Clone, Copy)]
enum Wanted {
    All,
    These(u64),
}

fn parse(member: &str, list: &[String]) -> Result<Wanted, EngineError> {
    let mut set = 0;
    let mut all = false;
    for text in list {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            all = true;
        } else {
            set |= bit(name).ok_or_else(|| {
                EngineError::Invalid(format!(
                    "invalid {member}: unknown capability: \"CAP_{name}\""
                ))
            })?;
        }
    }
    Ok(if all { Wanted::All } else { Wanted::These(set) })
}

fn bit(name: &str) -> Option<u64> {
    ALL.iter()
        .position(|known| *known == name)
        .map(|number| 1 << number)
}

fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|name| bit(name)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = (1 << 41) - 1;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        names(resolve(&owned(add), &owned(drop), false, FULL).unwrap())
    }

    #[test]
    fn default_is_docker_s() {
        assert_eq!(default_set(), 0xa804_25fb);
        assert_eq!(set(&[], &[]).len(), 14);
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(set(&["sys_time"], &["ALL"]), ["CAP_SYS_TIME"]);
        assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert!(!set(&[], &["CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert!(set(&["CAP_NET_ADMIN"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert_eq!(set(&["KILL"], &["KILL"]).len(), 14);
        assert!(set(&[], &["all"]).is_empty());
    }

    #[test]
    fn unknown_and_unavailable_ones_are_refused() {
        let nope = ["NOPE".to_owned()];
        assert!(resolve(&nope, &[], false, FULL).is_err());
        assert!(resolve(&[], &nope, true, FULL).is_err());
        let add = ["SYS_RESOURCE".to_owned()];
        let error = resolve(&add, &[], false, FULL & !(1 << 24)).unwrap_err();
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"));
        assert_eq!(resolve(&[], &[], true, 7).unwrap(), 7);
    }
}

//! Capabilities by Docker's rules.

use std::collections::BTreeSet;

use hostd_containers::{capabilities_in, is_capability};
use keelson_model::spec::CapabilitySet;

use super::invalid;
use crate::error::ApiError;

/// The default capabilities of a container.
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

/// The default set with what a client adds and drops. `available` is the set that the engine can pass
/// on (CapBnd of its process).
pub(super) fn resolve(
    add: &[String],
    drop: &[String],
    privileged: bool,
    available: u64,
) -> Result<CapabilitySet, ApiError> {
    let add = parse("CapAdd", add)?;
    let drop = parse("CapDrop", drop)?;
    if privileged {
        return Ok(CapabilitySet::All);
    }
    let available: BTreeSet<String> = capabilities_in(available).map(str::to_owned).collect();
    let (mut set, dropped) = match (&add, drop) {
        (CapabilityList::All, CapabilityList::All)
        | (CapabilityList::These(_), CapabilityList::All) => (BTreeSet::new(), BTreeSet::new()),
        (CapabilityList::All, CapabilityList::These(drop)) if drop.is_empty() => {
            return Ok(CapabilitySet::All);
        }
        (CapabilityList::All, CapabilityList::These(drop)) => (available.clone(), drop),
        (CapabilityList::These(_), CapabilityList::These(drop)) => {
            let usual = DEFAULT.iter().map(|&name| name.to_owned());
            let set = usual.filter(|name| available.contains(name)).collect();
            (set, drop)
        }
    };
    set.retain(|name| !dropped.contains(name));
    if let CapabilityList::These(add) = add {
        if let Some(name) = add.difference(&available).next() {
            return invalid(format!(
                "invalid CapAdd: capability not supported by your kernel or not available in the current environment: \"CAP_{name}\""
            ));
        }
        set.extend(add);
    }
    Ok(CapabilitySet::Only(set))
}

/// The names in a set as seccomp profiles write them: `CAP_CHOWN`, ….
pub(super) fn names(set: &CapabilitySet, available: u64) -> Vec<String> {
    match set {
        CapabilitySet::All => capabilities_in(available)
            .map(|name| format!("CAP_{name}"))
            .collect(),
        CapabilitySet::Only(names) => names.iter().map(|name| format!("CAP_{name}")).collect(),
    }
}

enum CapabilityList {
    All,
    These(BTreeSet<String>),
}

fn parse(member: &str, list: &[String]) -> Result<CapabilityList, ApiError> {
    let mut set = BTreeSet::new();
    let mut all = false;
    for text in list {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            all = true;
        } else if is_capability(name) {
            set.insert(name.to_owned());
        } else {
            return invalid(format!(
                "invalid {member}: unknown capability: \"CAP_{name}\""
            ));
        }
    }
    Ok(if all {
        CapabilityList::All
    } else {
        CapabilityList::These(set)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = (1 << 41) - 1;

    fn set(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let set = resolve(&owned(add), &owned(drop), false, FULL).unwrap();
        names(&set, FULL)
    }

    #[test]
    fn default_is_docker_s() {
        let mask: u64 = capabilities_in(FULL)
            .enumerate()
            .filter(|(_, name)| DEFAULT.contains(name))
            .map(|(number, _)| 1 << number)
            .sum();
        assert_eq!(mask, 0xa804_25fb);
        assert_eq!(set(&[], &[]).len(), 14);
    }

    #[test]
    fn add_and_drop() {
        assert_eq!(set(&["sys_time"], &["ALL"]), ["CAP_SYS_TIME"]);
        assert_eq!(set(&["ALL"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert_eq!(set(&["ALL"], &[]).len(), 41);
        assert!(set(&["ALL"], &["ALL"]).is_empty());
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
        assert_eq!(resolve(&[], &[], true, 7).unwrap(), CapabilitySet::All);
    }
}

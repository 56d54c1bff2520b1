//! Mappings of user and group ids, for user namespaces and for mounts.

use serde::Deserialize;

use super::{LoadError, NamespaceKind, Spec};

/// How many extents the kernel accepts in one map.
const MOST: usize = 340;
/// The kernel accepts a map only in one write that is shorter than a page.
const LONGEST: usize = 4095;

/// One extent of `uidMappings` or `gidMappings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container: u32,
    #[serde(rename = "hostID")]
    pub(crate) host: u32,
    pub(crate) size: u32,
}

/// The text for /proc/PID/uid_map or gid_map.
pub(crate) fn text(mappings: &[IdMapping]) -> String {
    let mut text = String::new();
    for mapping in mappings {
        let IdMapping {
            container,
            host,
            size,
        } = mapping;
        text.push_str(&format!("{container} {host} {size}\n"));
    }
    text
}

/// The id outside for an id inside.
pub(crate) fn outside(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container)?;
        (offset < mapping.size).then(|| mapping.host + offset)
    })
}

/// Checks the mappings of the container and of its mounts.
pub(super) fn check(spec: &Spec) -> Result<(), LoadError> {
    let linux = &spec.linux;
    let user = spec.namespace(NamespaceKind::User);
    for (member, mappings) in [
        ("linux.uidMappings", &linux.uid_mappings),
        ("linux.gidMappings", &linux.gid_mappings),
    ] {
        check_list(member, mappings)?;
        let missing = |reason: &str| Err(LoadError::value(member, reason));
        if mappings.is_empty() {
            if spec.makes(NamespaceKind::User) {
                return missing("is missing, and a new user namespace needs it");
            }
        } else if user.is_none() {
            return missing("has no meaning without a user namespace");
        } else if outside(mappings, 0).is_none() {
            return missing("does not map id 0, as which the container is set up");
        }
    }
    if let (Some(process), Some(_)) = (&spec.process, user) {
        for (member, mappings, id) in [
            ("process.user.uid", &linux.uid_mappings, process.user.uid),
            ("process.user.gid", &linux.gid_mappings, process.user.gid),
        ] {
            if !mappings.is_empty() && outside(mappings, id).is_none() {
                return Err(LoadError::value(
                    member,
                    format!("{id} is not in the user namespace's mappings"),
                ));
            }
        }
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        let member = |name: &str| format!("mounts[{index}].{name}");
        check_list(&member("uidMappings"), &mount.uid_mappings)?;
        check_list(&member("gidMappings"), &mount.gid_mappings)?;
        let missing = match (mount.uid_mappings.is_empty(), mount.gid_mappings.is_empty()) {
            (true, false) => "uidMappings",
            (false, true) => "gidMappings",
            _ => continue,
        };
        return Err(LoadError::value(
            member(missing),
            "is missing; both kinds of mappings are needed",
        ));
    }
    Ok(())
}

fn check_list(member: &str, mappings: &[IdMapping]) -> Result<(), LoadError> {
    if mappings.len() > MOST || text(mappings).len() > LONGEST {
        return Err(LoadError::value(
            member,
            format!(
                "{} entries are more than the kernel takes ({MOST}, or {LONGEST} bytes of text)",
                mappings.len()
            ),
        ));
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let refused = |name: &str, reason: String| {
            Err(LoadError::value(
                format!("{member}[{index}].{name}"),
                reason,
            ))
        };
        if mapping.size == 0 {
            return refused("size", "must not be 0".to_owned());
        }
        // The last id is the kernel's "none".
        for (name, first) in [("containerID", mapping.container), ("hostID", mapping.host)] {
            if first.checked_add(mapping.size).is_none() {
                return refused(
                    name,
                    format!(
                        "{first} and {} ids from there exceed 4294967294",
                        mapping.size
                    ),
                );
            }
        }
        for (earlier, other) in mappings.iter().take(index).enumerate() {
            for (name, one, two) in [
                ("containerID", mapping.container, other.container),
                ("hostID", mapping.host, other.host),
            ] {
                if one < two + other.size && two < one + mapping.size {
                    return refused(name, format!("overlaps with {member}[{earlier}]"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(container: u32, host: u32, size: u32) -> IdMapping {
        IdMapping {
            container,
            host,
            size,
        }
    }

    #[test]
    fn ids_are_looked_up() {
        let list = [mapping(0, 1000, 10), mapping(10, 5000, 1)];
        assert_eq!(outside(&list, 0), Some(1000));
        assert_eq!(outside(&list, 9), Some(1009));
        assert_eq!(outside(&list, 10), Some(5000));
        assert_eq!(outside(&list, 11), None);
        assert_eq!(text(&list), "0 1000 10\n10 5000 1\n");
    }

    #[test]
    fn bad_mappings_are_refused_by_name() {
        let error = |list: &[IdMapping]| check_list("m", list).unwrap_err().to_string();
        assert!(error(&[mapping(0, 0, 0)]).contains("m[0].size"));
        assert!(error(&[mapping(0, u32::MAX, 1)]).contains("m[0].hostID"));
        assert!(error(&[mapping(2, 0, u32::MAX)]).contains("m[0].containerID"));
        let overlap = error(&[mapping(0, 0, 10), mapping(9, 100, 1)]);
        assert!(
            overlap.contains("m[1].containerID") && overlap.contains("m[0]"),
            "{overlap}"
        );
        assert!(error(&[mapping(0, 0, 10), mapping(10, 9, 1)]).contains("m[1].hostID"));
        let many: Vec<_> = (0..341).map(|id| mapping(id, id, 1)).collect();
        assert!(error(&many).contains("341 entries"));
        let fit: Vec<_> = (0..340).map(|id| mapping(id, id, 1)).collect();
        check_list("m", &fit).unwrap();
    }

    #[test]
    fn mappings_and_namespaces_belong_together() {
        let error = |text: &str| {
            super::super::parse(text.as_bytes())
                .unwrap_err()
                .to_string()
        };
        let start = r#"{"ociVersion":"1.2.0","process":{"args":["a"],"cwd":"/","user":{"uid":7,"gid":0}},"linux":{"#;
        let map = r#"Mappings":[{"containerID":0,"hostID":1000,"size":5}]"#;
        assert!(error(&format!(r#"{start}"uid{map}}}}}"#)).contains("without a user namespace"));
        let user = r#""namespaces":[{"type":"user"}]"#;
        assert!(error(&format!("{start}{user}}}}}")).contains("linux.uidMappings: is missing"));
        assert!(
            error(&format!(r#"{start}{user},"uid{map}}}}}"#))
                .contains("linux.gidMappings: is missing")
        );
        assert!(
            error(&format!(r#"{start}{user},"uid{map},"gid{map}}}}}"#))
                .contains("process.user.uid: 7")
        );
        let wrong = map.replace(":0,", ":1,");
        assert!(error(&format!(r#"{start}{user},"uid{wrong}}}}}"#)).contains("map id 0"));
        let mount =
            format!(r#"{{"ociVersion":"1.2.0","mounts":[{{"destination":"/x","uid{map}}}]}}"#);
        assert!(error(&mount).contains("mounts[0].gidMappings"));
    }
}

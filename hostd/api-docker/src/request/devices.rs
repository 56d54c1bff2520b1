//! `HostConfig.Devices`, `HostConfig.DeviceRequests` and `HostConfig.DeviceCgroupRules`.

use keelson_model::spec::{DeviceAccess, DeviceKind, DeviceRule, DeviceSpec};

use super::invalid;
use crate::error::ApiError;
use crate::wire::{DeviceMapping, DeviceRequest};

/// One device. The engine checks whether its paths are absolute.
pub(super) fn device(mapping: &DeviceMapping) -> Result<DeviceSpec, ApiError> {
    let letters = match mapping.cgroup_permissions.as_str() {
        "" => "rwm",
        letters => letters,
    };
    if letters.bytes().any(|letter| !b"rwm".contains(&letter)) {
        return invalid(format!("invalid device mode: {letters}"));
    }
    let target = match mapping.path_in_container.as_str() {
        "" => &mapping.path_on_host,
        path => path,
    };
    Ok(DeviceSpec {
        source: mapping.path_on_host.clone().into(),
        target: target.into(),
        access: access(letters),
    })
}

fn access(letters: &str) -> DeviceAccess {
    DeviceAccess {
        read: letters.contains('r'),
        write: letters.contains('w'),
        make_node: letters.contains('m'),
    }
}

/// The driver of vendors' devices (CDI).
const DESCRIBED: &str = "cdi";

/// The names of the requested vendors' devices. There is no other driver.
pub(super) fn described(requests: &[DeviceRequest]) -> Result<Vec<String>, ApiError> {
    let mut names = Vec::new();
    for request in requests {
        if request.driver != DESCRIBED {
            return invalid(format!(
                "could not select device driver \"{}\" with capabilities: {}",
                request.driver,
                go_lists(request.capabilities.as_deref().unwrap_or_default())
            ));
        }
        if request.count != 0 {
            return invalid("unexpected count in CDI device request");
        }
        if !request.options.is_empty() {
            return invalid("unexpected options in CDI device request");
        }
        names.extend(request.device_ids.iter().flatten().cloned());
    }
    Ok(names)
}

/// Formats lists of lists like Go: `[[gpu] [a b]]`.
fn go_lists(lists: &[Vec<String>]) -> String {
    let lists: Vec<_> = lists
        .iter()
        .map(|list| format!("[{}]", list.join(" ")))
        .collect();
    format!("[{}]", lists.join(" "))
}

/// A rule: `c 42:* rmw`.
pub(super) fn rule(text: &str) -> Result<DeviceRule, ApiError> {
    read_rule(text)
        .ok_or_else(|| ApiError::invalid(format!("invalid device cgroup rule format: '{text}'")))
}

fn read_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split(' ');
    let [kind, numbers, letters] = [words.next()?, words.next()?, words.next()?];
    let kind = match kind {
        "a" => DeviceKind::All,
        "c" => DeviceKind::Character,
        "b" => DeviceKind::Block,
        _ => return None,
    };
    let number = |text: &str| match text {
        "*" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let known = (1..=3).contains(&letters.len()) && letters.bytes().all(|b| b"rwm".contains(&b));
    if !known || words.next().is_some() {
        return None;
    }
    Some(DeviceRule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: access(letters),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let read = rule("c 42:* rm").unwrap();
        assert_eq!(read.kind, DeviceKind::Character);
        assert_eq!((read.major, read.minor), (Some(42), None));
        assert_eq!(read.access, access("rm"));
        for text in [
            "",
            "c",
            "d 1:1 r",
            "c 1:1",
            "c 1 r",
            "c 1:1 x",
            "c +1:1 r",
            "c 1:1 r r",
        ] {
            let error = rule(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("invalid device cgroup rule format: '{text}'")
            );
        }
    }

    fn mapping(inside: &str, letters: &str) -> DeviceMapping {
        DeviceMapping {
            path_on_host: "/dev/null".to_owned(),
            path_in_container: inside.to_owned(),
            cgroup_permissions: letters.to_owned(),
        }
    }

    #[test]
    fn what_is_left_out_is_everything_at_the_same_place() {
        let made = device(&mapping("", "")).unwrap();
        assert_eq!(made.target, made.source);
        assert!(made.access.read && made.access.write && made.access.make_node);
        let made = device(&mapping("/dev/x", "r")).unwrap();
        assert_eq!(made.target, std::path::Path::new("/dev/x"));
        assert!(made.access.read && !made.access.write && !made.access.make_node);
        assert!(device(&mapping("", "rwx")).is_err());
    }
}

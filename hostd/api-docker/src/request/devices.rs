//! `HostConfig.Devices`.

use keelson_model::spec::{DeviceAccess, DeviceSpec};

use super::invalid;
use crate::error::ApiError;
use crate::wire::DeviceMapping;

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
        access: DeviceAccess {
            read: letters.contains('r'),
            write: letters.contains('w'),
            make_node: letters.contains('m'),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

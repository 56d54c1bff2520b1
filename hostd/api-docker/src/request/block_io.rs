//! Translates Docker's limits of block devices, which are five lists, to the engine's limits by
//! device.

use std::path::Path;

use keelson_model::spec::{DeviceIo, IoLimits};

use super::invalid;
use crate::error::ApiError;
use crate::wire::{HostConfig, ThrottleDevice};

/// The member, its list, and the limit that it sets.
type Rates<'a> = (
    &'a str,
    &'a Option<Vec<ThrottleDevice>>,
    fn(&mut DeviceIo) -> &mut Option<u64>,
);

/// Parses the limits. A later entry for a device replaces an earlier one; 0 means no limit.
pub(super) fn limits(host: &HostConfig) -> Result<IoLimits, ApiError> {
    let mut limits = IoLimits {
        weight: (host.blkio_weight > 0).then_some(host.blkio_weight),
        devices: Vec::new(),
    };
    for given in host.blkio_weight_device.iter().flatten() {
        if !(10..=1000).contains(&given.weight) {
            return invalid(format!(
                "BlkioWeightDevice: Range of blkio weight is from 10 to 1000 (device {:?}, weight {})",
                given.path, given.weight
            ));
        }
        device(&mut limits, "BlkioWeightDevice", &given.path)?.weight = Some(given.weight);
    }
    let rates: [Rates<'_>; 4] = [
        (
            "BlkioDeviceReadBps",
            &host.blkio_device_read_bps,
            |device| &mut device.read_bytes,
        ),
        (
            "BlkioDeviceWriteBps",
            &host.blkio_device_write_bps,
            |device| &mut device.written_bytes,
        ),
        (
            "BlkioDeviceReadIOps",
            &host.blkio_device_read_iops,
            |device| &mut device.reads,
        ),
        (
            "BlkioDeviceWriteIOps",
            &host.blkio_device_write_iops,
            |device| &mut device.writes,
        ),
    ];
    for (member, list, rate) in rates {
        for given in list.iter().flatten().filter(|given| given.rate > 0) {
            *rate(device(&mut limits, member, &given.path)?) = Some(given.rate);
        }
    }
    Ok(limits)
}

fn device<'a>(
    limits: &'a mut IoLimits,
    member: &str,
    path: &str,
) -> Result<&'a mut DeviceIo, ApiError> {
    let node = Path::new(path);
    if !node.is_absolute() {
        return invalid(format!(
            "{member}: {path:?} is no absolute path of a block device"
        ));
    }
    let known = limits.devices.iter().position(|known| known.node == node);
    let index = known.unwrap_or(limits.devices.len());
    if known.is_none() {
        limits.devices.push(DeviceIo {
            node: node.to_owned(),
            ..DeviceIo::default()
        });
    }
    match limits.devices.get_mut(index) {
        Some(device) => Ok(device),
        None => invalid(format!("{member}: too many devices")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<IoLimits, ApiError> {
        limits(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn lists_become_devices() {
        let rate = |path: &str, rate: u64| json!([{"Path": path, "Rate": rate}]);
        let limits = read(json!({
            "BlkioWeight": 300,
            "BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 10}],
            "BlkioDeviceReadBps": rate("/dev/a", 1),
            "BlkioDeviceWriteBps": rate("/dev/b", 2),
            "BlkioDeviceReadIOps": rate("/dev/a", 3),
            "BlkioDeviceWriteIOps": rate("/dev/a", 0),
        }))
        .unwrap();
        assert_eq!(limits.weight, Some(300));
        let a = DeviceIo {
            node: "/dev/a".into(),
            weight: Some(10),
            read_bytes: Some(1),
            reads: Some(3),
            ..DeviceIo::default()
        };
        let b = DeviceIo {
            node: "/dev/b".into(),
            written_bytes: Some(2),
            ..DeviceIo::default()
        };
        assert_eq!(limits.devices, [a, b]);
        assert_eq!(read(json!({})).unwrap(), IoLimits::default());
    }

    #[test]
    fn zero_is_no_limit() {
        for value in [
            json!({"BlkioWeightDevice": [{"Path": "/dev/a", "Weight": 1001}]}),
            json!({"BlkioWeightDevice": [{"Path": "a", "Weight": 10}]}),
            json!({"BlkioDeviceReadBps": [{"Path": "a", "Rate": 10}]}),
        ] {
            let message = read(value).unwrap_err().to_string();
            assert!(message.starts_with("Blkio"), "{message}");
        }
    }
}

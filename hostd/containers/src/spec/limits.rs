//! Limits, brought to the OCI specification's `linux.resources` and `process.rlimits`.

use keelson_model::spec::{DeviceIo, IoLimits, Limits, MemorySwap, PidsLimit, Rlimit};
use serde_json::{Map, Value, json};

use crate::devices::BlockDevice;

/// `linux.resources` without devices, for a start. Only what was asked for is there, so that
/// nothing is written to cgroup files that need not be.
pub(crate) fn for_start(limits: &Limits) -> Map<String, Value> {
    let mut memory = Map::new();
    if let Some(limit) = limits.memory.limit {
        memory.insert("limit".to_owned(), json!(limit));
        let swap = match limits.memory.swap {
            MemorySwap::AsMemory => json!(limit.saturating_mul(2).min(i64::MAX.unsigned_abs())),
            MemorySwap::Together(bytes) => json!(bytes),
            MemorySwap::Unlimited => json!(-1),
        };
        memory.insert("swap".to_owned(), swap);
    }
    if let Some(reservation) = limits.memory.reservation {
        memory.insert("reservation".to_owned(), json!(reservation));
    }
    let mut cpu = Map::new();
    if let Some(shares) = limits.cpu.shares {
        cpu.insert("shares".to_owned(), json!(shares));
    }
    if let Some(quota) = limits.cpu.quota {
        cpu.insert("quota".to_owned(), json!(quota));
    }
    if let Some(period) = limits.cpu.period {
        cpu.insert("period".to_owned(), json!(period));
    }
    for (name, list) in [
        ("cpus", &limits.cpu.cpus),
        ("mems", &limits.cpu.memory_nodes),
    ] {
        if !list.is_empty() {
            cpu.insert(name.to_owned(), json!(list));
        }
    }
    let mut resources = Map::new();
    for (name, members) in [("memory", memory), ("cpu", cpu)] {
        if !members.is_empty() {
            resources.insert(name.to_owned(), Value::Object(members));
        }
    }
    if let Some(weight) = limits.io.weight {
        resources.insert("blockIO".to_owned(), json!({ "weight": weight }));
    }
    if let PidsLimit::AtMost(limit) = limits.pids {
        resources.insert("pids".to_owned(), json!({ "limit": limit }));
    }
    resources
}

/// The changes of block device limits for a running container. A rate without a limit is written as
/// 0, which removes an earlier limit. Devices without changes are left out.
pub(crate) fn io_of_update(before: &IoLimits, after: &IoLimits) -> IoLimits {
    let same_node = |one: &DeviceIo, other: &DeviceIo| one.node == other.node;
    let of = |list: &IoLimits, device: &DeviceIo| {
        let mut found = list.devices.iter();
        found.find(|other| same_node(other, device)).cloned()
    };
    let gone = before
        .devices
        .iter()
        .filter(|device| of(after, device).is_none());
    let devices = after.devices.iter().chain(gone).filter_map(|device| {
        let was = of(before, device).unwrap_or_default();
        let is = of(after, device).unwrap_or_default();
        let rate = |was: Option<u64>, is: Option<u64>| is.or(was.map(|_| 0));
        (was != is).then(|| DeviceIo {
            node: device.node.clone(),
            weight: is.weight,
            read_bytes: rate(was.read_bytes, is.read_bytes),
            written_bytes: rate(was.written_bytes, is.written_bytes),
            reads: rate(was.reads, is.reads),
            writes: rate(was.writes, is.writes),
        })
    });
    IoLimits {
        weight: after.weight,
        devices: devices.collect(),
    }
}

/// `linux.resources` that apply these limits to a running container; an earlier limit of processes
/// is removed. `io`: the changes for block devices, which have these numbers.
pub(crate) fn for_update(limits: &Limits, io: &IoLimits, found: &[BlockDevice]) -> Value {
    let mut resources = for_start(limits);
    if let Some(block) = block_io(io, found) {
        resources.insert("blockIO".to_owned(), block);
    }
    if limits.pids == PidsLimit::Unlimited {
        resources.insert("pids".to_owned(), json!({ "limit": -1 }));
    }
    Value::Object(resources)
}

/// `linux.resources.blockIO`, for devices with these numbers. `None`: nothing was requested.
pub(crate) fn block_io(limits: &IoLimits, found: &[BlockDevice]) -> Option<Value> {
    type Rates<'a> = (&'a str, fn(&DeviceIo) -> Option<u64>);
    const RATES: [Rates<'_>; 4] = [
        ("throttleReadBpsDevice", |device| device.read_bytes),
        ("throttleWriteBpsDevice", |device| device.written_bytes),
        ("throttleReadIOPSDevice", |device| device.reads),
        ("throttleWriteIOPSDevice", |device| device.writes),
    ];
    let mut members = Map::new();
    if let Some(weight) = limits.weight {
        members.insert("weight".to_owned(), json!(weight));
    }
    let devices = || limits.devices.iter().zip(found);
    let weights = devices().filter_map(|(device, BlockDevice { major, minor })| {
        let weight = device.weight?;
        Some(json!({ "major": major, "minor": minor, "weight": weight }))
    });
    let mut lists = vec![("weightDevice", weights.collect::<Vec<_>>())];
    lists.extend(RATES.map(|(name, rate)| {
        let rates = devices().filter_map(|(device, BlockDevice { major, minor })| {
            let rate = rate(device)?;
            Some(json!({ "major": major, "minor": minor, "rate": rate }))
        });
        (name, rates.collect())
    }));
    for (name, list) in lists {
        if !list.is_empty() {
            members.insert(name.to_owned(), Value::Array(list));
        }
    }
    (!members.is_empty()).then_some(Value::Object(members))
}

/// One of `process.rlimits`.
pub(crate) fn rlimit(limit: &Rlimit) -> Value {
    json!({
        "type": format!("RLIMIT_{}", limit.kind.as_str().to_ascii_uppercase()),
        "soft": limit.soft,
        "hard": limit.hard,
    })
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::{CpuLimits, MemoryLimits, RlimitKind};

    use super::*;

    fn limits() -> Limits {
        Limits {
            memory: MemoryLimits {
                limit: Some(64 << 20),
                ..MemoryLimits::default()
            },
            cpu: CpuLimits {
                quota: Some(150_000),
                period: Some(100_000),
                cpus: "0-1".to_owned(),
                ..CpuLimits::default()
            },
            pids: PidsLimit::AtMost(7),
            ..Limits::default()
        }
    }

    #[test]
    fn only_what_was_asked_for_is_there() {
        assert_eq!(
            Value::Object(for_start(&limits())),
            json!({
                "memory": {"limit": 64 << 20, "swap": 128 << 20},
                "cpu": {"quota": 150_000, "period": 100_000, "cpus": "0-1"},
                "pids": {"limit": 7},
            })
        );
        assert!(for_start(&Limits::default()).is_empty());
    }

    #[test]
    fn limits_of_block_devices_are_by_number() {
        let device = |node: &str| DeviceIo {
            node: node.into(),
            ..DeviceIo::default()
        };
        let limits = IoLimits {
            weight: Some(20),
            devices: vec![
                DeviceIo {
                    weight: Some(30),
                    reads: Some(5),
                    ..device("/dev/a")
                },
                DeviceIo {
                    written_bytes: Some(7),
                    reads: Some(6),
                    ..device("/dev/b")
                },
            ],
        };
        let found = [(8, 0), (8, 16)].map(|(major, minor)| BlockDevice { major, minor });
        assert_eq!(
            block_io(&limits, &found).unwrap(),
            json!({
                "weight": 20,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 30}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 16, "rate": 7}],
                "throttleReadIOPSDevice": [
                    {"major": 8, "minor": 0, "rate": 5},
                    {"major": 8, "minor": 16, "rate": 6},
                ],
            })
        );
        assert_eq!(block_io(&IoLimits::default(), &[]), None);
    }

    #[test]
    fn an_update_lifts_earlier_limits() {
        let mut limits = limits();
        limits.pids = PidsLimit::Unlimited;
        limits.memory.swap = MemorySwap::Unlimited;
        limits.cpu = CpuLimits {
            quota: Some(-1),
            ..CpuLimits::default()
        };
        assert!(!for_start(&limits).contains_key("pids"));
        assert_eq!(
            for_update(&limits, &IoLimits::default(), &[]),
            json!({
                "memory": {"limit": 64 << 20, "swap": -1},
                "cpu": {"quota": -1},
                "pids": {"limit": -1},
            })
        );
    }

    #[test]
    fn removed_rates_are_lifted() {
        let device = |node: &str, read_bytes, writes| DeviceIo {
            node: node.into(),
            read_bytes,
            writes,
            ..DeviceIo::default()
        };
        let io = |devices| IoLimits {
            weight: None,
            devices,
        };
        let before = io(vec![
            device("/dev/a", Some(1), Some(2)),
            device("/dev/b", Some(3), None),
            device("/dev/c", Some(4), None),
        ]);
        let after = io(vec![
            device("/dev/c", Some(4), None),
            device("/dev/a", Some(5), None),
            device("/dev/d", None, Some(6)),
        ]);
        let wanted = [
            device("/dev/a", Some(5), Some(0)),
            device("/dev/d", None, Some(6)),
            device("/dev/b", Some(0), None),
        ];
        assert_eq!(io_of_update(&before, &after).devices, wanted);
        assert_eq!(io_of_update(&after, &after).devices, []);
    }

    #[test]
    fn rlimits_have_the_kernels_names() {
        let limit = Rlimit {
            kind: RlimitKind::Core,
            soft: 0,
            hard: u64::MAX,
        };
        assert_eq!(
            rlimit(&limit),
            json!({"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX})
        );
        for kind in RlimitKind::ALL {
            assert_eq!(json!(kind), json!(kind.as_str()));
        }
    }
}

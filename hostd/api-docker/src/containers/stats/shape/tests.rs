use hostd_containers::Figures;
use hostd_containers::figures::MemoryDetails;
use serde_json::{Value, json};

use super::*;

fn measured() -> Measured {
    let traffic = |bytes| Traffic {
        bytes,
        packets: 2,
        errors: 3,
        dropped: 4,
    };
    Measured {
        at: "2026-01-16T13:55:22.165243637Z".parse().unwrap(),
        figures: Figures {
            cpu: CpuFigures {
                usage: Duration::from_micros(29_912),
                user: Duration::from_micros(7_918),
                system: Duration::from_micros(21_994),
                periods: 5,
                throttled_periods: 4,
                throttled: Duration::from_micros(3),
            },
            memory: Some(MemoryFigures {
                current: 5000,
                limit: Limit::Unlimited,
                out_of_memory: 2,
                details: MemoryDetails::parse(
                    b"inactive_file 1000\nworkingset_refault_anon 1\nworkingset_refault_file 2\n",
                ),
            }),
            pids: Some(PidsFigures {
                current: 5,
                limit: Limit::Unlimited,
            }),
            devices: Some(vec![DeviceFigures {
                major: 254,
                minor: 0,
                read: 7_593_984,
                written: 100,
            }]),
        },
        interfaces: Some(vec![Interface {
            name: "eth0".to_owned(),
            received: traffic(5338),
            sent: traffic(648),
        }]),
        processors: ProcessorFigures {
            time: Duration::from_millis(7_393_060),
            online: 4,
        },
        machine_memory: 1 << 30,
    }
}

fn shown(measured: Option<&Measured>, before: Option<&Measured>) -> Value {
    serde_json::to_value(StatsDocument::new("0123", "web", measured, before)).unwrap()
}

const NULLS: [&str; 7] = [
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
];

#[test]
fn a_running_container() {
    let measured = measured();
    let shown = shown(Some(&measured), None);
    assert_eq!(shown["name"], "/web");
    assert_eq!(shown["read"], "2026-01-16T13:55:22.165243637Z");
    assert_eq!(shown["preread"], times::NEVER);
    assert_eq!(
        shown["cpu_stats"],
        json!({
            "cpu_usage": {
                "total_usage": 29_912_000,
                "usage_in_kernelmode": 21_994_000,
                "usage_in_usermode": 7_918_000,
            },
            "system_cpu_usage": 7_393_060_000_000u64,
            "online_cpus": 4,
            "throttling_data": {"periods": 5, "throttled_periods": 4, "throttled_time": 3000},
        })
    );
    assert_eq!(
        shown["pids_stats"],
        json!({"current": 5, "limit": u64::MAX})
    );
    assert_eq!(
        shown["blkio_stats"]["io_service_bytes_recursive"],
        json!([
            {"major": 254, "minor": 0, "op": "read", "value": 7_593_984},
            {"major": 254, "minor": 0, "op": "write", "value": 100},
        ])
    );
    for name in NULLS {
        assert_eq!(shown["blkio_stats"][name], Value::Null);
        assert!(shown["blkio_stats"].get(name).is_some(), "{name}");
    }
    let memory = &shown["memory_stats"];
    assert_eq!(memory["usage"], 5000);
    assert_eq!(memory["failcnt"], 2);
    // Unlimited, and more than the machine has.
    assert_eq!(memory["limit"], 1 << 30);
    assert_eq!(memory["stats"]["inactive_file"], 1000);
    assert_eq!(memory["stats"]["workingset_refault"], 3);
    // Clients would interpret these members as those of cgroup version 1.
    assert!(memory["stats"].get("total_inactive_file").is_none());
    assert!(memory.get("max_usage").is_none());
    // All names of the API's description, and no others.
    assert_eq!(memory["stats"].as_object().unwrap().len(), 31);
    assert_eq!(shown["networks"]["eth0"]["rx_bytes"], 5338);
    assert_eq!(shown["networks"]["eth0"]["tx_dropped"], 4);
}

#[test]
fn limits() {
    let mut measured = measured();
    let mut limit = |limit| {
        if let Some(memory) = &mut measured.figures.memory {
            memory.limit = Limit::Of(limit);
        }
        shown(Some(&measured), None)["memory_stats"]["limit"].clone()
    };
    assert_eq!(limit(64 << 20), 64 << 20);
    assert_eq!(limit(2 << 30), 1 << 30);
}

#[test]
fn the_previous_measurement() {
    let measured = measured();
    let shown = shown(Some(&measured), Some(&measured));
    assert_eq!(shown["preread"], shown["read"]);
    assert_eq!(shown["precpu_stats"], shown["cpu_stats"]);
}

#[test]
fn a_container_at_rest() {
    let shown = shown(None, None);
    assert_eq!(shown["name"], "/web");
    assert_eq!(shown["id"], "0123");
    assert_eq!(shown["read"], times::NEVER);
    for name in ["pids_stats", "storage_stats", "memory_stats"] {
        assert_eq!(shown[name], json!({}), "{name}");
    }
    let cpu = json!({
        "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    });
    assert_eq!(shown["cpu_stats"], cpu);
    assert_eq!(shown["precpu_stats"], cpu);
    assert_eq!(
        shown["blkio_stats"]["io_service_bytes_recursive"],
        Value::Null
    );
    assert!(shown.get("networks").is_none());
}

//! Measurements in Docker's JSON. On cgroup v2 Docker omits figures that only version 1 counts, or
//! sets them to null; members for Windows are always there, and empty.

use std::collections::BTreeMap;
use std::time::Duration;

use hostd_containers::figures::{
    CpuFigures, DeviceFigures, Limit, MemoryFigures, PidsFigures, ProcessorFigures,
};
use hostd_containers::{ContainerStats, Interface, Measured, Traffic};
use serde::Serialize;

use crate::times;
use crate::wire::Empty;

/// A measurement, and the previous one.
#[derive(Debug, Serialize)]
pub(super) struct StatsDocument<'a> {
    /// With the slash: clients cut the first character off without looking.
    name: String,
    id: &'a str,
    read: String,
    preread: String,
    pids_stats: Pids,
    blkio_stats: BlockDevices,
    num_procs: u32,
    storage_stats: Empty,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<&'a str, Network>,
}

/// The document of a measurement.
pub(super) fn document<'a>(
    now: &'a ContainerStats,
    before: Option<&ContainerStats>,
) -> StatsDocument<'a> {
    let before = before.and_then(|before| before.measured.as_ref());
    StatsDocument::new(&now.id, &now.name, now.measured.as_ref(), before)
}

impl<'a> StatsDocument<'a> {
    fn new(
        id: &'a str,
        name: &str,
        measured: Option<&'a Measured>,
        before: Option<&Measured>,
    ) -> Self {
        let time = |measured: Option<&Measured>| times::rfc3339(measured.map(|found| found.at));
        let figures = measured.map(|measured| &measured.figures);
        Self {
            name: format!("/{name}"),
            id,
            read: time(measured),
            preread: time(before),
            pids_stats: figures
                .and_then(|figures| figures.pids.as_ref())
                .map(Pids::from)
                .unwrap_or_default(),
            blkio_stats: BlockDevices {
                io_service_bytes_recursive: figures
                    .and_then(|figures| figures.devices.as_deref())
                    .map(transfers),
                ..BlockDevices::default()
            },
            num_procs: 0,
            storage_stats: Empty {},
            cpu_stats: Cpu::of(measured),
            precpu_stats: Cpu::of(before),
            memory_stats: measured.map(Memory::of).unwrap_or_default(),
            networks: measured
                .and_then(|measured| measured.interfaces.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|interface| (interface.name.as_str(), Network::from(interface)))
                .collect(),
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Nanoseconds.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

impl From<&PidsFigures> for Pids {
    fn from(figures: &PidsFigures) -> Self {
        Self {
            current: figures.current,
            limit: match figures.limit {
                Limit::Of(limit) => limit,
                Limit::Unlimited => u64::MAX,
            },
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct BlockDevices {
    io_service_bytes_recursive: Option<Vec<Transfer>>,
    io_serviced_recursive: (),
    io_queue_recursive: (),
    io_service_time_recursive: (),
    io_wait_time_recursive: (),
    io_merged_recursive: (),
    io_time_recursive: (),
    sectors_recursive: (),
}

#[derive(Debug, Serialize)]
struct Transfer {
    major: u32,
    minor: u32,
    op: &'static str,
    value: u64,
}

fn transfers(devices: &[DeviceFigures]) -> Vec<Transfer> {
    let both = |device: &DeviceFigures| {
        [("read", device.read), ("write", device.written)].map(|(op, value)| Transfer {
            major: device.major,
            minor: device.minor,
            op,
            value,
        })
    };
    devices.iter().flat_map(both).collect()
}

#[derive(Debug, Default, Serialize)]
struct Cpu {
    cpu_usage: CpuUsage,
    #[serde(skip_serializing_if = "is_zero")]
    system_cpu_usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    online_cpus: Option<u32>,
    throttling_data: Throttling,
}

#[derive(Debug, Default, Serialize)]
struct CpuUsage {
    total_usage: u64,
    usage_in_kernelmode: u64,
    usage_in_usermode: u64,
}

#[derive(Debug, Default, Serialize)]
struct Throttling {
    periods: u64,
    throttled_periods: u64,
    throttled_time: u64,
}

impl Cpu {
    fn of(measured: Option<&Measured>) -> Self {
        let Some(measured) = measured else {
            return Self::default();
        };
        let CpuFigures {
            usage,
            user,
            system,
            periods,
            throttled_periods,
            throttled,
        } = measured.figures.cpu;
        let ProcessorFigures { time, online } = measured.processors;
        Self {
            cpu_usage: CpuUsage {
                total_usage: nanoseconds(usage),
                usage_in_kernelmode: nanoseconds(system),
                usage_in_usermode: nanoseconds(user),
            },
            system_cpu_usage: nanoseconds(time),
            online_cpus: Some(online).filter(|online| *online > 0),
            throttling_data: Throttling {
                periods,
                throttled_periods,
                throttled_time: nanoseconds(throttled),
            },
        }
    }
}

#[derive(Debug, Default, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stats: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    failcnt: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

impl Memory {
    fn of(measured: &Measured) -> Self {
        let Some(figures) = &measured.figures.memory else {
            return Self::default();
        };
        Self {
            usage: figures.current,
            stats: details(figures),
            failcnt: figures.out_of_memory,
            // Memory that is not there can't be used.
            limit: match figures.limit {
                Limit::Of(limit) => limit.min(measured.machine_memory),
                Limit::Unlimited => measured.machine_memory,
            },
        }
    }
}

/// Uses Docker's names, which are the kernel's. Newer kernels count refaults separately.
fn details(figures: &MemoryFigures) -> BTreeMap<&'static str, u64> {
    const REFAULTS: &str = "workingset_refault";
    let apart: Vec<_> = ["_anon", "_file"]
        .map(|kind| format!("{REFAULTS}{kind}"))
        .into();
    let mut shown: BTreeMap<_, _> = figures.details.iter().collect();
    let mut sum = 0u64;
    for name in &apart {
        sum = sum.saturating_add(shown.remove(name.as_str()).unwrap_or_default());
    }
    let refaults = shown.entry(REFAULTS).or_default();
    *refaults = (*refaults).max(sum);
    shown
}

#[derive(Debug, Serialize)]
struct Network {
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

impl From<&Interface> for Network {
    fn from(interface: &Interface) -> Self {
        let Interface { received, sent, .. } = interface;
        let of = |traffic: &Traffic| {
            [
                traffic.bytes,
                traffic.packets,
                traffic.errors,
                traffic.dropped,
            ]
        };
        let [rx_bytes, rx_packets, rx_errors, rx_dropped] = of(received);
        let [tx_bytes, tx_packets, tx_errors, tx_dropped] = of(sent);
        Self {
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        }
    }
}

#[cfg(test)]
mod tests;

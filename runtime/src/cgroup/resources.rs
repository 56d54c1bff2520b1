//! From the OCI resources object to values for files of cgroup v2.

use crate::failure::Failure;
use crate::spec::{BlockIo, Cpu, Memory, Resources};

/// A value for a file of the cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The member of config.json that asks for it.
    pub(crate) member: String,
    /// The controller that the file belongs to.
    pub(crate) controller: String,
    /// The file's name.
    pub(crate) file: String,
    /// What to write.
    pub(crate) value: String,
    /// Another file that sets the same limit on some machines, with its value.
    pub(crate) variant: Option<Variant>,
}

/// Another file for a [`Setting`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Where this file exists, it is written and the usual one is not.
    Instead(&'static str, String),
    /// Where this file exists, the value is written to it as well.
    Beside(String),
    /// Where the file does not exist, there is nothing to do.
    IfThere,
}

/// The CPU shares of a process that was given none.
const USUAL_SHARES: u64 = 1024;

impl Setting {
    /// Whether the setting is what holds without the controller anyway: containerd's `ctr` asks for
    /// the usual CPU shares by default.
    pub(crate) fn is_usual(&self) -> bool {
        self.file == "cpu.weight" && self.value == weight_of(USUAL_SHARES).to_string()
    }
}

/// Maps 2..=262144 of version 1 to 1..=10000.
fn weight_of(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn setting(member: &str, file: &str, value: impl ToString) -> Setting {
    Setting {
        member: format!("linux.resources.{member}"),
        controller: file.split('.').next().unwrap_or(file).to_owned(),
        file: file.to_owned(),
        value: value.to_string(),
        variant: None,
    }
}

fn refused(member: &str, reason: &str) -> Failure {
    Failure::invalid(format!("linux.resources.{member}: {reason}"))
}

/// Computes what to write. A limit of -1 (none) needs no write, because a new cgroup has no limits.
/// What cgroup v2 can't do is an error.
pub(crate) fn plan(resources: &Resources) -> Result<Vec<Setting>, Failure> {
    let mut settings = Vec::new();
    if let Some(memory) = &resources.memory {
        plan_memory(memory, &mut settings)?;
    }
    if let Some(cpu) = &resources.cpu {
        plan_cpu(cpu, &mut settings)?;
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit)
        && limit > 0
    {
        settings.push(setting("pids.limit", "pids.max", limit));
    }
    if let Some(block) = &resources.block_io {
        plan_block(block, &mut settings)?;
    }
    for (index, page) in resources.hugepage_limits.iter().enumerate() {
        let mut earlier = resources.hugepage_limits.iter().take(index);
        if earlier.any(|other| other.page_size == page.page_size) {
            return Err(refused(
                &format!("hugepageLimits[{index}].pageSize"),
                &format!("{:?} is listed twice", page.page_size),
            ));
        }
        let known = page.page_size.ends_with('B')
            && page
                .page_size
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric());
        if !known {
            return Err(refused(
                &format!("hugepageLimits[{index}].pageSize"),
                &format!("{:?} is not a page size such as 2MB", page.page_size),
            ));
        }
        let mut limit = setting(
            &format!("hugepageLimits[{index}]"),
            &format!("hugetlb.{}.max", page.page_size),
            page.limit,
        );
        // Without it a mapping beyond the limit succeeds, and its use kills the process.
        let reserved = format!("hugetlb.{}.rsvd.max", page.page_size);
        limit.variant = Some(Variant::Beside(reserved));
        settings.push(limit);
    }
    for (device, limit) in &resources.rdma {
        if limit.hca_handles.is_none() && limit.hca_objects.is_none() {
            let reason = "has neither hcaHandles nor hcaObjects";
            return Err(refused(&format!("rdma.{device}"), reason));
        }
        let mut value = device.clone();
        if let Some(handles) = limit.hca_handles {
            value.push_str(&format!(" hca_handle={handles}"));
        }
        if let Some(objects) = limit.hca_objects {
            value.push_str(&format!(" hca_object={objects}"));
        }
        settings.push(setting(&format!("rdma.{device}"), "rdma.max", value));
    }
    let network = resources.network.as_ref();
    if network.is_some_and(|network| network.as_object().is_some_and(|object| !object.is_empty())) {
        return Err(refused("network", "cgroup v2 has no network classes"));
    }
    for (file, value) in &resources.unified {
        if file.contains('/') || !file.contains('.') {
            return Err(refused(
                &format!("unified.{file}"),
                "is not a cgroup file's name",
            ));
        }
        settings.push(setting(&format!("unified.{file}"), file, value));
    }
    Ok(settings)
}

/// The writes that remove the limits that are given as -1.
pub(crate) fn lifted(resources: &Resources) -> Vec<Setting> {
    let memory = resources.memory.as_ref();
    let cpu = resources.cpu.as_ref();
    let pids = resources.pids.as_ref();
    let period = cpu.and_then(|cpu| cpu.period).filter(|period| *period > 0);
    // If swap is not mentioned, memory without a limit means swap without a limit, too.
    let with_swap = memory
        .filter(|memory| memory.limit == Some(-1) && memory.swap.unwrap_or(0) == 0)
        .map(|_| Setting {
            variant: Some(Variant::IfThere),
            ..setting("memory.limit", "memory.swap.max", "max")
        });
    [
        (
            memory.and_then(|memory| memory.limit),
            "memory.limit",
            "memory.max",
            "max",
        ),
        (
            memory.and_then(|memory| memory.swap),
            "memory.swap",
            "memory.swap.max",
            "max",
        ),
        (
            memory.and_then(|memory| memory.reservation),
            "memory.reservation",
            "memory.low",
            "0",
        ),
        // With a period, the quota was written together with it.
        (
            cpu.and_then(|cpu| cpu.quota).filter(|_| period.is_none()),
            "cpu.quota",
            "cpu.max",
            "max",
        ),
        (
            pids.and_then(|pids| pids.limit),
            "pids.limit",
            "pids.max",
            "max",
        ),
    ]
    .into_iter()
    .filter(|(limit, ..)| *limit == Some(-1))
    .map(|(_, member, file, value)| setting(member, file, value))
    .chain(with_swap)
    .collect()
}

fn plan_memory(memory: &Memory, settings: &mut Vec<Setting>) -> Result<(), Failure> {
    let positive = |limit: Option<i64>| limit.filter(|limit| *limit > 0);
    if let Some(reservation) = positive(memory.reservation) {
        settings.push(setting("memory.reservation", "memory.low", reservation));
    }
    if let Some(limit) = positive(memory.limit) {
        settings.push(setting("memory.limit", "memory.max", limit));
    }
    // OCI counts memory and swap together, the kernel swap alone.
    if let Some(both) = positive(memory.swap) {
        let Some(limit) = positive(memory.limit) else {
            let reason = format!("{both} needs memory.limit, which it contains");
            return Err(refused("memory.swap", &reason));
        };
        let Some(swap) = both.checked_sub(limit).filter(|swap| *swap >= 0) else {
            let reason = format!("{both} is less than memory.limit {limit}, which it contains");
            return Err(refused("memory.swap", &reason));
        };
        settings.push(setting("memory.swap", "memory.swap.max", swap));
    }
    for (given, name) in [
        (positive(memory.kernel).is_some(), "memory.kernel"),
        (positive(memory.kernel_tcp).is_some(), "memory.kernelTCP"),
        (memory.swappiness.is_some(), "memory.swappiness"),
        (
            memory.disable_oom_killer == Some(true),
            "memory.disableOOMKiller",
        ),
    ] {
        if given {
            return Err(refused(name, "cgroup v2 does not have it"));
        }
    }
    Ok(())
}

fn plan_cpu(cpu: &Cpu, settings: &mut Vec<Setting>) -> Result<(), Failure> {
    if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
        settings.push(setting("cpu.shares", "cpu.weight", weight_of(shares)));
    }
    let quota = cpu.quota.filter(|quota| *quota > 0);
    let period = cpu.period.filter(|period| *period > 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        settings.push(setting("cpu.quota", "cpu.max", value));
    }
    check_times(cpu, quota, period)?;
    if let Some(burst) = cpu.burst {
        settings.push(setting("cpu.burst", "cpu.max.burst", burst));
    }
    if let Some(idle) = cpu.idle {
        if !(0..=1).contains(&idle) {
            return Err(refused("cpu.idle", &format!("{idle} is neither 0 nor 1")));
        }
        settings.push(setting("cpu.idle", "cpu.idle", idle));
    }
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    for (member, list) in [
        ("cpu.cpus", given(&cpu.cpus)),
        ("cpu.mems", given(&cpu.mems)),
    ] {
        let is_list = |list: &String| list.bytes().all(|byte| b"0123456789-,:/ ".contains(&byte));
        if let Some(list) = list.filter(|list| !is_list(list)) {
            let reason = format!("{list:?} is not a list such as 0-3,7");
            return Err(refused(member, &reason));
        }
    }
    if let Some(cpus) = given(&cpu.cpus) {
        settings.push(setting("cpu.cpus", "cpuset.cpus", cpus));
    }
    if let Some(mems) = given(&cpu.mems) {
        settings.push(setting("cpu.mems", "cpuset.mems", mems));
    }
    if cpu.realtime_runtime.is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period.is_some_and(|period| period != 0)
    {
        return Err(refused("cpu.realtimeRuntime", "cgroup v2 does not have it"));
    }
    Ok(())
}

/// Times that the kernel accepts, in microseconds.
fn check_times(cpu: &Cpu, quota: Option<i64>, period: Option<u64>) -> Result<(), Failure> {
    if let Some(period) = period.filter(|period| !(1_000..=1_000_000).contains(period)) {
        let reason = format!("{period} is not between 1000 and 1000000 microseconds");
        return Err(refused("cpu.period", &reason));
    }
    if let Some(quota) = quota.filter(|quota| *quota < 1_000) {
        let reason = format!("{quota} is less than 1000 microseconds");
        return Err(refused("cpu.quota", &reason));
    }
    match (cpu.burst, quota) {
        (Some(burst @ 1..), Some(quota)) if burst > quota.unsigned_abs() => {
            let reason = format!("{burst} is more than cpu.quota {quota}");
            Err(refused("cpu.burst", &reason))
        }
        _ => Ok(()),
    }
}

/// What a weight may be; 0 is none.
fn check_weight(member: &str, weight: u16) -> Result<Option<u16>, Failure> {
    match weight {
        0 => Ok(None),
        10..=1000 => Ok(Some(weight)),
        _ => Err(refused(
            member,
            &format!("{weight} is not between 10 and 1000"),
        )),
    }
}

/// A share of a device's time, by the BFQ scheduler where the kernel has it: it counts as version 1
/// did. `io.weight` maps 10..=1000 to 1..=10000.
fn weight(member: &str, of: &str, weight: u16) -> Setting {
    let converted = 1 + (u64::from(weight).saturating_sub(10)) * 9_999 / 990;
    let variant = Variant::Instead("io.bfq.weight", format!("{of} {weight}"));
    Setting {
        variant: Some(variant),
        ..setting(member, "io.weight", format!("{of} {converted}"))
    }
}

fn device_number(member: &str, major: i64, minor: i64) -> Result<String, Failure> {
    for (name, number) in [("major", major), ("minor", minor)] {
        if u32::try_from(number).is_err() {
            let reason = format!("{number} is not a device number");
            return Err(refused(&format!("{member}.{name}"), &reason));
        }
    }
    Ok(format!("{major}:{minor}"))
}

fn plan_block(block: &BlockIo, settings: &mut Vec<Setting>) -> Result<(), Failure> {
    if let Some(value) = check_weight("blockIO.weight", block.weight.unwrap_or(0))? {
        settings.push(weight("blockIO.weight", "default", value));
    }
    if block.leaf_weight.is_some_and(|value| value > 0) {
        return Err(refused("blockIO.leafWeight", "cgroup v2 does not have it"));
    }
    for (index, device) in block.weight_device.iter().enumerate() {
        let member = format!("blockIO.weightDevice[{index}]");
        if device.leaf_weight.is_some_and(|value| value > 0) {
            let reason = "cgroup v2 does not have it";
            return Err(refused(&format!("{member}.leafWeight"), reason));
        }
        let of = device_number(&member, device.major, device.minor)?;
        let member = format!("{member}.weight");
        if let Some(value) = check_weight(&member, device.weight.unwrap_or(0))? {
            settings.push(weight(&member, &of, value));
        }
    }
    for (devices, member, key) in [
        (
            &block.throttle_read_bps_device,
            "throttleReadBpsDevice",
            "rbps",
        ),
        (
            &block.throttle_write_bps_device,
            "throttleWriteBpsDevice",
            "wbps",
        ),
        (
            &block.throttle_read_iops_device,
            "throttleReadIOPSDevice",
            "riops",
        ),
        (
            &block.throttle_write_iops_device,
            "throttleWriteIOPSDevice",
            "wiops",
        ),
    ] {
        for (index, device) in devices.iter().enumerate() {
            let member = format!("blockIO.{member}[{index}]");
            let of = device_number(&member, device.major, device.minor)?;
            // The kernel accepts no 0. Callers use it to remove an earlier limit.
            let rate = match device.rate {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{of} {key}={rate}");
            settings.push(setting(&member, "io.max", value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Vec<(String, String)>, String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        plan(&resources)
            .map(|settings| {
                let pairs = settings.into_iter();
                pairs.map(|setting| (setting.file, setting.value)).collect()
            })
            .map_err(|failure| failure.message)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(file, value): &(&str, &str)| ((*file).to_owned(), (*value).to_owned());
        list.iter().map(owned).collect()
    }

    #[test]
    fn limits_become_files() {
        assert_eq!(
            plan_of(
                r#"{"memory":{"limit":67108864,"swap":100663296,"reservation":1024},
                    "cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1"},
                    "pids":{"limit":20}}"#
            )
            .unwrap(),
            pairs(&[
                ("memory.low", "1024"),
                ("memory.max", "67108864"),
                ("memory.swap.max", "33554432"),
                ("cpu.weight", "39"),
                ("cpu.max", "50000 100000"),
                ("cpuset.cpus", "0-1"),
                ("pids.max", "20"),
            ])
        );
    }

    #[test]
    fn weights_are_written_as_the_scheduler_counts() {
        let json =
            r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":10}]}}"#;
        let settings = plan(&serde_json::from_str(json).unwrap()).unwrap();
        let values: Vec<_> = settings
            .into_iter()
            .map(|setting| (setting.value, setting.variant.unwrap()))
            .collect();
        let bfq = |value: &str| Variant::Instead("io.bfq.weight", value.to_owned());
        assert_eq!(
            values,
            [
                ("default 4950".to_owned(), bfq("default 500")),
                ("8:0 1".to_owned(), bfq("8:0 10")),
            ]
        );
    }

    #[test]
    fn no_limit_needs_no_controller() {
        let json =
            r#"{"memory":{"limit":-1,"swap":-1},"cpu":{"quota":-1,"cpus":""},"pids":{"limit":-1}}"#;
        assert_eq!(plan_of(json).unwrap(), []);
    }

    #[test]
    fn limits_can_be_lifted() {
        let json = r#"{"memory":{"limit":-1,"swap":-1},"cpu":{"quota":-1},"pids":{"limit":5}}"#;
        let settings = lifted(&serde_json::from_str(json).unwrap());
        let files: Vec<_> = settings
            .iter()
            .map(|setting| setting.file.as_str())
            .collect();
        assert_eq!(files, ["memory.max", "memory.swap.max", "cpu.max"]);
        assert!(settings.iter().all(|setting| setting.value == "max"));
        let settings = lifted(&serde_json::from_str(r#"{"memory":{"limit":-1}}"#).unwrap());
        assert!(settings.iter().any(|it| it.file == "memory.swap.max"));
    }

    #[test]
    fn impossible_limits_are_refused_by_name() {
        for (json, member) in [
            (r#"{"memory":{"swap":5}}"#, "memory.swap"),
            (r#"{"memory":{"limit":9,"swap":5}}"#, "memory.swap"),
            (r#"{"memory":{"swappiness":60}}"#, "memory.swappiness"),
            (r#"{"cpu":{"realtimeRuntime":5}}"#, "cpu.realtimeRuntime"),
            (r#"{"unified":{"../x.y":"1"}}"#, "unified"),
        ] {
            let message = plan_of(json).unwrap_err();
            assert!(message.contains(member), "{message}");
        }
    }
}

//! `linux.resources`: the members that [`super::cgroups`] does not have, and whether limits hold.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::cgroups::{RESOURCES, UNIFIED, gives, unified, updates};
use crate::case::{Case, interface, must};
use crate::lab::{Lab, contains, push, same, skip};

const MEMORY: &str = "config-linux.md#memory";
const CPU: &str = "config-linux.md#cpu";
const BLOCK: &str = "config-linux.md#block-io";
const HUGE: &str = "config-linux.md#huge-page-limits";

/// The number of a disk whose use can be limited.
fn disk() -> Result<(u64, u64)> {
    for entry in std::fs::read_dir("/sys/block").context("list disks")? {
        let directory = entry?.path();
        // A disk has a device behind it; RAM disks and loops do not.
        if !directory.join("device").exists() {
            continue;
        }
        let text = std::fs::read_to_string(directory.join("dev"))?;
        let (major, minor) = text.trim().split_once(':').context("device number")?;
        return Ok((major.parse()?, minor.parse()?));
    }
    skip("this machine has no disk")
}

/// Requires a line in a file of the container's cgroup, for resources of a disk.
fn throttles(lab: &Lab, member: &str, wanted: &str) -> Result<()> {
    let directory = unified(lab, "io")?;
    let (major, minor) = disk()?;
    let container = lab.create(|config| {
        config["linux"]["resources"]["blockIO"] =
            json!({member: [{"major": major, "minor": minor, "rate": 1_048_576}]});
    })?;
    let text = std::fs::read_to_string(directory.join("io.max"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{major}:{minor} ")));
    contains("io.max", line.unwrap_or_default(), wanted)?;
    container.stop()
}

/// The file with weights: BFQ's own if the kernel has that scheduler.
fn weights(directory: &Path) -> Result<(String, bool)> {
    let bfq = directory.join("io.bfq.weight");
    let path = match bfq.exists() {
        true => bfq.clone(),
        false => directory.join("io.weight"),
    };
    if !path.exists() {
        return skip("the kernel has no weights for disks");
    }
    Ok((std::fs::read_to_string(path)?, bfq.exists()))
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.resources.memory-no-swap",
        MEMORY,
        "swap equal to limit is no swap at all.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"limit": 104_857_600, "swap": 104_857_600}}),
                &[("memory.max", "104857600"), ("memory.swap.max", "0")],
            )
        },
    ),
    must(
        "linux.resources.memory-swap-unlimited",
        MEMORY,
        "swap -1 is no limit of swap.",
        |lab| {
            gives(
                lab,
                "memory",
                json!({"memory": {"limit": 104_857_600, "swap": -1}}),
                &[("memory.max", "104857600"), ("memory.swap.max", "max")],
            )
        },
    ),
    must(
        "linux.resources.memory-swap-alone",
        MEMORY,
        "swap without a limit of memory, or less than that, is an error.",
        |lab| {
            unified(lab, "memory")?;
            lab.refuses(|config| {
                config["linux"]["resources"]["memory"] = json!({"swap": 104_857_600})
            })?;
            lab.refuses(|config| {
                config["linux"]["resources"]["memory"] =
                    json!({"limit": 104_857_600, "swap": 52_428_800});
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.memory-in-force",
        MEMORY,
        "A process that takes more memory than the limit is killed.",
        |lab| {
            unified(lab, "memory")?;
            let ended = lab.run(|config| {
                config["process"]["args"] =
                    json!(["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
                config["linux"]["resources"]["memory"] =
                    json!({"limit": 16_777_216, "swap": 16_777_216});
            })?;
            same("exit code", &ended.code().to_string(), "137")
        },
    ),
    must(
        "linux.resources.cpu-shares",
        CPU,
        "More shares are a greater weight.",
        |lab| {
            let directory = unified(lab, "cpu")?;
            let mut weights = Vec::new();
            for shares in [2, 1024, 262_144] {
                let container = lab.create(|config| {
                    config["linux"]["resources"]["cpu"] = json!({"shares": shares});
                })?;
                let text = std::fs::read_to_string(directory.join("cpu.weight"))?;
                weights.push(text.trim().parse::<u64>()?);
                container.call(&["delete", "--force"])?.output()?;
            }
            ensure!(
                weights.first() == Some(&1)
                    && weights.last() == Some(&10_000)
                    && weights.is_sorted(),
                "{weights:?}"
            );
            Ok(())
        },
    ),
    must(
        "linux.resources.cpu-burst",
        CPU,
        "burst is the time that may be saved up.",
        |lab| {
            gives(
                lab,
                "cpu",
                json!({"cpu": {"quota": 20_000, "period": 50_000, "burst": 10_000}}),
                &[("cpu.max", "20000 50000"), ("cpu.max.burst", "10000")],
            )
        },
    ),
    must(
        "linux.resources.cpus-missing",
        CPU,
        "A processor that the machine does not have is an error.",
        |lab| {
            unified(lab, "cpuset")?;
            lab.refuses(|config| config["linux"]["resources"]["cpu"] = json!({"cpus": "5000"}))
                .map(drop)
        },
    ),
    must(
        "linux.resources.io-read-rate",
        BLOCK,
        "throttleReadBpsDevice limits what is read in a second.",
        |lab| throttles(lab, "throttleReadBpsDevice", "rbps=1048576 wbps=max"),
    ),
    must(
        "linux.resources.io-write-rate",
        BLOCK,
        "throttleWriteBpsDevice limits what is written in a second.",
        |lab| throttles(lab, "throttleWriteBpsDevice", "rbps=max wbps=1048576"),
    ),
    must(
        "linux.resources.io-read-operations",
        BLOCK,
        "throttleReadIOPSDevice limits the reads in a second.",
        |lab| throttles(lab, "throttleReadIOPSDevice", "riops=1048576 wiops=max"),
    ),
    must(
        "linux.resources.io-write-operations",
        BLOCK,
        "throttleWriteIOPSDevice limits the writes in a second.",
        |lab| throttles(lab, "throttleWriteIOPSDevice", "riops=max wiops=1048576"),
    ),
    must(
        "linux.resources.io-weight",
        BLOCK,
        "weight is the share of a disk's time.",
        |lab| {
            let directory = unified(lab, "io")?;
            let container = lab.create(|config| {
                config["linux"]["resources"]["blockIO"] = json!({"weight": 500});
            });
            let container = match container {
                Ok(container) => container,
                Err(error) if format!("{error:#}").contains("io.weight") => {
                    return skip("the kernel has no weights for disks");
                }
                Err(error) => return Err(error),
            };
            let (text, bfq) = weights(&directory)?;
            let wanted = if bfq { "default 500" } else { "default 4950" };
            contains("weights", &text, wanted)?;
            container.stop()
        },
    ),
    must(
        "linux.resources.io-device-missing",
        BLOCK,
        "A limit for a disk that does not exist is an error.",
        |lab| {
            unified(lab, "io")?;
            lab.refuses(|config| {
                config["linux"]["resources"]["blockIO"] = json!({
                    "throttleReadBpsDevice": [{"major": 4000, "minor": 4000, "rate": 1_048_576}]
                });
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.huge-pages",
        HUGE,
        "hugepageLimits limits the pages of a size.",
        |lab| {
            gives(
                lab,
                "hugetlb",
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
                &[("hugetlb.2MB.max", "4194304")],
            )
        },
    ),
    must(
        "linux.resources.huge-page-size",
        HUGE,
        "A page size that the machine does not have is an error.",
        |lab| {
            unified(lab, "hugetlb")?;
            lab.refuses(|config| {
                config["linux"]["resources"]["hugepageLimits"] =
                    json!([{"pageSize": "3MB", "limit": 4_194_304}]);
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.rdma-device-missing",
        "config-linux.md#rdma",
        "A limit for an RDMA device that does not exist is an error.",
        |lab| {
            unified(lab, "rdma")?;
            lab.refuses(|config| {
                config["linux"]["resources"]["rdma"] =
                    json!({"nowhere0": {"hcaHandles": 3, "hcaObjects": 10_000}});
            })
            .map(drop)
        },
    ),
    must(
        "linux.resources.unified-several",
        UNIFIED,
        "Files of several controllers are written.",
        |lab| {
            gives(
                lab,
                "cpuset",
                json!({"unified": {
                    "cpu.weight": "77",
                    "cpuset.cpus": "0",
                    "hugetlb.2MB.max": "2097152",
                    "memory.low": "1048576",
                    "pids.max": "55"
                }}),
                &[
                    ("cpu.weight", "77"),
                    ("cpuset.cpus", "0"),
                    ("hugetlb.2MB.max", "2097152"),
                    ("memory.low", "1048576"),
                    ("pids.max", "55"),
                ],
            )
        },
    ),
    must(
        "linux.resources.devices-with-limits",
        RESOURCES,
        "The device filter holds beside limits.",
        |lab| {
            let directory = unified(lab, "pids")?;
            let script = "cat /dev/full | head -c 1 | wc -c; cat /dev/kmsg 2>&1 | head -c 200";
            let said = lab.script(script, |config| {
                push(
                    &mut config["linux"]["devices"],
                    json!({"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 438}),
                );
                config["linux"]["resources"]["pids"] = json!({"limit": 33});
            })?;
            ensure!(!directory.exists(), "{} is left", directory.display());
            contains("output", &said, "Operation not permitted")?;
            ensure!(said.starts_with('1'), "{said:?}");
            Ok(())
        },
    ),
    interface(
        "linux.resources.update-memory-swap",
        "runc update --memory-swap",
        "update changes memory and swap together.",
        |lab| {
            updates(
                lab,
                "memory",
                &["--memory", "104857600", "--memory-swap", "157286400"],
                &[("memory.max", "104857600"), ("memory.swap.max", "52428800")],
            )
        },
    ),
    interface(
        "linux.resources.update-lifts-memory",
        "runc update --memory",
        "A limit of -1 takes the limit of memory away, and that of swap with it.",
        |lab| {
            let directory = unified(lab, "memory")?;
            let container = lab.idle()?;
            let update = |options: &[&str]| -> Result<()> {
                let mut arguments = vec!["update"];
                arguments.extend(options);
                container.call(&arguments)?.output().map(drop)
            };
            update(&["--memory", "104857600", "--memory-swap", "157286400"])?;
            update(&["--memory", "-1"])?;
            for file in ["memory.max", "memory.swap.max"] {
                same(
                    file,
                    std::fs::read_to_string(directory.join(file))?.trim(),
                    "max",
                )?;
            }
            Ok(())
        },
    ),
    interface(
        "linux.resources.update-cpus",
        "runc update --cpuset-cpus",
        "update changes the processors and memory nodes.",
        |lab| {
            updates(
                lab,
                "cpuset",
                &["--cpuset-cpus", "0", "--cpuset-mems", "0"],
                &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
            )
        },
    ),
    interface(
        "linux.resources.update-from-file",
        "runc update --resources",
        "update takes resources from a file.",
        |lab| {
            unified(lab, "pids")?;
            let file = lab.path("resources.json");
            let resources = json!({
                "memory": {"limit": 104_857_600},
                "cpu": {"quota": 30_000, "period": 60_000},
                "pids": {"limit": 44}
            });
            std::fs::write(&file, resources.to_string())?;
            let file = file.to_string_lossy().into_owned();
            updates(
                lab,
                "memory",
                &["--resources", &file],
                &[
                    ("memory.max", "104857600"),
                    ("cpu.max", "30000 60000"),
                    ("pids.max", "44"),
                ],
            )
        },
    ),
    interface(
        "linux.resources.events-stats",
        "runc events --stats",
        "The statistics have the limits and what is used.",
        |lab| {
            unified(lab, "memory")?;
            let container = lab.start("echo ready; exec sleep 1000", |config| {
                config["linux"]["resources"]["memory"] = json!({"limit": 104_857_600});
                config["linux"]["resources"]["pids"] = json!({"limit": 44});
            })?;
            container.says("ready")?;
            let text = container.call(&["events", "--stats"])?.output()?;
            let stats: serde_json::Value = serde_json::from_str(&text)?;
            let data = &stats["data"];
            ensure!(data["memory"]["usage"]["limit"] == 104_857_600, "{stats}");
            ensure!(
                data["memory"]["usage"]["usage"].as_u64() > Some(0),
                "{stats}"
            );
            ensure!(data["pids"]["limit"] == 44, "{stats}");
            ensure!(data["pids"]["current"] == 1, "{stats}");
            Ok(())
        },
    ),
];

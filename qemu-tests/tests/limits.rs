//! Limits of containers on a machine with all controllers of cgroup v2, and what isolates them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::Machine;
use qemu_tests::lab::{BOOT_LIMIT, Lab, SEES_ALL, docker, inspect, load_busybox, shell, until};

#[test]
fn limits_bite_and_containers_are_isolated() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("limits")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    memory_limit_kills(&machine)?;
    processor_limit_throttles(&machine)?;
    process_limit_stops_forks(&machine)?;
    figures_are_shown(&machine)?;
    limits_change_while_running(&machine)?;
    devices_are_throttled(&machine)?;
    other_limits_arrive(&machine)?;
    isolation_is_as_dockers(&machine)
}

fn memory_limit_kills(machine: &Machine) -> Result<()> {
    let hungry = [
        "run",
        "--name",
        "hungry",
        "-m",
        "32m",
        "busybox",
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=100M",
        "count=1",
    ];
    let output = machine.docker(&hungry)?;
    ensure!(output.code == Some(137), "{output}");
    let state = inspect(machine, "hungry")?["State"].clone();
    ensure!(
        state["OOMKilled"] == true && state["ExitCode"] == 137,
        "{state}"
    );
    docker(machine, &["rm", "hungry"])?;

    let modest = shell(
        machine,
        &["-m", "32m"],
        "cat /sys/fs/cgroup/memory.max; echo fine",
    )?;
    ensure!(modest == "33554432\nfine", "{modest:?}");
    Ok(())
}

fn processor_limit_throttles(machine: &Machine) -> Result<()> {
    let script = "cat /sys/fs/cgroup/cpu.max; \
        timeout 2 sh -c 'while :; do :; done'; cat /sys/fs/cgroup/cpu.stat";
    let seen = shell(machine, &["--cpus", "0.2"], script)?;
    ensure!(seen.starts_with("20000 100000\n"), "{seen}");
    let value = |name: &str| -> Result<u64> {
        let line = seen.lines().find_map(|line| line.strip_prefix(name));
        Ok(line.context("no value")?.trim().parse()?)
    };
    ensure!(value("nr_throttled")? > 3, "{seen}");
    // A fifth of two seconds, and room for what was used before the loop.
    ensure!(value("usage_usec")? < 1_200_000, "{seen}");
    Ok(())
}

/// `docker stats` of a container that works, has 16 MB in memory, and has limits.
fn figures_are_shown(machine: &Machine) -> Result<()> {
    let script = "x=$(head -c 16000000 /dev/zero | tr '\\0' x); touch /full; while :; do :; done";
    let limits = ["-m", "128m", "--pids-limit", "50"];
    let start = ["run", "-d", "--name", "busy"];
    let end = ["busybox", "sh", "-c", script];
    docker(machine, &[&start[..], &limits, &end].concat())?;
    until("full memory", Duration::from_secs(60), || {
        let looked = machine.docker(&["exec", "busy", "ls", "/full"])?;
        Ok(match looked.code {
            Some(0) => Ok(()),
            _ => Err(looked.to_string()),
        })
    })?;
    let format = "{{.CPUPerc}} {{.PIDs}} {{.MemUsage}}";
    let shown = docker(
        machine,
        &["stats", "--no-stream", "--format", format, "busy"],
    )?;
    let words: Vec<_> = shown.split(' ').collect();
    let [cpu, pids, memory, "/", "128MiB"] = words.as_slice() else {
        anyhow::bail!("{shown:?}");
    };
    let cpu: f64 = cpu.trim_end_matches('%').parse()?;
    ensure!(cpu > 1.0 && cpu <= 400.0, "{shown:?}");
    let memory: f64 = memory.trim_end_matches("MiB").parse()?;
    ensure!(memory > 15.0 && memory < 128.0, "{shown:?}");
    ensure!(pids.parse::<u32>()? >= 1, "{shown:?}");
    docker(machine, &["rm", "-f", "busy"])?;
    Ok(())
}

/// `docker update`: the kernel has the new limits, and a restarted container keeps them.
fn limits_change_while_running(machine: &Machine) -> Result<()> {
    const LIMITS: &str = "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max";
    let limits = || docker(machine, &["exec", "changing", "sh", "-c", LIMITS]);
    docker(
        machine,
        &[
            "run",
            "-d",
            "--name",
            "changing",
            "-m",
            "64m",
            "--pids-limit",
            "50",
            "busybox",
            "sleep",
            "1000",
        ],
    )?;
    let before = limits()?;
    ensure!(before == "67108864\n67108864\nmax 100000\n50", "{before:?}");
    docker(
        machine,
        &[
            "update",
            "-m",
            "32m",
            "--memory-swap",
            "48m",
            "--cpus",
            "0.5",
            "--pids-limit",
            "-1",
            "changing",
        ],
    )?;
    let wanted = "33554432\n16777216\n50000 100000\nmax";
    let after = limits()?;
    ensure!(after == wanted, "{after:?}");
    docker(machine, &["restart", "-t", "0", "changing"])?;
    let restarted = limits()?;
    ensure!(restarted == wanted, "{restarted:?}");

    let refused = machine.docker(&["update", "--memory", "1k", "changing"])?;
    ensure!(
        refused.code == Some(1) && refused.stderr.contains("6MB"),
        "{refused}"
    );
    ensure!(limits()? == wanted);
    docker(machine, &["rm", "-f", "changing"])?;
    Ok(())
}

/// The machine's disk carries what a container writes; direct I/O, so that no cache is in between.
fn devices_are_throttled(machine: &Machine) -> Result<()> {
    let script = "cat /sys/fs/cgroup/io.max; cut -d' ' -f1 /proc/uptime; \
        dd if=/dev/zero of=/f bs=256k count=8 oflag=direct 2>/dev/null; cut -d' ' -f1 /proc/uptime; \
        dd if=/f of=/dev/null bs=256k iflag=direct 2>/dev/null; cut -d' ' -f1 /proc/uptime; \
        dd if=/dev/zero of=/f bs=4k count=100 oflag=direct 2>/dev/null; cut -d' ' -f1 /proc/uptime";
    let limits = [
        "--device-write-bps=/dev/vda:1mb",
        "--device-read-bps=/dev/vda:2mb",
        "--device-write-iops=/dev/vda:50",
        "--device-read-iops=/dev/vda:1000",
    ];
    let seen = shell(machine, &limits, script)?;
    let (max, times) = seen.split_once('\n').context("no times")?;
    ensure!(
        max.ends_with(" rbps=2097152 wbps=1048576 riops=1000 wiops=50"),
        "{seen}"
    );
    let times = times.lines().map(str::parse);
    let times: Vec<f64> = times.collect::<Result<_, _>>()?;
    let spans: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Two seconds, one and two at least; the kernel lets some through at once.
    for (span, least) in spans.iter().zip([1.5, 0.7, 1.5]) {
        ensure!(*span > least, "{spans:?} in {seen}");
    }
    ensure!(spans.len() == 3, "{seen}");
    let missing = ["--device-write-bps=/dev/nothing:1mb"];
    let missing = [&["run", "--rm"], &missing[..], &["busybox", "true"]].concat();
    let refused = machine.docker(&missing)?;
    ensure!(
        refused.code == Some(125) && refused.stderr.contains("/dev/nothing"),
        "{refused}"
    );
    Ok(())
}

fn other_limits_arrive(machine: &Machine) -> Result<()> {
    let limits = [
        "--blkio-weight=300",
        "--cpu-shares=512",
        "--cpu-period=50000",
        "--cpu-quota=20000",
        "--cpuset-cpus=0",
        "--cpuset-mems=0",
        "--memory=64m",
        "--memory-reservation=16m",
        "--memory-swap=-1",
        "--oom-score-adj=321",
        "--pids-limit=33",
        "--shm-size=3m",
        "--ulimit=nofile=77:88",
        "--ulimit=core=0",
    ];
    let script = "cd /sys/fs/cgroup; cat cpu.weight cpu.max cpuset.cpus cpuset.mems memory.max \
        memory.low memory.swap.max pids.max /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; \
        ulimit -c; df -k /dev/shm | tail -n1 | tr -s ' ' | cut -d' ' -f2; cat io.weight";
    let seen = shell(machine, &limits, script)?;
    let lines: Vec<&str> = seen.lines().collect();
    let wanted = [
        "20",
        "20000 50000",
        "0",
        "0",
        "67108864",
        "16777216",
        "max",
        "33",
        "321",
        "77",
        "88",
        "0",
        "3072",
    ];
    ensure!(lines.get(..wanted.len()) == Some(&wanted), "{seen}");
    // 10 to 1000 become 1 to 10000.
    let weights = lines.get(wanted.len()..);
    ensure!(weights == Some(&["default 2930"]), "{seen}");
    // A weight is in force where the disk's cost model is switched on. Without that the kernel also
    // refuses weights of single devices.
    let model = shell(machine, &SEES_ALL, "cat /host/sys/fs/cgroup/io.cost.qos")?;
    ensure!(model.contains(" enable=1 "), "{model}");
    let weight = ["--blkio-weight-device=/dev/vda:600"];
    let seen = shell(machine, &weight, "cat /sys/fs/cgroup/io.weight")?;
    ensure!(seen.lines().any(|line| line.ends_with(" 5960")), "{seen}");
    for (option, words) in [
        (
            "--cpuset-cpus=63",
            "Requested CPUs are not available - requested 63, available: 0",
        ),
        (
            "--cpuset-mems=7",
            "Requested memory nodes are not available - requested 7, available: 0",
        ),
    ] {
        let beyond = ["create", option, "busybox", "true"];
        let refused = machine.docker(&beyond)?;
        ensure!(
            refused.code == Some(1) && refused.stderr.contains(words),
            "{refused}"
        );
    }
    Ok(())
}

fn process_limit_stops_forks(machine: &Machine) -> Result<()> {
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; echo all started";
    let limited = machine.docker(&[
        "run",
        "--rm",
        "--pids-limit",
        "5",
        "busybox",
        "sh",
        "-c",
        script,
    ])?;
    ensure!(limited.code != Some(0), "{limited}");
    ensure!(
        limited.stderr.contains("Resource temporarily unavailable"),
        "{limited}"
    );
    ensure!(!limited.stdout.contains("all started"), "{limited}");
    let max = shell(
        machine,
        &["--pids-limit", "50"],
        "cat /sys/fs/cgroup/pids.max",
    )?;
    ensure!(max == "50", "{max:?}");
    Ok(())
}

fn isolation_is_as_dockers(machine: &Machine) -> Result<()> {
    let names = "cgroup ipc mnt net pid uts";
    let script = format!("for n in {names}; do readlink /proc/self/ns/$n; done");
    let inside = shell(machine, &[], &script)?;
    let script = format!("for n in {names}; do readlink /host/proc/1/ns/$n; done");
    let outside = shell(machine, &SEES_ALL, &script)?;
    for (inner, outer) in inside.lines().zip(outside.lines()) {
        ensure!(inner != outer, "namespace is the host's: {inner}");
    }
    ensure!(inside.lines().count() == 6, "{inside:?}");
    ensure!(outside.lines().count() == 6, "{outside:?}");

    let status = shell(machine, &[], "cat /proc/1/status; echo pid $$; hostname")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    // Docker's fourteen default capabilities as the kernel's bit set (capability.h).
    ensure!(field("CapEff:") == "00000000a80425fb", "{status}");
    ensure!(field("CapBnd:") == "00000000a80425fb", "{status}");
    ensure!(field("Seccomp:") == "2", "{status}");
    ensure!(status.contains("\npid 1\n"), "{status}");

    // AppArmor's profile refuses the first; without a profile it is masked.
    let script = "cat /proc/kcore 2>/dev/null | wc -c; wc -c < /proc/keys; ls /sys/firmware | wc -l; \
        echo 1 2>/dev/null > /proc/sys/kernel/panic || echo sysctl read-only; \
        mount -t tmpfs none /tmp 2>/dev/null || echo mount refused; \
        unshare -U true 2>/dev/null || echo userns refused; \
        ls /dev | tr '\\n' ' '";
    let seen = shell(machine, &[], script)?;
    let lines: Vec<&str> = seen.lines().collect();
    ensure!(
        lines.get(..6)
            == Some(&[
                "0",
                "0",
                "0",
                "sysctl read-only",
                "mount refused",
                "userns refused"
            ]),
        "{seen}"
    );
    let devices = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    ensure!(
        lines
            .get(6)
            .map(|line| line.trim().replace("console ", "").replace("core ", ""))
            == Some(devices.to_owned()),
        "{seen}"
    );
    Ok(())
}

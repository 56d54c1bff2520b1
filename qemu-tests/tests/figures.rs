//! The figures of docs/performance.md that need a booted machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::Machine;
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, docker, load_busybox, record_steps, seconds, shell, supervised_pid,
};

/// How often `docker run` is measured.
const RUNS: usize = 9;

#[test]
fn direct_boot_and_container_figures() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _alone = lab.exclusive()?;
    let machine = lab.direct("figures")?.launch()?;
    let api = machine.wait_api(BOOT_LIMIT)?;
    lab.record("direct_qemu_start_to_api_s", seconds(api))?;
    record_steps(&lab, &machine, "direct")?;
    lab.record(
        "accelerator",
        if machine.uses_kvm() { "kvm" } else { "tcg" },
    )?;
    load_busybox(&machine)?;
    let run = ["run", "--rm", "busybox", "true"];
    docker(&machine, &run)?;
    lab.record("vm_docker_run_busybox_true_ms", median_ms(&machine, &run)?)?;
    let lone = lone_median(|| Ok(machine.docker(&run)?.success().map(drop)?))?;
    lab.record("vm_docker_run_busybox_true_after_a_pause_ms", lone)?;
    starts_of_made_containers(&lab, &machine)?;
    lab.record("vm_docker_version_ms", median_ms(&machine, &["version"])?)?;
    memory(&lab, &machine)
}

/// A single request must not be slower than one of many: delays from sleep states, or from work
/// that the kernel postpones, show here.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts existing containers by the API, in a row and alone.
fn starts_of_made_containers(lab: &Lab, machine: &Machine) -> Result<()> {
    let mut names = (0..2 * RUNS).map(|number| format!("made-{number}"));
    for name in names.clone() {
        docker(machine, &["create", "--name", &name, "busybox", "true"])?;
    }
    let mut start = || -> Result<()> {
        let name = names.next().context("no container left")?;
        let path = format!("/v1.51/containers/{name}/start");
        let answer = machine.api("POST", &path, None)?;
        ensure!(answer.status == 204, "{}", answer.text());
        Ok(())
    };
    let row = median((0..RUNS).map(|_| timed(&mut start)))?;
    lab.record("vm_api_start_ms", row)?;
    let lone = lone_median(start)?;
    lab.record("vm_api_start_after_a_pause_ms", lone)?;
    let names = (0..2 * RUNS).map(|number| format!("made-{number}"));
    let names: Vec<String> = ["rm", "-f"]
        .map(str::to_owned)
        .into_iter()
        .chain(names)
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    docker(machine, &names)?;
    Ok(())
}

/// The median in milliseconds with [`PAUSE`] before each.
fn lone_median(mut work: impl FnMut() -> Result<()>) -> Result<u64> {
    median((0..RUNS).map(|_| {
        std::thread::sleep(PAUSE);
        timed(&mut work)
    }))
}

fn timed(work: &mut impl FnMut() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// In milliseconds.
fn median(times: impl Iterator<Item = Result<Duration>>) -> Result<u64> {
    let mut times = times.collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    let median = times.get(times.len() / 2).context("no run")?;
    Ok(u64::try_from(median.as_millis())?)
}

fn median_ms(machine: &Machine, arguments: &[&str]) -> Result<u64> {
    median((0..RUNS).map(|_| {
        let output = machine.docker(arguments)?;
        output.success()?;
        Ok(output.took)
    }))
}

/// Memory of the machine and of our processes, read by a container that sees all of them. Its own
/// share, some hundred KiB, is in the machine's figure.
fn memory(lab: &Lab, machine: &Machine) -> Result<()> {
    let info = shell(machine, &SEES_ALL, "cat /proc/meminfo")?;
    let kib = |text: &str, name: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.with_context(|| format!("no {name} in {text}"))?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    };
    let used = kib(&info, "MemTotal:")? - kib(&info, "MemAvailable:")?;
    lab.record("memory_in_use_after_boot_kib", used)?;

    let processes = [
        ("init", 1),
        ("netcfg", supervised_pid(machine, "netcfg")?),
        ("hostd", supervised_pid(machine, "hostd")?),
    ];
    for (name, pid) in processes {
        let script = format!("cat /host/proc/{pid}/status /host/proc/{pid}/smaps_rollup");
        let text = shell(machine, &SEES_ALL, &script)?;
        lab.record(&format!("{name}_rss_kib"), kib(&text, "VmRSS:")?)?;
        lab.record(&format!("{name}_pss_kib"), kib(&text, "Pss:")?)?;
    }
    // The parent of a container's first process is its shim.
    docker(
        machine,
        &["run", "-d", "--name", "idle", "busybox", "sleep", "1000"],
    )?;
    let pid = docker(machine, &["inspect", "--format", "{{.State.Pid}}", "idle"])?;
    let script = format!(
        "shim=$(sed -n 's/^PPid:[[:space:]]*//p' /host/proc/{pid}/status); \
         cat /host/proc/$shim/status /host/proc/$shim/smaps_rollup"
    );
    let text = shell(machine, &SEES_ALL, &script)?;
    ensure!(
        text.starts_with("Name:\tkeelson-shim"),
        "not a shim: {text}"
    );
    lab.record("shim_rss_kib", kib(&text, "VmRSS:")?)?;
    lab.record("shim_pss_kib", kib(&text, "Pss:")?)?;
    docker(machine, &["rm", "-f", "idle"])?;
    Ok(())
}

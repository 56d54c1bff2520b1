//! PID 1 under storms: it neither ends nor grows, and the machine stays usable.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::Machine;
use qemu_tests::harness::assets::busybox_layer_with;
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, STOP_LIMIT, boot_status, docker, inspect, seconds, shell, supervised_pid,
    until,
};
use qemu_tests::probe::{Holdings, Probe};

/// How many orphans PID 1 gets. `KEELSON_SOAK_ORPHANS` is for longer runs: a hundred thousand take seven
/// minutes under software emulation.
const ORPHANS: u32 = 4000;
/// So many of them end at the same moment.
const BATCH: u32 = 500;
/// Bad clients of PID 1's sockets.
const ROUNDS: &str = "2000";
/// How long one storm may take, beside what orphans take.
const STORM_LIMIT: Duration = Duration::from_secs(180);
/// PID 1 may have so much more memory of its own afterwards: what its allocator keeps.
const GROWTH_KIB: u64 = 64;

/// Makes orphans. The process that leaves them moves to a cgroup of its own, so that it outlives its
/// container, and PID 1 becomes its parent when the container's shim has ended. Each orphan waits at a
/// gate, so that all of a batch end at once. `$1`: how many batches, `$2`: how many orphans in each.
const LEAVER: &str = r#"
cd /host/run/storm
echo $$ >/host/sys/fs/cgroup/storm/cgroup.procs
until grep -q '^PPid:.1$' /proc/$$/status; do sleep 0.1; done
batch=0
while [ $batch -lt $1 ]; do
    sh -c 'i=0; while [ $i -lt $0 ]; do { read -r x <gate; } & i=$((i+1)); done' $2
    exec 3<>gate; exec 3>&-
    batch=$((batch+1)); echo $batch >done
done
while [ $(wc -l </host/sys/fs/cgroup/storm/cgroup.procs) -gt 2 ]; do
    exec 3<>gate; exec 3>&-; sleep 0.1
done
echo all >done
"#;

fn load(machine: &Machine) -> Result<()> {
    let storm = PathBuf::from(env!("CARGO_BIN_EXE_storm"));
    let layer = busybox_layer_with(&[("bin/storm".to_owned(), storm)])?;
    let limit = Duration::from_secs(180);
    let output = machine.docker_with(&["import", "-", "busybox"], Some(layer), limit)?;
    output.success()?;
    Ok(())
}

fn orphans(machine: &Machine, probe: &Probe<'_>, count: u32) -> Result<()> {
    let before = forks(probe)?;
    probe.shell(
        "mkdir -p /host/sys/fs/cgroup/storm /host/run/storm && mkfifo /host/run/storm/gate",
    )?;
    let batches = count.div_ceil(BATCH).to_string();
    let script = "setsid sh -c \"$0\" sh $1 $2 </dev/null >/dev/null 2>&1 & \
        until grep -q . /host/sys/fs/cgroup/storm/cgroup.procs; do sleep 0.1; done";
    let mut words = vec!["run", "--rm", "--privileged", "--pid=host"];
    words.extend(["--cgroupns=host", "--network=none", "-v", "/:/host"]);
    words.extend(["busybox", "sh", "-c", script, LEAVER]);
    let size = BATCH.min(count).to_string();
    words.extend([batches.as_str(), size.as_str()]);
    docker(machine, &words)?;
    let limit = STORM_LIMIT + Duration::from_millis(20) * count;
    until("end of the last orphan", limit, || {
        // PID 1 answers meanwhile.
        boot_status(machine)?;
        let done = probe.shell("cat /host/run/storm/done 2>/dev/null || true")?;
        Ok(if done == "all" { Ok(()) } else { Err(done) })
    })?;
    until("empty cgroup", Duration::from_secs(30), || {
        let rest = probe.shell("cat /host/sys/fs/cgroup/storm/cgroup.procs")?;
        Ok(if rest.is_empty() { Ok(()) } else { Err(rest) })
    })?;
    probe.shell("rmdir /host/sys/fs/cgroup/storm && rm -r /host/run/storm")?;
    let made = forks(probe)? - before;
    ensure!(made >= u64::from(count), "only {made} processes were made");
    Ok(())
}

/// How many processes the machine has made.
fn forks(probe: &Probe<'_>) -> Result<u64> {
    Ok(probe
        .shell("sed -n 's/^processes //p' /proc/stat")?
        .parse()?)
}

fn garbage(probe: &Probe<'_>, rounds: &str) -> Result<()> {
    let sockets = ["/host/run/keelson/init.sock", "/host/run/keelson/notify"];
    let command = [&["storm", rounds], &sockets[..]].concat();
    probe.run(&command, STORM_LIMIT)?.success()?;
    Ok(())
}

/// A container that makes as many processes as it can. Shells that can't fork end, so it is thrown until
/// the limit has bitten often.
fn fork_bomb(machine: &Machine, probe: &Probe<'_>) -> Result<()> {
    let limit = ["--pids-limit=100", "--network=none", "busybox"];
    let run = ["run", "-d", "--name", "bomb"];
    let id = docker(machine, &[&run[..], &limit, &["sleep", "100000"]].concat())?;
    let bomb = "bomb() { bomb | bomb & }; bomb; bomb; bomb";
    until("process limit that bites", STORM_LIMIT, || {
        // The limit may refuse this one, too.
        machine.docker(&["exec", "-d", "bomb", "sh", "-c", bomb])?;
        let file = format!("/host/sys/fs/cgroup/keelson/user/{id}/pids.events");
        let events = probe.shell(&format!("cat {file}"))?;
        let hits = events.trim_start_matches("max ").parse::<u64>()?;
        Ok(if hits > 50 { Ok(()) } else { Err(events) })
    })?;
    // Others work, and it can be removed.
    ensure!(shell(machine, &[], "echo fine")? == "fine");
    docker(machine, &["rm", "-f", "bomb"])?;
    Ok(())
}

/// A container without a limit takes all memory; the kernel ends it and nothing else.
fn memory_pressure(machine: &Machine) -> Result<()> {
    let run = ["run", "--rm", "--network=none", "busybox"];
    let output = machine.docker_with(
        &[&run[..], &["tail", "/dev/zero"]].concat(),
        None,
        STORM_LIMIT,
    )?;
    ensure!(output.code == Some(137), "{output}");
    Ok(())
}

/// With a full /var what runs goes on, hostd can be started, and what must be written is refused.
fn full_disk(machine: &Machine, probe: &Probe<'_>) -> Result<()> {
    let fill = "cd /host/var; size=4096; number=0; \
        while [ $size -gt 0 ]; do \
            if fallocate -l ${size}M full.$number 2>/dev/null; then number=$((number+1)); \
            else rm -f full.$number; size=$((size/2)); fi; \
        done; \
        dd if=/dev/zero of=full.rest bs=4k 2>/dev/null; sync; df -k . | tail -n1";
    let seen = probe.shell(fill)?;
    ensure!(seen.contains("100%"), "{seen}");
    let create = machine.docker(&["create", "busybox", "true"])?;
    ensure!(
        create.code == Some(1) && create.stderr.contains("No space left on device"),
        "{create}"
    );
    probe.shell("echo fine")?;

    let hostd = supervised_pid(machine, "hostd")?;
    // The answer is lost together with the daemon.
    let kill = "sleep 1; echo 1 >/host/sys/fs/cgroup/system/hostd/cgroup.kill";
    probe.begin(kill)?;
    until("restarted hostd", Duration::from_secs(60), || {
        Ok(match supervised_pid(machine, "hostd") {
            Ok(pid) if pid != hostd => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    ensure!(inspect(machine, "probe")?["State"]["Running"] == true);
    probe.shell("rm /host/var/full.*")?;
    ensure!(shell(machine, &[], "echo fine")? == "fine");
    Ok(())
}

#[test]
fn pid_1_stands_storms_and_stays_as_small() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let count = match std::env::var("KEELSON_SOAK_ORPHANS") {
        Ok(text) => text.parse().context("KEELSON_SOAK_ORPHANS")?,
        Err(_) => ORPHANS,
    };
    let machine = lab.direct("soak")?.memory_mib(512).launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load(&machine)?;
    let probe = Probe::start(&machine)?;
    let hostd = supervised_pid(&machine, "hostd")?;

    // Once in small, so that everything was used that will be used.
    garbage(&probe, "50")?;
    orphans(&machine, &probe, 50)?;
    let before = probe.holdings(1)?;
    let stands = |storm: &str, begin: Instant| -> Result<Holdings> {
        let took = begin.elapsed().as_secs_f64();
        let now = until("PID 1 without zombies", Duration::from_secs(30), || {
            let now = probe.holdings(1)?;
            Ok(if now.zombies == 0 {
                Ok(now)
            } else {
                Err(format!("{now:?}"))
            })
        })?;
        eprintln!("{storm}: {took:.1} s, {now:?}");
        ensure!(
            now.anonymous_kib <= before.anonymous_kib + GROWTH_KIB
                && now.descriptors <= before.descriptors,
            "{storm}: {before:?} became {now:?}"
        );
        ensure!(
            machine.is_running(),
            "the machine ended: {}",
            machine.details()
        );
        Ok(now)
    };

    let begin = Instant::now();
    orphans(&machine, &probe, count)?;
    stands("orphans", begin)?;
    let begin = Instant::now();
    garbage(&probe, ROUNDS)?;
    stands("garbage on its sockets", begin)?;
    let begin = Instant::now();
    fork_bomb(&machine, &probe)?;
    stands("a fork bomb", begin)?;
    let begin = Instant::now();
    memory_pressure(&machine)?;
    stands("no memory", begin)?;
    ensure!(
        supervised_pid(&machine, "hostd")? == hostd,
        "hostd did not survive the storms: {}",
        machine.details()
    );
    let begin = Instant::now();
    full_disk(&machine, &probe)?;
    let after = stands("a full disk", begin)?;
    lab.record("init_pss_before_storms_kib", before.proportional_kib)?;
    lab.record("init_pss_after_storms_kib", after.proportional_kib)?;
    lab.record("init_anonymous_before_storms_kib", before.anonymous_kib)?;
    lab.record("init_anonymous_after_storms_kib", after.anonymous_kib)?;

    let asked = machine.elapsed();
    machine.qmp()?.system_powerdown()?;
    let (status, ended) = machine.wait_for_exit(STOP_LIMIT)?;
    ensure!(status.success(), "QEMU ended with {status}");
    lab.record("poweroff_after_storms_s", seconds(ended - asked))?;
    for text in ["Kernel panic", "survive"] {
        ensure!(
            machine.console().find(text).is_none(),
            "{text}\n{}",
            machine.details()
        );
    }
    Ok(())
}

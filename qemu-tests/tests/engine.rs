//! The unmodified docker command against a booted machine, over mutual TLS.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qemu_tests::harness::Machine;
use qemu_tests::harness::assets::{busybox_layer, busybox_layer_with};
use qemu_tests::lab::{
    BOOT_LIMIT, Lab, SEES_ALL, docker, inspect, load_busybox, shell, supervised_pid, until,
    with_libraries,
};

#[test]
fn everyday_commands_work() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("docker")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;

    let version = docker(&machine, &["version", "--format", "{{.Server.APIVersion}}"])?;
    ensure!(version == "1.51", "API version {version:?}");
    let info = docker(
        &machine,
        &[
            "info",
            "--format",
            "{{.CgroupVersion}} {{.Containers}} {{.Images}}",
        ],
    )?;
    ensure!(info == "2 0 0", "info: {info:?}");

    load_busybox(&machine)?;
    let images = docker(
        &machine,
        &["images", "--format", "{{.Repository}}:{{.Tag}}"],
    )?;
    ensure!(images == "busybox:latest", "images: {images:?}");

    imported_image_runs(&machine)?;
    attached_runs(&machine)?;
    detached_runs(&machine)?;
    failing_runs(&machine)?;

    let removed = docker(&machine, &["rmi", "busybox"])?;
    ensure!(removed.contains("Untagged: busybox:latest"), "{removed:?}");
    ensure!(removed.contains("Deleted: sha256:"), "{removed:?}");
    ensure!(docker(&machine, &["images", "-q"])?.is_empty());
    Ok(())
}

fn imported_image_runs(machine: &Machine) -> Result<()> {
    let arguments = [
        "import",
        "--change",
        "CMD [\"echo\", \"by default\"]",
        "-",
        "imported:1",
    ];
    let limit = Duration::from_secs(180);
    let output = machine.docker_with(&arguments, Some(busybox_layer()?), limit)?;
    ensure!(output.success()?.starts_with("sha256:"), "{output}");
    ensure!(docker(machine, &["run", "--rm", "imported:1"])? == "by default");
    docker(machine, &["rmi", "imported:1"])?;
    Ok(())
}

fn attached_runs(machine: &Machine) -> Result<()> {
    let output = machine.docker(&[
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo to stdout; echo to stderr >&2; exit 7",
    ])?;
    ensure!(output.code == Some(7), "{output}");
    ensure!(output.stdout == "to stdout\n", "{output}");
    ensure!(output.stderr == "to stderr\n", "{output}");

    let arguments = ["run", "--rm", "-i", "busybox", "sort"];
    let input = b"b\nc\na\n".to_vec();
    let output = machine.docker_with(&arguments, Some(input), Duration::from_secs(60))?;
    ensure!(output.success()? == "a\nb\nc", "{output}");

    let count = docker(machine, &["run", "--rm", "busybox", "seq", "20000"])?;
    ensure!(count.lines().count() == 20000, "output is not complete");
    ensure!(
        docker(machine, &["ps", "-aq"])?.is_empty(),
        "--rm left a container"
    );
    Ok(())
}

fn detached_runs(machine: &Machine) -> Result<()> {
    let script = "trap 'echo bye; exit 9' TERM; echo hello; while :; do sleep 0.2; done";
    let id = docker(
        machine,
        &["run", "-d", "--name", "one", "busybox", "sh", "-c", script],
    )?;
    ensure!(id.len() == 64, "id {id:?}");
    until("first line in the log", Duration::from_secs(30), || {
        let logs = docker(machine, &["logs", "one"])?;
        Ok(if logs == "hello" { Ok(()) } else { Err(logs) })
    })?;
    let listed = docker(machine, &["ps", "-a", "--format", "{{.Names}} {{.State}}"])?;
    ensure!(listed == "one running", "{listed:?}");
    let state = inspect(machine, "one")?["State"].clone();
    ensure!(
        state["Running"] == true && state["Pid"].as_i64() > Some(1),
        "{state}"
    );

    docker(machine, &["stop", "one"])?;
    ensure!(docker(machine, &["logs", "one"])? == "hello\nbye");
    let state = inspect(machine, "one")?["State"].clone();
    ensure!(
        state["Status"] == "exited" && state["ExitCode"] == 9,
        "{state}"
    );
    ensure!(docker(machine, &["wait", "one"])? == "9");
    docker(machine, &["rm", "one"])?;

    docker(
        machine,
        &["run", "-d", "--name", "two", "busybox", "sleep", "1000"],
    )?;
    let mut waiting = machine.docker_command()?;
    let waiting = waiting
        .args(["wait", "two"])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    docker(machine, &["kill", "two"])?;
    let waited = waiting.wait_with_output()?;
    ensure!(waited.stdout == b"137\n", "docker wait: {waited:?}");

    let gone = machine.docker(&["container", "inspect", "nothing"])?;
    ensure!(
        gone.code == Some(1) && gone.stderr.contains("No such"),
        "{gone}"
    );
    docker(machine, &["rm", "two"])?;
    ensure!(docker(machine, &["ps", "-aq"])?.is_empty());
    Ok(())
}

fn failing_runs(machine: &Machine) -> Result<()> {
    let missing = machine.docker(&["run", "--rm", "busybox", "/no/such/command"])?;
    ensure!(missing.code == Some(127), "{missing}");
    let directory = machine.docker(&["run", "--rm", "busybox", "/etc"])?;
    ensure!(directory.code == Some(126), "{directory}");
    ensure!(
        docker(machine, &["ps", "-aq"])?.is_empty(),
        "--rm left a container"
    );

    let user = machine.docker(&[
        "run",
        "--name",
        "bad",
        "-u",
        "nobody-here",
        "busybox",
        "true",
    ])?;
    ensure!(
        user.code != Some(0) && user.stderr.contains("nobody-here"),
        "{user}"
    );
    machine.docker(&["rm", "-f", "bad"])?;

    let response = machine.api("GET", "/v1.51/swarm", None)?;
    ensure!(
        matches!(response.status, 501 | 503),
        "GET /swarm: {}",
        response.text()
    );
    let message = response.json()["message"].as_str().map(str::len);
    ensure!(message > Some(10), "no message: {}", response.text());
    Ok(())
}

#[test]
fn containers_survive_a_killed_daemon() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("killed")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;

    // One container keeps running, one ends while no daemon supervises it.
    let ticking = "i=0; while :; do echo tick $i; i=$((i+1)); sleep 0.5; done";
    docker(
        &machine,
        &[
            "run", "-d", "--name", "ticking", "busybox", "sh", "-c", ticking,
        ],
    )?;
    let ending = "echo before; while ! test -e /go; do sleep 0.1; done; echo after; exit 42";
    docker(
        &machine,
        &[
            "run", "-d", "--name", "ending", "busybox", "sh", "-c", ending,
        ],
    )?;
    let started = inspect(&machine, "ticking")?["State"].clone();
    let ending_pid = inspect(&machine, "ending")?["State"]["Pid"].clone();

    let hostd = supervised_pid(&machine, "hostd")?;
    let begin = Instant::now();
    // The daemon itself has started the container that kills it, so the end of that container is
    // never reported. The other container is asked to end while the daemon is down.
    let script = format!(
        "echo 1 > /host/sys/fs/cgroup/system/hostd/cgroup.kill; \
         touch /host/proc/{ending_pid}/root/go"
    );
    let mut killer = machine.docker_command()?;
    killer.args(["run", "-d", "--name", "killer"]);
    killer.args(SEES_ALL).args(["busybox", "sh", "-c", &script]);
    let killer = qemu_tests::harness::run(&mut killer, None, Duration::from_secs(60));
    eprintln!("killer: {killer:?}");

    let again = until("restarted hostd", Duration::from_secs(60), || {
        Ok(match supervised_pid(&machine, "hostd") {
            Ok(pid) if pid != hostd => Ok(pid),
            other => Err(format!("{other:?}")),
        })
    })?;
    eprintln!(
        "hostd {hostd} -> {again} after {:.2} s",
        begin.elapsed().as_secs_f64()
    );

    let now = inspect(&machine, "ticking")?["State"].clone();
    ensure!(now["Running"] == true, "{now}");
    for member in ["Pid", "StartedAt"] {
        ensure!(now[member] == started[member], "{started} became {now}");
    }
    let ended = until(
        "end of the other container",
        Duration::from_secs(30),
        || {
            let state = inspect(&machine, "ending")?["State"].clone();
            Ok(match state["Status"].as_str() {
                Some("exited") => Ok(state),
                _ => Err(state.to_string()),
            })
        },
    )?;
    ensure!(ended["ExitCode"] == 42, "{ended}");
    ensure!(docker(&machine, &["logs", "ending"])? == "before\nafter");

    let first = docker(&machine, &["logs", "ticking"])?;
    let lines = first.lines().enumerate();
    for (index, line) in lines {
        ensure!(
            line == format!("tick {index}"),
            "a line is missing: {first}"
        );
    }
    until("more output", Duration::from_secs(30), || {
        let more = docker(&machine, &["logs", "ticking"])?;
        Ok(if more.lines().count() > first.lines().count() {
            Ok(())
        } else {
            Err(more)
        })
    })?;
    docker(&machine, &["stop", "-t", "1", "ticking"])?;
    let state = inspect(&machine, "ticking")?["State"].clone();
    ensure!(state["ExitCode"] == 137, "{state}");
    docker(&machine, &["rm", "-f", "ticking", "ending", "killer"])?;
    Ok(())
}

#[test]
fn a_hung_daemon_is_started_again_and_its_containers_live_on() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab
        .direct("hung")?
        .kernel_argument("keelson.watchdog=10")
        .launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let kept = ["run", "-d", "--name", "kept", "busybox", "sleep", "1000"];
    docker(&machine, &kept)?;
    let started = inspect(&machine, "kept")?["State"].clone();

    // A frozen process neither works nor takes SIGABRT. The answer to this request is lost with it.
    let hostd = supervised_pid(&machine, "hostd")?;
    let mut stopper = machine.docker_command()?;
    let script = "echo 1 > /host/sys/fs/cgroup/system/hostd/cgroup.freeze";
    stopper.args(["run", "-d", "--name", "stopper"]);
    stopper.args(SEES_ALL).args(["busybox", "sh", "-c", script]);
    let stopper = qemu_tests::harness::run(&mut stopper, None, Duration::from_secs(60));
    eprintln!("stopper: {stopper:?}");

    for text in [
        "hostd has given no sign of life for",
        "hostd hangs and is ended",
        "hostd did not end after SIGABRT and is killed",
        "hostd killed by SIGKILL; it is started again",
    ] {
        machine.wait_for_console(text, Duration::from_secs(60))?;
    }
    until("restarted hostd", Duration::from_secs(60), || {
        Ok(match supervised_pid(&machine, "hostd") {
            Ok(pid) if pid != hostd => Ok(()),
            other => Err(format!("{other:?}")),
        })
    })?;
    let now = inspect(&machine, "kept")?["State"].clone();
    ensure!(now["Running"] == true, "{now}");
    for member in ["Pid", "StartedAt"] {
        ensure!(now[member] == started[member], "{started} became {now}");
    }
    ensure!(shell(&machine, &[], "echo fine")? == "fine");
    // netcfg works and must not be restarted.
    let line = machine.console().find("netcfg has given no sign of life");
    ensure!(line.is_none(), "{}", machine.details());
    Ok(())
}

/// Checks what AppArmor allows and what it refuses.
#[test]
fn apparmor_confines_containers() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let _slot = lab.slot()?;
    let machine = lab.direct("apparmor")?.launch()?;
    machine.wait_api(BOOT_LIMIT)?;
    load_busybox(&machine)?;
    let info = docker(
        &machine,
        &["info", "--format", "{{.SecurityOptions}} {{.Warnings}}"],
    )?;
    ensure!(info.contains("name=apparmor"), "{info}");
    ensure!(!info.contains("AppArmor"), "{info}");

    let label = "cat /proc/self/attr/current";
    let confined = "docker-default (enforce)";
    let unconfined = ["--security-opt", "apparmor=unconfined"];
    for (options, wanted) in [
        (&[][..], confined),
        (&["--user", "7", "--cap-drop", "ALL"], confined),
        (&["--security-opt", "no-new-privileges"], confined),
        (
            &["--security-opt", "apparmor=docker-default", "--privileged"],
            confined,
        ),
        (&unconfined, "unconfined"),
        (&["--privileged"], "unconfined"),
    ] {
        let seen = shell(&machine, options, label)?;
        ensure!(seen == wanted, "{options:?}: {seen:?}");
    }
    // The container has writable mounts and all capabilities, so that only AppArmor can refuse.
    let open = ["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];
    let open = [&open[..], &["--security-opt", "systempaths=unconfined"]].concat();
    let script = "mount -t tmpfs x /mnt 2>/dev/null || mount -t tmpfs x /tmp || echo no mount; \
        (: >/proc/sysrq-trigger) 2>/dev/null || echo no sysrq; \
        cat /proc/kcore >/dev/null 2>&1 || echo no kcore; \
        (echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null || echo no sysctl; \
        (echo 1 >/proc/sys/vm/swappiness) 2>/dev/null || echo no vm";
    let seen = shell(&machine, &open, script)?;
    let wanted = ["no mount", "no sysrq", "no kcore", "no sysctl", "no vm"];
    ensure!(seen.lines().eq(wanted), "{seen}");
    no_socket_of_the_kernels_cryptography(&machine)?;
    // Ordinary work of containers is allowed.
    let script = "echo x >/tmp/f && mkdir /d && chown 3 /d && kill -0 1 && cat /proc/1/cmdline >/dev/null \
        && (echo test | cat) && echo 5 >/proc/self/oom_score_adj && sleep 100 & kill $! && echo all";
    let seen = shell(&machine, &[], script)?;
    ensure!(seen.ends_with("all"), "{seen}");

    docker(
        &machine,
        &["run", "-d", "--name", "one", "busybox", "sleep", "1000"],
    )?;
    let profile =
        |name: &str| Ok::<_, anyhow::Error>(inspect(&machine, name)?["AppArmorProfile"].clone());
    ensure!(profile("one")? == "docker-default", "{}", profile("one")?);
    for privileged in [&[][..], &["--privileged"]] {
        let exec = [&["exec"], privileged, &["one", "sh", "-c", label]].concat();
        let seen = docker(&machine, &exec)?;
        ensure!(seen == confined, "{privileged:?}: {seen:?}");
    }
    docker(&machine, &["stop", "-t", "1", "one"])?;
    // The named profile of a privileged container is kept across restarts.
    let named = [
        "run",
        "-d",
        "--name",
        "two",
        "--privileged",
        "--security-opt",
    ];
    let named = [
        &named[..],
        &["apparmor=docker-default", "busybox", "sleep", "1000"],
    ]
    .concat();
    docker(&machine, &named)?;
    docker(&machine, &["restart", "-t", "0", "two"])?;
    ensure!(profile("two")? == "docker-default");
    ensure!(docker(&machine, &["exec", "two", "sh", "-c", label])? == confined);
    // A profile that is not loaded fails the start.
    let unknown = [
        "run",
        "--rm",
        "--security-opt",
        "apparmor=nobody-has-it",
        "busybox",
        "true",
    ];
    let output = machine.docker(&unknown)?;
    ensure!(output.code == Some(125), "{output}");
    ensure!(output.stderr.contains("apparmor"), "{output}");
    Ok(())
}

/// The family of socket that this test makes when it is a container's program.
const FAMILY: &str = "MAKE_SOCKET_OF";

#[test]
fn a_socket_is_made() {
    let Ok(family) = std::env::var(FAMILY) else {
        return;
    };
    let family = rustix::net::AddressFamily::from_raw(family.parse().unwrap());
    match rustix::net::socket(family, rustix::net::SocketType::SEQPACKET, None) {
        // On a line of its own, after the name of this test.
        Ok(_) => println!("\nmade"),
        Err(error) => println!("\nerror {}", error.raw_os_error()),
    }
}

/// CVE-2026-31431. The profile also covers socketcall(2) of 32-bit programs, whose arguments the
/// system call filter does not see.
fn no_socket_of_the_kernels_cryptography(machine: &Machine) -> Result<()> {
    let maker = std::env::current_exe()?;
    // A static program has no libraries.
    let mut files = with_libraries(&maker).unwrap_or_default();
    files.push(("maker".to_owned(), maker));
    let layer = busybox_layer_with(&files)?;
    let import = ["import", "-", "maker"];
    let limit = Duration::from_secs(180);
    machine
        .docker_with(&import, Some(layer), limit)?
        .success()?;
    let alg = format!("{FAMILY}=38");
    for (profile, refused) in [("docker-default", true), ("unconfined", false)] {
        let profile = format!("apparmor={profile}");
        let run = [
            "run",
            "--rm",
            "-e",
            &alg,
            "--security-opt",
            "seccomp=unconfined",
        ];
        let command = [
            "maker",
            "/maker",
            "--exact",
            "a_socket_is_made",
            "--nocapture",
        ];
        let run = [&run[..], &["--security-opt", &profile], &command].concat();
        let seen = docker(machine, &run)?;
        // EACCES. Without the profile it is the kernel that makes the socket or has none.
        let is_refused = seen.lines().any(|line| line == "error 13");
        ensure!(is_refused == refused, "{profile}: {seen}");
    }
    Ok(())
}

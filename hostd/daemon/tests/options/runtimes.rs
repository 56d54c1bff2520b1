//! `--runtime`: containers of another OCI runtime, Debian's crun.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::common::{Done, Host, is_root, wait_until};

const CRUN: &str = "/usr/bin/crun";

/// crun refuses a host with both versions of cgroups, so version 2 is hidden from it there.
const WRAPPER: &str = "#!/bin/sh
[ -e /sys/fs/cgroup/unified ] || exec /usr/bin/crun \"$@\"
hidden='umount -l /sys/fs/cgroup/unified && exec /usr/bin/crun \"$@\"'
exec unshare -m sh -c \"$hidden\" crun \"$@\"
";

/// A host with crun in its configuration.
struct Other {
    host: Host,
}

impl Other {
    fn start() -> Option<Self> {
        Self::with("")
    }

    /// With more lines in its configuration.
    fn with(more: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        if !Path::new(CRUN).is_file() {
            keelson_testing::skip("crun", "the test runs containers by it");
            return None;
        }
        let mut host = Host::start();
        let wrapper = host.path().join("crun");
        fs::write(&wrapper, WRAPPER).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "[engine.runtimes.crun]\npath = {wrapper:?}\narguments = [\"--cgroup-manager=cgroupfs\"]\n{more}"
        );
        configure(&mut host, &text);
        host.load_busybox();
        Some(Self { host })
    }

    fn docker(&self, args: &[&str]) -> Done {
        self.host.docker(args)
    }

    fn run(&self, args: &[&str]) -> Done {
        self.docker(&[&["run", "--rm", "--runtime", "crun"], args].concat())
    }
}

impl Drop for Other {
    /// Cgroups that crun leaves in the hierarchies of version 1, which hostd does not know.
    fn drop(&mut self) {
        self.host.stop_daemon();
        let parent = self.host.cgroup_parent();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let parent = hierarchy.path().join(&parent);
            let _ = fs::remove_dir(parent.join("user"));
            let _ = fs::remove_dir(parent);
        }
    }
}

fn configure(host: &mut Host, text: &str) {
    let config = host.path().join("config/etc/keelson");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("host.toml"), text).unwrap();
    host.stop_daemon();
    host.start_daemon();
}

#[test]
fn a_container_of_another_runtime_runs() {
    let Some(other) = Other::start() else {
        return;
    };
    let done = other.run(&["busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    let seen = (done.code, done.stdout.as_str(), done.stderr.contains("err"));
    assert_eq!(seen, (3, "out\n", true), "{}", done.stderr);
    // Whichever comes first: the end of the container or that of the runtime's call.
    for _ in 0..5 {
        other.run(&["busybox", "true"]).ok();
    }
    let run = ["run", "-i", "--rm", "--runtime", "crun", "busybox", "cat"];
    assert_eq!(other.host.docker_with(&run, b"in\n").ok(), "in");
    let seen = other
        .run(&["-t", "busybox", "sh", "-c", "tty && stty size"])
        .ok();
    assert!(seen.starts_with("/dev/"), "{seen}");
    for (command, code) in [("no-such-program", 127), ("/etc/passwd", 126)] {
        let done = other.run(&["busybox", command]);
        assert_eq!(done.code, code, "{command}: {}", done.stderr);
    }

    // It is confined like with our own runtime.
    let script = "grep -E '^(Seccomp|CapEff|NoNewPrivs):' /proc/self/status; cat /etc/hostname; \
        cat /proc/interrupts | wc -c; id -u; pwd";
    let args = [
        "--user", "5", "-w", "/tmp", "-h", "name", "busybox", "sh", "-c", script,
    ];
    let of_crun = other.run(&args).ok();
    let of_own = other.docker(&[&["run", "--rm"], &args[..]].concat()).ok();
    assert_eq!(of_crun, of_own);
    assert!(of_crun.contains("Seccomp:\t2"), "{of_crun}");

    // A volume, an init, and a root that can't be written.
    let script = "echo kept >/data/file; tr '\\0' ' ' </proc/1/cmdline; touch /x 2>&1";
    let args = [
        "-v",
        "data:/data",
        "--init",
        "--read-only",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let seen = other.run(&args).stdout;
    assert!(seen.starts_with("/sbin/docker-init -- sh"), "{seen}");
    assert!(seen.contains("Read-only file system"), "{seen}");
    let kept = other.docker(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "busybox",
        "cat",
        "/data/file",
    ]);
    assert_eq!(kept.ok(), "kept");
}

#[test]
fn all_operations_on_a_container() {
    let Some(mut other) = Other::start() else {
        return;
    };
    let script = "trap 'exit 7' TERM; trap 'echo user' USR1; echo up; while :; do sleep 0.02; done";
    let run = [
        "run",
        "-d",
        "--runtime",
        "crun",
        "--name",
        "one",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    other.docker(&run).ok();
    let says = |other: &Other, text: &str, count| {
        wait_until(text, || {
            other.docker(&["logs", "one"]).stdout.matches(text).count() == count
        });
    };
    let state = |other: &Other, field: &str| {
        let format = format!("{{{{.State.{field}}}}}");
        other.docker(&["inspect", "-f", &format, "one"]).ok()
    };
    says(&other, "up", 1);

    let exec = |other: &Other, args: &[&str]| other.docker(&[&["exec"], args].concat());
    let done = exec(&other, &["-e", "A=b", "one", "sh", "-c", "echo $A; exit 5"]);
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (5, "b\n"),
        "{}",
        done.stderr
    );
    let piped = ["exec", "-i", "one", "cat"];
    assert_eq!(other.host.docker_with(&piped, b"in\n").ok(), "in");
    let terminal = exec(&other, &["-t", "one", "tty"]).ok();
    assert!(terminal.starts_with("/dev/"), "{terminal}");
    let missing = exec(&other, &["one", "no-such-program"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    let inside = exec(
        &other,
        &["one", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"],
    );
    assert!(inside.ok().starts_with("sh -c trap"));

    other.docker(&["kill", "-s", "USR1", "one"]).ok();
    says(&other, "user", 1);
    other.docker(&["pause", "one"]).ok();
    assert_eq!(state(&other, "Paused"), "true");
    exec(&other, &["one", "true"]).fails_with("is paused");
    other.docker(&["unpause", "one"]).ok();
    exec(&other, &["one", "true"]).ok();

    // The next hostd adopts it.
    other.host.kill_daemon();
    other.host.start_daemon();
    assert_eq!(state(&other, "Status"), "running");
    exec(&other, &["one", "true"]).ok();
    other.docker(&["restart", "-t", "60", "one"]).ok();
    says(&other, "up", 2);
    other.docker(&["stop", "-t", "60", "one"]).ok();
    assert_eq!(state(&other, "ExitCode"), "7");
    other.docker(&["start", "one"]).ok();
    says(&other, "up", 3);
    other.docker(&["kill", "one"]).ok();
    assert_eq!(state(&other, "ExitCode"), "137");
    other.docker(&["start", "one"]).ok();

    // If the runtime is no longer configured, hostd reports that, and still stops and removes its
    // containers.
    configure(&mut other.host, "");
    assert_eq!(state(&other, "Status"), "exited");
    let forgotten = other.docker(&["start", "one"]);
    assert!(
        forgotten
            .stderr
            .contains("unknown or invalid runtime name: crun"),
        "{}",
        forgotten.stderr
    );
    other.docker(&["rm", "one"]).ok();
}

#[test]
fn its_health_is_checked() {
    let Some(other) = Other::start() else {
        return;
    };
    let health = |field: &str| {
        let format = format!("{{{{json .State.Health.{field}}}}}");
        let shown = other.docker(&["inspect", "-f", &format, "one"]).ok();
        shown.trim_matches('"').to_owned()
    };
    let check = "echo looked; cat /memory/slow 2>/dev/null && sleep 1000; test -e /memory/up";
    let run = [
        "run",
        "-d",
        "--runtime",
        "crun",
        "--name",
        "one",
        "--tmpfs",
        "/memory",
    ];
    let rules = [
        "--health-cmd",
        check,
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    let end = ["--health-timeout", "1s", "busybox", "sleep", "1000"];
    other.docker(&[&run[..], &rules, &end].concat()).ok();
    let change = |script: &str| {
        other.docker(&["exec", "one", "sh", "-c", script]).ok();
    };
    wait_until("it is unhealthy", || health("Status") == "unhealthy");
    change("touch /memory/up");
    wait_until("it is healthy", || health("Status") == "healthy");
    assert!(health("Log").contains("looked"), "{}", health("Log"));
    // A check that hangs is killed, and the next one starts.
    change("echo >/memory/slow");
    wait_until("a check took too long", || {
        health("Log").contains("exceeded timeout")
    });
    change("rm /memory/slow");
    wait_until("it is healthy again", || {
        health("Status") == "healthy" && health("FailingStreak") == "0"
    });
}

#[test]
fn the_host_lists_its_runtimes() {
    let Some(other) = Other::start() else {
        return;
    };
    let (_, info) = other.host.get("/info");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let crun = &info["Runtimes"]["crun"];
    assert_eq!(crun["runtimeArgs"][0], "--cgroup-manager=cgroupfs");
    assert!(crun["path"].as_str().unwrap().ends_with("/crun"), "{crun}");
    other
        .docker(&["create", "--runtime", "unheard", "busybox"])
        .fails_with("unknown or invalid runtime name: unheard");
    other
        .docker(&["create", "--runtime", "crun", "--name", "it", "busybox"])
        .ok();
    let shown = other.docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", "it"]);
    assert_eq!(shown.ok(), "crun");
}

#[test]
fn a_container_of_another_runtime_has_a_user_namespace() {
    let Some(other) = Other::with(super::users::ON) else {
        return;
    };
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u / /etc/hosts /data; \
        echo kept >/data/file && echo own >/own && stat -c %u:%g /data/file /own; hostname";
    let args = ["-v", "data:/data", "-h", "name", "busybox", "sh", "-c"];
    let of_crun = other.run(&[&args[..], &[script]].concat()).ok();
    let map = format!(" 0 {} 65536", super::users::BASE);
    let wanted = ["0", &map, "0", "0", "0", "0:0", "0:0", "name"];
    assert_eq!(of_crun.lines().collect::<Vec<_>>(), wanted);
    let own = other.docker(&[&["run", "--rm"], &args[..], &[script]].concat());
    assert_eq!(of_crun, own.ok());
    // Both see the same owners in volumes, and so does a container with the host's users.
    let look = ["busybox", "busybox", "stat", "-c", "%u:%g", "/data/file"];
    for more in [&["--runtime", "crun"][..], &[], &["--userns", "host"]] {
        let run = [&["run", "--rm", "-v", "data:/data"], more, &look].concat();
        assert_eq!(other.docker(&run).ok(), "0:0", "{more:?}");
    }
    let host = ["--userns", "host", "busybox", "cat", "/proc/self/uid_map"];
    assert!(other.run(&host).ok().ends_with("4294967295"));

    let run = ["run", "-d", "--runtime", "crun", "--name", "one"];
    other
        .docker(&[&run[..], &["busybox", "sleep", "1000"]].concat())
        .ok();
    let id = ["exec", "-u", "5", "-t", "one", "sh", "-c", "id -u && tty"];
    let seen = other.docker(&id).ok();
    assert!(seen.starts_with('5') && seen.contains("/dev/"), "{seen}");
    other.docker(&["cp", "one:/etc/passwd", "-"]).ok();
    let pid = other
        .docker(&["inspect", "-f", "{{.State.Pid}}", "one"])
        .ok();
    let process = fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!(process.uid(), super::users::BASE);
    other.docker(&["pause", "one"]).ok();
    other.docker(&["unpause", "one"]).ok();
    other.docker(&["restart", "-t", "0", "one"]).ok();
    other.docker(&["exec", "one", "true"]).ok();
    other.docker(&["rm", "-f", "one"]).ok();
}

//! Health checks through the `docker` command.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{Host, is_root, wait_until};

/// A container whose check exits with the code in a file of the host.
struct Checked<'a> {
    host: &'a Host,
    name: &'static str,
    directory: PathBuf,
}

impl<'a> Checked<'a> {
    fn run(host: &'a Host, name: &'static str, options: &[&str]) -> Self {
        let directory = host.path().join(name);
        fs::create_dir(&directory).unwrap();
        let this = Self {
            host,
            name,
            directory,
        };
        this.answer("1");
        let bind = format!("{}:/d", this.directory.display());
        let mut arguments = vec!["run", "-d", "--name", name, "-v", &bind];
        arguments.extend(["--health-cmd", "echo checked; exit $(cat /d/code)"]);
        arguments.extend(options);
        arguments.extend(["busybox", "sleep", "1000"]);
        host.docker(&arguments).ok();
        this
    }

    /// Sets the exit code of checks. The file is replaced, so a check never reads half of it.
    fn answer(&self, code: &str) {
        let (new, path) = (self.directory.join("new"), self.directory.join("code"));
        fs::write(&new, code).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn health(&self) -> Value {
        health(self.host, self.name)
    }

    fn wait_for(&self, status: &str) {
        wait_until(&format!("{} is {status}", self.name), || {
            self.health()["Status"] == status
        });
    }
}

/// `State.Health`; null when there is none.
fn health(host: &Host, name: &str) -> Value {
    let (status, body) = host.get(&format!("/containers/{name}/json"));
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    answer["State"]["Health"].clone()
}

fn names(host: &Host, filter: &str) -> String {
    let list = ["ps", "-a", "--format", "{{.Names}}", "--filter", filter];
    let mut names: Vec<_> = host.docker(&list).ok().lines().map(str::to_owned).collect();
    names.sort();
    names.join(" ")
}

fn actions(host: &Host, name: &str) -> Vec<(String, Value)> {
    let events = host.events_of("container").into_iter();
    let own = events.filter(|event| event["Actor"]["Attributes"]["name"] == name);
    own.map(|event| {
        let action = event["Action"].as_str().unwrap().to_owned();
        (action, event["Actor"]["Attributes"].clone())
    })
    .collect()
}

/// Processes of this machine with this command line.
fn processes(command: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let found = entries.filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .collect::<Vec<_>>()
            .join(&b' ')
            == format!("{command} ").as_bytes()
    });
    found.count()
}

#[test]
fn health_follows_the_checks_and_is_reported() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let options = ["--health-interval", "50ms", "--health-retries", "2"];
    let web = Checked::run(&host, "web", &options);
    host.docker(&["run", "-d", "--name", "plain", "busybox", "sleep", "1000"])
        .ok();
    let off = ["--name", "off", "--no-healthcheck", "busybox"];
    host.docker(&[&["create"], &off[..]].concat()).ok();
    assert_eq!(health(&host, "plain"), Value::Null);

    web.wait_for("unhealthy");
    web.answer("0");
    web.wait_for("healthy");
    assert_eq!(web.health()["FailingStreak"], 0);
    let status = host
        .docker(&["ps", "--filter", "name=web", "--format", "{{.Status}}"])
        .ok();
    assert!(status.trim().ends_with("(healthy)"), "{status}");
    assert_eq!(names(&host, "health=healthy"), "web");
    assert_eq!(names(&host, "health=none"), "off plain");
    assert_eq!(names(&host, "health=unhealthy"), "");
    wait_until("five results are kept", || {
        web.health()["Log"].as_array().unwrap().len() == 5
    });
    let health = web.health();
    let log = health["Log"].as_array().unwrap();
    let last = &log[4];
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&json!(0), &json!("checked\n"))
    );
    let times = |entry: &Value| [&entry["Start"], &entry["End"]].map(|time| time.to_string());
    let [start, end] = times(last);
    assert!(start < end && times(&log[3])[1] < start, "{health}");

    // Both changes were reported, each once.
    let actions = actions(&host, "web");
    let told: Vec<_> = actions
        .iter()
        .filter_map(|(action, _)| action.strip_prefix("health_status: "))
        .collect();
    assert_eq!(told, ["unhealthy", "healthy"]);
    // Every check is an execution with a beginning and an end.
    let of = |prefix: &str| -> Vec<String> {
        let those = actions
            .iter()
            .filter(|(action, _)| action.starts_with(prefix));
        those
            .map(|(_, attributes)| attributes["execID"].as_str().unwrap().to_owned())
            .collect()
    };
    let (created, ended) = (of("exec_create: /bin/sh -c echo"), of("exec_die"));
    assert!(
        ended.len() >= 5 && created.starts_with(&ended),
        "{actions:?}"
    );
    assert_eq!(of("exec_start: "), created);

    // A stopped container is not healthy, and each start begins from the start.
    host.docker(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(web.health()["Status"], "unhealthy");
    web.answer("1");
    host.docker(&["start", "web"]).ok();
    let health = web.health();
    assert_ne!(health["Status"], "healthy");
    assert!(health["FailingStreak"].as_u64().unwrap() < 5, "{health}");
    host.docker(&["rm", "-f", "web", "plain", "off"]).ok();
}

#[test]
fn a_check_that_hangs_is_killed_with_its_children() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let marker = format!("sleep {}", 700_000 + std::process::id());
    let check = format!("echo begun; {marker} & {marker}");
    host.docker(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "300ms",
        "--health-retries",
        "3",
        "--health-cmd",
        &check,
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let mut most = 0;
    wait_until("the container is unhealthy", || {
        most = most.max(processes(&marker));
        health(&host, "slow")["Status"] == "unhealthy"
    });
    assert!((1..=2).contains(&most), "{most} at once");
    let health = health(&host, "slow");
    let last = &health["Log"][2];
    let words = "Health check exceeded timeout (300ms): begun\n";
    assert_eq!(
        (&last["ExitCode"], &last["Output"]),
        (&json!(-1), &json!(words))
    );
    host.docker(&["pause", "slow"]).ok();
    assert_eq!(
        processes(&marker),
        0,
        "a check goes on in a frozen container"
    );
    host.docker(&["unpause", "slow"]).ok();
    wait_until("checks go on", || processes(&marker) > 0);
    host.docker(&["rm", "-f", "slow"]).ok();
    assert_eq!(processes(&marker), 0);
}

#[test]
fn health_survives_the_engine() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let long = ["--health-interval", "1h", "--health-start-period", "1h"];
    let options = [&long[..], &["--health-start-interval", "50ms"]].concat();
    let settled = Checked::run(&host, "settled", &options);
    settled.answer("0");
    settled.wait_for("healthy");
    let before = settled.health();
    let options = ["--health-interval", "50ms", "--health-retries", "1000000"];
    let failing = Checked::run(&host, "failing", &options);
    wait_until("some checks have failed", || {
        failing.health()["FailingStreak"].as_u64().unwrap() >= 3
    });
    let marker = format!("sleep {}", 800_000 + std::process::id());
    host.docker(&[
        "run",
        "-d",
        "--name",
        "slow",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "1h",
        "--health-cmd",
        &marker,
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    wait_until("a check hangs", || processes(&marker) > 0);
    host.kill_daemon();
    // It ends with its client.
    wait_until("the check has ended", || processes(&marker) == 0);
    host.start_daemon();

    // A healthy container is healthy at once: it is not checked for an hour.
    assert_eq!(health(&host, "settled"), before);
    let streak = || health(&host, "failing")["FailingStreak"].as_u64().unwrap();
    assert!(streak() >= 3);
    let first = streak();
    wait_until("checks go on", || streak() > first);
    wait_until("a check hangs again", || processes(&marker) > 0);
    host.docker(&["rm", "-f", "settled", "failing", "slow"])
        .ok();
}

#[test]
fn failures_in_the_start_period_do_not_count() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let options = [
        "--health-interval",
        "1h",
        "--health-start-period",
        "1h",
        "--health-start-interval",
        "50ms",
        "--health-retries",
        "1",
    ];
    let slow = Checked::run(&host, "slow", &options);
    wait_until("a check has failed", || {
        !slow.health()["Log"].as_array().unwrap().is_empty()
    });
    let health = slow.health();
    assert_eq!(
        (&health["Status"], &health["FailingStreak"]),
        (&json!("starting"), &json!(0))
    );
    assert_eq!(health["Log"][0]["ExitCode"], 1);
    let status = host.docker(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(status.trim().ends_with("(health: starting)"), "{status}");
    assert_eq!(names(&host, "health=starting"), "slow");
    host.docker(&["rm", "-f", "slow"]).ok();
}

#[test]
fn the_images_check_runs_unless_it_is_turned_off() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = host.docker(&["create", "busybox", "sleep", "1000"]).ok();
    let image = |name: &str, check: &str| {
        let change = format!("HEALTHCHECK --interval=50ms {check}");
        host.docker(&["commit", "-c", &change, id.trim(), name])
            .ok();
    };
    image("checked", "CMD [\"true\"]");
    image("broken", "CMD [\"/no/such\"]");
    let run = |name: &str, options: &[&str], image: &str| {
        host.docker(&[&["run", "-d", "--name", name], options, &[image]].concat())
            .ok();
    };
    run("good", &[], "checked");
    run("bad", &[], "broken");
    run("off", &["--no-healthcheck"], "broken");
    let is = |name: &str, status: &str| health(&host, name)["Status"] == status;
    wait_until("the image's check succeeds", || is("good", "healthy"));
    wait_until("what can't be executed is a failure", || {
        is("bad", "unhealthy")
    });
    let entry = health(&host, "bad")["Log"][0].clone();
    assert_eq!(entry["ExitCode"], -1);
    assert!(
        entry["Output"].as_str().unwrap().contains("/no/such"),
        "{entry}"
    );
    assert_eq!(health(&host, "off"), Value::Null);
    host.docker(&["rm", "-f", "good", "bad", "off", id.trim()])
        .ok();
}

#[test]
fn wrong_checks_are_refused() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    for (health, words) in [
        (
            json!({"Test": ["CMD", "a"], "Interval": 5}),
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            json!({"Test": ["CMD", "a"], "Retries": -1}),
            "Retries in Healthcheck cannot be negative",
        ),
        (json!({"Test": ["CMD"]}), "needs a command"),
        (
            json!({"Test": ["what", "a"]}),
            "Unknown healthcheck type 'what'",
        ),
    ] {
        let body = json!({"Image": "busybox", "Cmd": ["true"], "Healthcheck": health});
        let (status, answer) = host.send("POST", "/containers/create", &body.to_string());
        assert!(status == 400 && answer.contains(words), "{status} {answer}");
    }
    assert_eq!(names(&host, "status=created"), "");
}

/// When the machine boots again, a container that depends on a healthy service is started once that
/// is healthy.
#[test]
fn containers_that_depend_on_a_healthy_service_wait_for_it() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.load_busybox();
    let run = |name: &str, more: &[&str], script: &str| {
        let service = format!("com.docker.compose.service={name}");
        let begin = [
            "run",
            "-d",
            "--restart",
            "always",
            "--name",
            name,
            "--label",
            &service,
        ];
        let project = [
            "--label",
            "com.docker.compose.project=shop",
            "--stop-signal",
            "KILL",
        ];
        let end = ["busybox", "sh", "-c", script];
        host.docker(&[&begin[..], &project, more, &end].concat())
            .ok();
    };
    let check = [
        "--health-cmd",
        "test -e /memory/up",
        "--health-interval",
        "200ms",
        "--tmpfs",
        "/memory",
    ];
    run("db", &check, "sleep 1.5; touch /memory/up; exec sleep 1000");
    for (name, condition) in [("web", "service_healthy"), ("log", "service_started")] {
        let label = format!("com.docker.compose.depends_on=db:{condition}:false");
        run(name, &["--label", &label], "exec sleep 1000");
    }
    host.stop_daemon();
    host.start_daemon();
    let state = |name: &str| -> Value {
        let (_, body) = host.get(&format!("/containers/{name}/json"));
        serde_json::from_str::<Value>(&body).unwrap()["State"].clone()
    };
    wait_until("web runs", || state("web")["Status"] == "running");
    assert_eq!(state("db")["Health"]["Status"], "healthy");
    let started = |name: &str| -> jiff::Timestamp {
        state(name)["StartedAt"].as_str().unwrap().parse().unwrap()
    };
    let after = |name: &str| started(name).duration_since(started("db")).as_secs_f64();
    assert!(after("web") > 1.4, "{}", after("web"));
    assert!((0.0..1.4).contains(&after("log")), "{}", after("log"));
}

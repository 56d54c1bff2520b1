//! hostd is killed again and again, at any moment, while clients do everything with containers:
//! nothing is lost, every state matches the kernel's, and in the end nothing is left.
//!
//! Clients and kills follow a seed. A failed run prints the seed, with which the same requests can
//! be repeated (at other moments).

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::common::{Host, PATIENCE, docker_at, is_root, run, wait_until};
use crate::leases::ask;

/// The duration in seconds, for longer runs.
const SECONDS: &str = "KEELSON_STORM_SECONDS";
const USUAL_SECONDS: u64 = 30;
/// The seed that chooses requests and kills.
const SEED: &str = "KEELSON_STORM_SEED";
const CLIENTS: usize = 5;
/// Lines of a container whose output is compared.
const LINES: u32 = 150;

/// What all clients share.
struct Storm {
    socket: PathBuf,
    volumes: PathBuf,
    home: PathBuf,
    url: String,
    token: String,
    is_over: AtomicBool,
    done: [AtomicUsize; SCENES.len()],
}

type Scene = fn(&mut Client<'_>);

/// The operations of clients, each with its weight.
const SCENES: [(&str, u32, Scene); 6] = [
    ("output", 4, output),
    ("life", 5, life),
    ("volume", 3, volume),
    ("automatic removal", 2, removed_by_itself),
    ("health", 2, health),
    ("command that is not there", 1, missing_command),
];

struct Client<'a> {
    storm: &'a Storm,
    random: StdRng,
    number: usize,
    made: usize,
}

/// The result of a request.
#[derive(Debug)]
enum Told {
    /// The answer.
    Answer(u16, Value),
    /// hostd was killed during the request.
    Nothing,
}

impl Told {
    fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(status, _) => Some(*status),
            Self::Nothing => None,
        }
    }

    /// Asserts that the answer was this one, if there was one. Returns whether there was.
    #[track_caller]
    fn is(&self, wanted: &[u16]) -> bool {
        if let Self::Answer(status, body) = self {
            assert!(wanted.contains(status), "{status}: {body}");
        }
        self.status().is_some()
    }
}

impl Client<'_> {
    /// Sends a request once. Waits while no hostd runs.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Told {
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&self.storm.socket).is_err() {
            assert!(Instant::now() < deadline, "no hostd is there");
            std::thread::sleep(Duration::from_millis(5));
        }
        let body = body.to_string();
        let kind = "application/json";
        match ask(&self.storm.socket, method, path, body.as_bytes(), kind) {
            Some((status, told)) => Told::Answer(status, told),
            None => Told::Nothing,
        }
    }

    fn post(&self, path: &str, body: &Value) -> Told {
        self.ask("POST", path, body)
    }

    /// Repeats a request until there is an answer.
    fn get(&self, path: &str) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Told::Answer(status, body) = self.ask("GET", path, &json!({})) {
                return (status, body);
            }
            assert!(Instant::now() < deadline, "no answer to {path}");
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pause(&mut self, most: u64) {
        let time = self.random.random_range(0..=most);
        std::thread::sleep(Duration::from_millis(time));
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("storm{}-{}", self.number, self.made)
    }

    /// Creates a container. It exists afterwards, whatever was killed.
    fn create(&mut self, script: &str, more: &Value) -> String {
        let name = self.name();
        let mark = format!("STORM={}-{name}", self.storm.token);
        let mut body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "Env": [mark],
            "HostConfig": {"NetworkMode": "none"}});
        merge(&mut body, more);
        loop {
            let told = self.post(&format!("/containers/create?name={name}"), &body);
            // 409: an earlier answer was lost.
            if told.is(&[201, 409]) {
                break;
            }
        }
        assert_eq!(
            self.get(&format!("/containers/{name}/json")).0,
            200,
            "{name}"
        );
        name
    }

    /// Starts a container that was never started, until it was started.
    fn start(&mut self, name: &str) {
        loop {
            let told = self.post(&format!("/containers/{name}/start"), &json!({}));
            if told.is(&[204, 304]) {
                return;
            }
            let state = self.state(name);
            if state["Status"] != "created" {
                return;
            }
        }
    }

    fn state(&self, name: &str) -> Value {
        let (status, body) = self.get(&format!("/containers/{name}/json"));
        assert_eq!(status, 200, "{name} is lost: {body}");
        body["State"].clone()
    }

    /// Waits until a container has the wanted state, and the kernel confirms it.
    #[track_caller]
    fn settles(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(name);
            let found = processes(&format!("STORM={}-{name}", self.storm.token));
            let pid = state["Pid"].as_i64().unwrap_or_default();
            let agrees = match state["Running"] == true && state["Restarting"] != true {
                true => found.contains(&pid),
                false => found.is_empty() && (pid == 0 || state["Restarting"] == true),
            };
            if agrees && wanted(&state) {
                return state;
            }
            assert!(
                Instant::now() < deadline,
                "{name} is {state}, its processes are {found:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes a container, until it is gone.
    fn remove(&mut self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let told = self.ask(
                "DELETE",
                &format!("/containers/{name}?force=1&v=1"),
                &json!({}),
            );
            // 409: an answer got lost, and it is being removed.
            if told.is(&[204, 404, 409]) && told.status() != Some(409) {
                break;
            }
            assert!(Instant::now() < deadline, "{name} is not removed: {told:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(
            self.get(&format!("/containers/{name}/json")).0,
            404,
            "{name}"
        );
        let mark = format!("STORM={}-{name}", self.storm.token);
        wait_until("the processes of what was removed are gone", || {
            processes(&mark).is_empty()
        });
    }

    /// The output of a container.
    fn output(&self, name: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut logs = docker_at(&self.storm.home, &self.storm.url, &["logs", name]);
            let done = run(&mut logs, b"");
            if done.code == 0 {
                return done.stdout;
            }
            assert!(Instant::now() < deadline, "{}", done.stderr);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (name, value) in more {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

/// The processes that have a variable in their environment.
fn processes(variable: &str) -> Vec<i64> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one == variable.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// Checks that no line is lost or doubled, and that the exit code is the command's.
fn output(client: &mut Client<'_>) {
    let code = client.random.random_range(0..100);
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.003; done; exit {code}"
    );
    let name = client.create(&script, &json!({}));
    client.pause(30);
    client.start(&name);
    client.settles(&name, |state| {
        state["Status"] == "exited" && state["ExitCode"] == code
    });
    let wanted: String = (1..=LINES).map(|line| format!("line {line}\n")).collect();
    assert_eq!(client.output(&name), wanted, "{name}");
    client.remove(&name);
}

/// All operations on a running container.
fn life(client: &mut Client<'_>) {
    let script = "trap 'exit 3' TERM; trap : HUP; while :; do sleep 0.02; done";
    let policy = ["always", "unless-stopped", "no"][client.random.random_range(0..3)];
    // Each new hostd starts it again, even after a stop.
    let always = policy == "always";
    let policy = json!({"Name": policy});
    let more = json!({"HostConfig": {"RestartPolicy": policy}});
    let name = client.create(script, &more);
    client.start(&name);
    let mut runs = true;
    for _ in 0..client.random.random_range(2..9) {
        let path = format!("/containers/{name}");
        match client.random.random_range(0..8) {
            0 | 1 if runs => execution(client, &name),
            2 if runs => {
                client
                    .post(&format!("{path}/pause"), &json!({}))
                    .is(&[204, 409]);
                client.pause(20);
                loop {
                    client.post(&format!("{path}/unpause"), &json!({}));
                    if client.state(&name)["Paused"] == false {
                        break;
                    }
                }
                client.settles(&name, |state| state["Status"] == "running");
            }
            3 if runs => {
                client
                    .post(&format!("{path}/kill?signal=HUP"), &json!({}))
                    .is(&[204]);
            }
            4 => {
                let t = client.random.random_range(0..2);
                while !client
                    .post(&format!("{path}/stop?t={t}"), &json!({}))
                    .is(&[204, 304])
                {}
                let state = client.settles(&name, |state| always || state["Status"] == "exited");
                let code = state["ExitCode"].as_i64();
                assert!(always || matches!(code, Some(3 | 137)), "{state}");
                runs = false;
            }
            5 => {
                while !client
                    .post(&format!("{path}/restart?t=0"), &json!({}))
                    .is(&[204])
                {}
                client.settles(&name, |state| state["Status"] == "running");
                runs = true;
            }
            6 => {
                let image = format!("made-{name}");
                let told = client.post(
                    &format!("/commit?container={name}&repo={image}&pause=1"),
                    &json!({}),
                );
                let made = told.is(&[201]);
                let (status, _) = client.get(&format!("/images/{image}/json"));
                assert!(!made || status == 200, "{image} is lost");
                let removed = client.ask("DELETE", &format!("/images/{image}"), &json!({}));
                removed.is(&[200, 404]);
            }
            _ => {
                let new = client.name();
                let told = client.post(&format!("{path}/rename?name={new}"), &json!({}));
                // Its processes have its first name in their environment.
                told.is(&[204]);
                let (status, _) = client.get(&format!("/containers/{new}/json"));
                let back = format!("/containers/{new}/rename?name={name}");
                let mut renamed = status == 200;
                assert!(renamed || told.status().is_none(), "{new} is lost");
                while renamed {
                    client.post(&back, &json!({})).is(&[204]);
                    renamed = client.get(&format!("/containers/{new}/json")).0 == 200;
                }
            }
        }
    }
    client.settles(&name, |state| state["Paused"] == false);
    client.remove(&name);
}

/// A started execution ends with its code; one that was not started leaves no trace.
fn execution(client: &mut Client<'_>, name: &str) {
    let mark = client.random.random::<u32>();
    let code = client.random.random_range(1..100);
    let script = format!("touch /mark-{mark}; sleep 0.05; exit {code}");
    let path = format!("/containers/{name}/exec");
    let Told::Answer(status, made) = client.post(&path, &json!({"Cmd": ["sh", "-c", script]}))
    else {
        return;
    };
    assert_eq!(status, 201, "{made}");
    let id = made["Id"].as_str().unwrap();
    client.pause(5);
    let told = client.post(&format!("/exec/{id}/start"), &json!({"Detach": true}));
    let begun = told.is(&[200]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, found) = client.get(&format!("/exec/{id}/json"));
        assert_eq!(status, 200, "exec {id} is lost: {found}");
        let ended = found["Running"] == false;
        match found["ExitCode"].as_i64() {
            Some(found) if ended && found == code => return,
            // It was not started, or its start was interrupted.
            None | Some(128) if ended && !begun => return,
            _ => {}
        }
        assert!(
            Instant::now() < deadline,
            "exec {id} (begun: {begun}): {found}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn volume(client: &mut Client<'_>) {
    let volume = format!("volume-{}", client.name());
    let create = json!({"Name": volume});
    while !client.post("/volumes/create", &create).is(&[201]) {}
    let code = client.random.random_range(0..100);
    let script = format!("echo kept > /v/file; touch /anonymous/x; exit {code}");
    let more =
        json!({"Volumes": {"/anonymous": {}}, "HostConfig": {"Binds": [format!("{volume}:/v")]}});
    let name = client.create(&script, &more);
    let in_use = client.ask("DELETE", &format!("/volumes/{volume}"), &json!({}));
    in_use.is(&[409]);
    client.start(&name);
    client.settles(&name, |state| {
        state["Status"] == "exited" && state["ExitCode"] == code
    });
    let file = client.storm.volumes.join(&volume).join("_data/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    client.remove(&name);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept\n");
    if client.chance(80) {
        while !client
            .ask("DELETE", &format!("/volumes/{volume}"), &json!({}))
            .is(&[204, 404])
        {}
        assert!(!file.exists());
    }
}

fn removed_by_itself(client: &mut Client<'_>) {
    let more = json!({"HostConfig": {"AutoRemove": true}, "Volumes": {"/anonymous": {}}});
    let name = client.create("sleep 0.05", &more);
    let path = format!("/containers/{name}");
    let deadline = Instant::now() + PATIENCE;
    while client.get(&format!("{path}/json")).0 != 404 {
        client
            .post(&format!("{path}/start"), &json!({}))
            .is(&[204, 304, 404, 409]);
        client.pause(30);
        assert!(Instant::now() < deadline, "{name} is not removed");
    }
}

fn health(client: &mut Client<'_>) {
    let ms = 1_000_000_u64;
    let more = json!({"Healthcheck": {"Test": ["CMD-SHELL", "test -e /well"], "Interval": 50 * ms,
        "Timeout": 20_000 * ms, "Retries": 2}});
    let name = client.create("while :; do sleep 0.05; done", &more);
    client.start(&name);
    let becomes = |client: &Client<'_>, wanted: &str| {
        client.settles(&name, |state| state["Health"]["Status"] == wanted)
    };
    becomes(client, "unhealthy");
    execution_of(client, &name, &["touch", "/well"]);
    becomes(client, "healthy");
    client.remove(&name);
}

/// Runs a command until it has succeeded.
fn execution_of(client: &Client<'_>, name: &str, command: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let path = format!("/containers/{name}/exec");
        let made = client.post(&path, &json!({"Cmd": command}));
        let Told::Answer(201, made) = made else {
            continue;
        };
        let id = made["Id"].as_str().unwrap();
        client.post(&format!("/exec/{id}/start"), &json!({"Detach": true}));
        for _ in 0..50 {
            if client.get(&format!("/exec/{id}/json")).1["ExitCode"] == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("{command:?} does not succeed in {name}");
}

fn missing_command(client: &mut Client<'_>) {
    let name = client.create("", &json!({"Cmd": ["/not/there"]}));
    let told = client.post(&format!("/containers/{name}/start"), &json!({}));
    told.is(&[400, 404]);
    client.settles(&name, |state| {
        state["Status"] == "created" && (told.status().is_none() || state["ExitCode"] == 127)
    });
    client.remove(&name);
}

/// Zombies that our own processes have not reaped.
fn zombies(host: &Host) -> Vec<String> {
    let own = host.path().to_string_lossy().into_owned();
    let mut ours = Vec::new();
    let mut dead = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else {
            continue;
        };
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&own) {
            ours.push(entry.file_name().to_string_lossy().into_owned());
        }
        // PID (NAME) STATE PARENT.
        if let Some((_, rest)) = stat.rsplit_once(") ")
            && let Some(parent) = rest.strip_prefix("Z ")
        {
            let parent = parent.split(' ').next().unwrap_or_default().to_owned();
            dead.push((parent, stat.clone()));
        }
    }
    dead.retain(|(parent, _)| ours.contains(parent));
    dead.into_iter().map(|(_, stat)| stat).collect()
}

/// Kills hostd until the time is over. Returns how often.
fn kill_all_the_time(host: &mut Host, storm: &Storm, seed: u64, until: Instant) -> usize {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kills = 0;
    while Instant::now() < until && !storm.is_over.load(Ordering::SeqCst) {
        let pause = match random.random_range(0..4) {
            // Kill it in the middle of its start.
            0 => random.random_range(0..40),
            1 | 2 => random.random_range(0..150),
            _ => {
                host.await_daemon();
                random.random_range(0..200)
            }
        };
        std::thread::sleep(Duration::from_millis(pause));
        host.kill_daemon();
        kills += 1;
        host.spawn_daemon(&[("KEELSON_LOG", "info")]);
    }
    host.await_daemon();
    kills
}

/// The directories of a hostd that has only images.
fn left(host: &Host) -> Vec<PathBuf> {
    [
        "root/engine/containers",
        "root/engine/containers/.trash",
        "root/engine/volumes",
        "root/engine/volumes/.trash",
        "run/containers",
        "run/volumes",
        "run/volume-uses",
    ]
    .iter()
    .flat_map(|name| fs::read_dir(host.path().join(name)).into_iter().flatten())
    .flatten()
    .map(|entry| entry.path())
    .filter(|path| !path.ends_with(".trash"))
    .collect()
}

#[test]
fn nothing_is_lost_in_a_storm() {
    if !is_root() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seconds = number(SECONDS).unwrap_or(USUAL_SECONDS);
    let seed: u64 = number(SEED).unwrap_or_else(|| rand::rng().random());
    println!("{SEED}={seed}");
    let mut host = Host::start();
    host.load_busybox();
    let storm = Storm {
        socket: host.socket(),
        volumes: host.path().join("root/engine/volumes"),
        home: host.path().to_owned(),
        url: host.url(),
        token: format!("{}-{seed}", std::process::id()),
        is_over: AtomicBool::new(false),
        done: Default::default(),
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let kills = std::thread::scope(|scope| {
        // A failure of one ends the test for all.
        struct End<'a>(&'a Storm);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.is_over.store(true, Ordering::SeqCst);
                }
            }
        }
        let storm = &storm;
        for number in 0..CLIENTS {
            scope.spawn(move || {
                let _end = End(storm);
                let mut client = Client {
                    storm,
                    random: StdRng::seed_from_u64(seed.wrapping_add(number as u64 + 1)),
                    number,
                    made: 0,
                };
                let weights: u32 = SCENES.iter().map(|(_, weight, _)| weight).sum();
                while Instant::now() < until && !storm.is_over.load(Ordering::SeqCst) {
                    let mut chosen = client.random.random_range(0..weights);
                    for ((_, weight, scene), done) in SCENES.iter().zip(&storm.done) {
                        if chosen < *weight {
                            scene(&mut client);
                            done.fetch_add(1, Ordering::SeqCst);
                            break;
                        }
                        chosen -= weight;
                    }
                }
            });
        }
        let _end = End(storm);
        // They continue their operations.
        kill_all_the_time(&mut host, storm, seed, until)
    });
    let done: Vec<String> = SCENES
        .iter()
        .zip(&storm.done)
        .map(|((name, ..), done)| format!("{name} {}", done.load(Ordering::SeqCst)))
        .collect();
    println!("{kills} kills in {seconds} s: {}", done.join(", "));
    assert!(
        storm
            .done
            .iter()
            .all(|done| done.load(Ordering::SeqCst) > 0)
    );

    // All clients have removed their objects.
    assert_eq!(host.docker(&["ps", "-aq"]).ok(), "");
    host.send("POST", "/v1.41/volumes/prune", "");
    wait_until("nothing is left", || left(&host).is_empty());
    wait_until("all that ended is reaped", || zombies(&host).is_empty());
    assert!(!host.log().contains("panicked"));
}

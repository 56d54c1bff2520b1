//! The host configuration over the API and `hostctl config`: shown with origins, checked, compared,
//! changed, confirmed, and taken back by itself.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{Done, Host, hostctl, is_root, run, wait_until};
use serde_json::{Value, json};

const FORMER: &str = "# mine\nhostname = 'before'\n";
const NETWORK: &str = "hostname = 'after'\n[[network.link]]\nname = 'eth7'\ndhcp4 = true\n";

struct Machine {
    host: Host,
}

impl Machine {
    /// A machine with the operator's file [`FORMER`].
    fn start() -> Self {
        let mut host = Host::start();
        host.kill_daemon();
        let directory = host.path().join("config/etc/keelson");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("host.toml"), FORMER).unwrap();
        host.start_daemon();
        Self { host }
    }

    fn operator(&self) -> PathBuf {
        self.host.path().join("config/etc/keelson/host.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.operator()).unwrap()
    }

    fn config(&self) -> Value {
        let (status, text) = self.host.get("/host/v1/config");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn post(&self, what: &str, body: &Value) -> (u16, Value) {
        let path = format!("/host/v1/config/{what}");
        let (status, text) = self.host.send("POST", &path, &body.to_string());
        (status, serde_json::from_str(&text).unwrap())
    }
}

#[test]
fn values_are_shown_with_their_origins_and_without_secrets() {
    if !is_root() {
        return;
    }
    let machine = Machine::start();
    let drop_ins = machine.host.path().join("config/etc/keelson/host.toml.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let secret = "\n[[file]]\npath = '/etc/secret'\ncontents = 'geheim'\n";
    fs::write(drop_ins.join("10-secret.toml"), secret).unwrap();
    let view = machine.config();
    assert_eq!(view["config"]["hostname"], "before");
    assert_eq!(view["config"]["engine"]["stop_timeout"], 10);
    assert_eq!(view["origins"]["hostname"]["layer"], "operator");
    assert_eq!(view["origins"]["hostname"]["line"], 2);
    assert_eq!(view["origins"]["file"]["line"], 2);
    assert_eq!(view["origins"]["engine.stop_timeout"]["layer"], "built-in");
    assert_eq!(view["config"]["file"][0]["contents"], "(hidden)");
    assert!(!view.to_string().contains("geheim"));
    assert_eq!(view["waiting"], Value::Null);
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let machine = Machine::start();
    let (status, checked) = machine.post("validate", &json!({"text": "\nhostnam = 'x'\n"}));
    assert_eq!(status, 200);
    let problem = &checked["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["field"]),
        (&json!(2), &json!("hostnam"))
    );
    assert!(
        problem["remedy"].as_str().unwrap().contains("\"hostname\""),
        "{problem}"
    );
    for (body, part) in [
        (
            json!({"text": "hostname = 1"}),
            "host.toml:1: field hostname is wrong",
        ),
        (
            json!({"text": "[[command]]\nargv = ['true']"}),
            "field command is not built yet",
        ),
        (
            json!({"text": "", "drop_in": "../x"}),
            "is no name of a drop-in",
        ),
        (
            json!({"text": "", "confirm_within": 100_000}),
            "confirm_within 100000 is out of range",
        ),
        (json!({"text": "", "more": 1}), "unknown field `more`"),
    ] {
        let (status, answer) = machine.post("apply", &body);
        assert_eq!(status, 400, "{answer}");
        assert!(
            answer["message"].as_str().unwrap().contains(part),
            "{answer}"
        );
    }
    // Nothing would start this hostd again.
    let (status, answer) = machine.post("apply", &json!({"text": "", "restart": true}));
    assert_eq!(status, 409, "{answer}");
    for what in ["confirm", "rollback"] {
        assert_eq!(machine.post(what, &json!({})).0, 404);
    }
    assert_eq!(machine.text(), FORMER);
}

#[test]
fn an_unconfirmed_change_is_taken_back_also_when_hostd_was_killed() {
    if !is_root() {
        return;
    }
    let mut machine = Machine::start();
    let (status, applied) = machine.post("apply", &json!({"text": NETWORK, "confirm_within": 1}));
    assert_eq!(status, 200, "{applied}");
    assert_eq!(applied["confirm_within"], 1);
    let fields = applied["changes"].as_array().unwrap().iter();
    let fields: Vec<&str> = fields
        .map(|change| change["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["hostname", "network.link"]);
    wait_until("the change is taken back", || machine.text() == FORMER);
    let log = machine.host.log();
    assert!(log.contains("was not confirmed and is taken back"), "{log}");

    // The time goes on while hostd does not run.
    let (status, _) = machine.post("apply", &json!({"text": NETWORK, "confirm_within": 2}));
    assert_eq!(status, 200);
    machine.host.kill_daemon();
    assert_eq!(machine.text(), NETWORK);
    machine.host.start_daemon();
    wait_until("the change is taken back", || machine.text() == FORMER);
    assert_eq!(machine.config()["waiting"], Value::Null);
    let history = machine.host.path().join("root/host/config/history");
    let copies = fs::read_dir(history).unwrap();
    let copies: Vec<String> = copies
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert!(copies.iter().any(|text| text == NETWORK), "{copies:?}");
}

#[test]
fn hostctl_changes_confirms_and_takes_back() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let machine = Machine::start();
    let config = |args: &[&str], input: &str| -> Done {
        let mut command = Command::new(&hostctl);
        command
            .args(["--host", &machine.host.url(), "config"])
            .args(args);
        run(&mut command, input.as_bytes())
    };
    let shown = config(&["show", "--origin"], "").ok();
    assert!(
        shown.contains("operator") && shown.contains("host.toml:2"),
        "{shown}"
    );
    assert_eq!(
        config(&["validate", "-"], NETWORK).ok(),
        "the file is right"
    );
    config(&["validate", "-"], "[[command]]\nargv = ['true']\n").fails_with("1 problems in -");
    let diff = config(&["diff", "-"], NETWORK).ok();
    assert!(
        diff.contains("network.link") && diff.contains("at once"),
        "{diff}"
    );
    assert_eq!(machine.text(), FORMER);

    let applied = config(&["apply", "-"], NETWORK).ok();
    assert!(applied.contains("taken back in 120 s"), "{applied}");
    config(&["apply", "-"], "").fails_with("waits for its confirmation");
    let waiting = config(&["show"], "").ok();
    assert!(waiting.contains("waiting: "), "{waiting}");
    config(&["confirm"], "").ok();
    assert_eq!(machine.text(), NETWORK);
    config(&["confirm"], "").fails_with("no change waits");

    let drop_in = config(
        &["apply", "--drop-in", "50-x", "-"],
        "[engine]\nstop_timeout = 3\n",
    )
    .ok();
    assert!(drop_in.contains("when hostd restarts"), "{drop_in}");
    let view = machine.config();
    assert_eq!(view["config"]["engine"]["stop_timeout"], 3);
    config(&["rollback"], "").ok();
    assert_eq!(machine.config()["config"]["engine"]["stop_timeout"], 10);
    assert_eq!(machine.text(), NETWORK);
}

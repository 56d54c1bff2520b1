//! Hooks of containers under a shim. (Those of the command line are tested there.)

mod common;

use std::path::Path;

use common::bundle::Bundle;
use common::{Setup, can_run, eventually};
use keelson_shim_protocol::{OciStatus, Request, Response};
use serde_json::{Value, json};

/// A hook that writes its input into a file. A rename makes the file appear complete.
fn recording(directory: &Path, kind: &str) -> Value {
    let file = directory.join(kind);
    let script = format!("cat > {0}.new && mv {0}.new {0}", file.display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

/// A hook that waits until a file exists, and records that it is there.
fn waiting(directory: &Path) -> Value {
    let script = format!(
        "echo $$ > {0}/waits; until test -e {0}/go; do sleep 0.01; done; touch {0}/went",
        directory.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

fn told(directory: &Path, kind: &str) -> Value {
    let file = directory.join(kind);
    eventually(kind, || file.exists());
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn hooks_get_the_state() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sleep", "1000"]);
    let directory = setup.directory.path().join("told");
    std::fs::create_dir(&directory).unwrap();
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    for kind in kinds {
        setup.config["hooks"][kind] = recording(&directory, kind);
    }
    let shim = setup.create();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        assert!(
            directory.join(kind).exists(),
            "{kind} runs before create is done"
        );
    }
    assert!(!directory.join("poststart").exists());
    shim.start();
    assert!(
        directory.join("poststart").exists(),
        "it runs before start is done"
    );
    assert!(!directory.join("poststop").exists());
    shim.call(&Request::Kill {
        signal: 9,
        all: false,
    });
    shim.wait();
    for (kind, status) in kinds
        .into_iter()
        .zip(["creating", "creating", "creating", "running", "stopped"])
    {
        let state = told(&directory, kind);
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], shim.id.as_str(), "{kind}");
        assert_eq!(state["ociVersion"], "1.2.0", "{kind}");
        let bundle = shim.directory.path().join("bundle");
        assert_eq!(state["bundle"], json!(bundle), "{kind}");
        if status == "stopped" {
            assert!(state.get("pid").is_none(), "{state}");
        } else {
            assert_eq!(state["pid"], shim.pid, "{kind}");
        }
    }
}

/// A hook that adds its process's status to a file, with its kind.
fn tells_its_status(file: &Path, kind: &str) -> Value {
    let script = format!(
        "grep -H . /proc/self/status | sed s:^:{kind}: >> {}",
        file.display()
    );
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}])
}

/// Checks that hooks of these kinds ran with no signal blocked and the usual ones not ignored.
fn no_signal_is_held_back(file: &Path, kinds: &[&str]) {
    for kind in kinds {
        let line = |name: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let found = text
                .lines()
                .find(|line| line.starts_with(kind) && line.contains(name))?;
            Some(found.rsplit('\t').next()?.to_owned())
        };
        eventually(kind, || line("SigIgn").is_some());
        assert_eq!(line("SigBlk").unwrap(), "0000000000000000", "{kind}");
        let ignored = u64::from_str_radix(&line("SigIgn").unwrap(), 16).unwrap();
        // SIGINT, SIGPIPE, SIGTERM, SIGCHLD.
        assert_eq!(
            ignored & (1 << 1 | 1 << 12 | 1 << 14 | 1 << 16),
            0,
            "{kind}"
        );
    }
}

#[test]
fn hooks_get_signals_as_usual() {
    if !can_run() {
        return;
    }
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let mut setup = Setup::new(&["true"]);
    let file = setup.directory.path().join("status");
    for kind in kinds {
        setup.config["hooks"][kind] = tells_its_status(&file, kind);
    }
    let shim = setup.create();
    shim.start();
    no_signal_is_held_back(&file, &kinds);

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("status");
    let bundle = Bundle::new(&["true"], |config| {
        for kind in kinds {
            config["hooks"][kind] = tells_its_status(&file, kind);
        }
    });
    bundle.ok(&["run", &bundle.id]);
    no_signal_is_held_back(&file, &kinds);
}

#[test]
fn a_state_of_any_size_reaches_hooks_and_may_be_left_unread() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["true"]);
    let directory = setup.directory.path().join("told");
    std::fs::create_dir(&directory).unwrap();
    let large = "x".repeat(200_000);
    setup.config["annotations"]["org.example.large"] = large.as_str().into();
    let unread = json!({"path": "/bin/sleep", "args": ["sleep", "0.01"], "timeout": 20});
    let reads = recording(&directory, "createRuntime")[0].clone();
    setup.config["hooks"] = json!({"createRuntime": [unread, reads]});
    setup.config["hooks"]["poststop"] = recording(&directory, "poststop");
    let shim = setup.create();
    shim.start();
    for kind in ["createRuntime", "poststop"] {
        let state = told(&directory, kind);
        assert_eq!(state["annotations"]["org.example.large"], large.as_str());
    }
}

#[test]
fn a_slow_hook_after_the_start_delays_only_the_start() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "echo runs; exec sleep 1000"]);
    let directory = setup.directory.path().to_owned();
    setup.config["hooks"] = json!({"poststart": waiting(&directory)});
    let shim = setup.create();
    let mut starter = shim.connect();
    starter.send(&Request::Start);
    eventually("the hook", || directory.join("waits").exists());
    match shim.call(&Request::State) {
        Response::State { status, .. } => assert_eq!(status, OciStatus::Running),
        other => panic!("{other:?}"),
    }
    eventually("output", || shim.output() == "runs\n");
    std::fs::write(directory.join("go"), "").unwrap();
    assert_eq!(starter.receive(), Response::Started { pid: shim.pid });
    assert!(directory.join("went").exists());
}

#[test]
fn hooks_that_never_end_do_not_block_the_containers_end() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sh", "-c", "exit 3"]);
    let directory = setup.directory.path().to_owned();
    setup.config["hooks"] = json!({"poststop": waiting(&directory)});
    let shim = setup.create();
    let mut waiter = shim.connect();
    waiter.send(&Request::Wait { exec: None });
    shim.start();
    let Response::Exited(exit) = waiter.receive() else {
        panic!("no exit");
    };
    assert_eq!(exit.code, 3);
    drop(waiter);
    shim.gone();
    assert!(!directory.join("went").exists());
    std::fs::write(directory.join("go"), "").unwrap();
    eventually("the hook's end", || directory.join("went").exists());
}

#[test]
fn a_hook_that_takes_too_long_is_killed_and_ends_the_container() {
    if !can_run() {
        return;
    }
    for (kind, creates) in [
        ("prestart", true),
        ("createRuntime", true),
        ("createContainer", true),
        ("startContainer", false),
    ] {
        let mut setup = Setup::new(&["true"]);
        let file = setup.directory.path().join("waits");
        let mut hook = waiting(setup.directory.path());
        if !creates {
            hook[0]["args"] = json!(["sh", "-c", "while true; do sleep 1; done"]);
        }
        hook[0]["timeout"] = json!(1);
        setup.config["hooks"] = json!({kind: hook});
        let message = if creates {
            setup.fails()
        } else {
            let shim = setup.create();
            match shim.call(&Request::Start) {
                Response::Failed { message, .. } => message,
                other => panic!("{other:?}"),
            }
        };
        assert!(
            message.contains(&format!("error running {kind} hook #0: ")),
            "{message}"
        );
        assert!(message.contains("timeout"), "{message}");
        if kind == "prestart" || kind == "createRuntime" {
            let pid = std::fs::read_to_string(file).unwrap();
            assert!(
                !Path::new(&format!("/proc/{}", pid.trim())).exists(),
                "{kind}"
            );
        }
    }
}

#[test]
fn a_hook_that_fails_names_itself_and_its_status() {
    if !can_run() {
        return;
    }
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut setup = Setup::new(&["true"]);
        let fails = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo said >&2; exit 9"]});
        let never = recording(setup.directory.path(), "never")[0].clone();
        setup.config["hooks"] = json!({kind: [fails, never]});
        let message = setup.fails();
        assert!(
            message.contains(&format!(
                "error running {kind} hook #0: /bin/sh: exit status 9"
            )),
            "{message}"
        );
        assert!(message.ends_with("stdout: , stderr: said"), "{message}");
        assert!(
            !setup.directory.path().join("never").exists(),
            "no further hook runs"
        );
    }
    // After the start, failures change nothing, and the next hooks run.
    let mut setup = Setup::new(&["sleep", "1000"]);
    let directory = setup.directory.path().to_owned();
    let fails = json!({"path": "/no/such/hook"});
    setup.config["hooks"] =
        json!({"poststart": [fails, recording(&directory, "poststart")[0].clone()]});
    let shim = setup.create();
    shim.start();
    assert_eq!(told(&directory, "poststart")["status"], "running");
}

/// As with runc and crun, a hook without an environment of its own has the runtime's; an empty list
/// is an empty environment.
#[test]
fn hooks_outside_inherit_unless_they_have_an_environment() {
    if !can_run() {
        return;
    }
    let mut setup = Setup::new(&["sleep", "1000"]);
    let directory = setup.directory.path().join("told");
    std::fs::create_dir(&directory).unwrap();
    let hook = |name: &str| {
        let script = format!("/bin/cat /proc/$$/environ > {}/{name}", directory.display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    };
    let (inheriting, mut empty, mut own) = (hook("inheriting"), hook("empty"), hook("own"));
    empty["env"] = json!([]);
    own["env"] = json!(["MINE=1"]);
    setup.config["hooks"]["createRuntime"] = json!([inheriting, empty, own]);
    let _shim = setup.create();
    let seen = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    assert!(
        seen("inheriting").contains("PATH="),
        "{}",
        seen("inheriting")
    );
    assert_eq!(seen("empty"), "");
    assert_eq!(seen("own"), "MINE=1\0");
}

/// As with runc, startContainer hooks without an environment of their own have the command's.
#[test]
fn hooks_inside_have_the_commands_environment() {
    if !can_run() {
        return;
    }
    let hook = |name: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("/bin/env > /tmp/{name}")]});
    let mut own = hook("own");
    own["env"] = json!(["MINE=1"]);
    let script = "cat /tmp/inherited; echo; cat /tmp/own";
    let mut setup = Setup::new(&["sh", "-c", script]);
    let env = setup.config["process"]["env"].as_array_mut().unwrap();
    env.extend([json!("GIVEN=yes=no"), json!("HOME=/somewhere")]);
    setup.config["hooks"] = json!({"startContainer": [hook("inherited"), own]});
    let (output, exit) = setup.run();
    assert_eq!(exit.code, 0, "{output}");
    let (inherited, own) = output.split_once("\n\n").unwrap();
    for entry in ["GIVEN=yes=no", "HOME=/somewhere", "PATH=/usr/local/sbin:"] {
        assert!(inherited.contains(entry), "{output}");
    }
    assert!(own.contains("MINE=1") && !own.contains("GIVEN"), "{output}");
}

//! The state of a container.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::lab::{Lab, same};

const STATE: &str = "runtime.md#state";
const QUERY: &str = "runtime.md#query-state";

fn has_type(state: &Value, member: &str, is: fn(&Value) -> bool) -> Result<()> {
    ensure!(is(&state[member]), "{member} in {state}");
    Ok(())
}

fn fails(lab: &Lab, arguments: &[&str]) -> Result<()> {
    lab.call(arguments)?.failure().map(drop)
}

pub(super) const CASES: &[Case] = &[
    must(
        "runtime.state.version",
        STATE,
        "The state has ociVersion, a version.",
        |lab| {
            let state = lab.create(|_| {})?.state()?;
            let version = state["ociVersion"].as_str().unwrap_or_default();
            ensure!(
                version.starts_with("1.") && version.split('.').count() >= 3,
                "ociVersion {version:?}"
            );
            Ok(())
        },
    ),
    must(
        "runtime.state.id",
        STATE,
        "The state has the container's identifier.",
        |lab| {
            let container = lab.create(|_| {})?;
            same(
                "id",
                container.state()?["id"].as_str().unwrap_or_default(),
                &container.id,
            )
        },
    ),
    must(
        "runtime.state.pid-created",
        STATE,
        "When created, pid is a process of the host that is in the container's namespaces.",
        |lab| {
            let container = lab.create(|_| {})?;
            let own = std::fs::read_link("/proc/self/ns/uts")?;
            ensure!(
                container.namespace("uts")? != own.to_string_lossy(),
                "it is in the host's namespace"
            );
            Ok(())
        },
    ),
    must(
        "runtime.state.pid-running",
        STATE,
        "When running, pid is the user's process as the host sees it.",
        |lab| {
            let container = lab.idle()?;
            let command = std::fs::read_to_string(container.proc("cmdline")?)?;
            same("command", &command.replace('\0', " "), "sleep 1000 ")
        },
    ),
    interface(
        "cli.state.pid-stopped",
        "runc state",
        "When stopped, pid is 0.",
        |lab| {
            let container = lab.start("exit", |_| {})?;
            container.ends()?;
            let state = container.state()?;
            ensure!(state["pid"].as_i64().unwrap_or(0) == 0, "{state}");
            Ok(())
        },
    ),
    must(
        "runtime.state.bundle",
        STATE,
        "The state has the absolute path of the bundle, also when it was given relatively.",
        |lab| {
            lab.write_config(|_| {})?;
            let id = lab.next_id();
            let mut command = lab.command(&["create", "--bundle", "../bundle", &id])?;
            crate::command::run(&mut command)?.output()?;
            let state: Value = serde_json::from_str(&lab.call(&["state", &id])?.output()?)?;
            let bundle = state["bundle"].as_str().unwrap_or_default();
            ensure!(bundle.starts_with('/'), "bundle {bundle:?}");
            let found = std::fs::canonicalize(bundle)?;
            same(
                "bundle",
                &found.to_string_lossy(),
                &lab.bundle().canonicalize()?.to_string_lossy(),
            )
        },
    ),
    must(
        "runtime.state.annotations",
        STATE,
        "The state has the annotations of the configuration.",
        |lab| {
            let container = lab.create(|config| {
                config["annotations"] = json!({"org.example.key": "value", "empty": ""});
            })?;
            let state = container.state()?;
            ensure!(
                state["annotations"]["org.example.key"] == "value",
                "annotations in {state}"
            );
            Ok(())
        },
    ),
    must(
        "runtime.state.no-annotations",
        STATE,
        "Without annotations, they are absent or empty.",
        |lab| {
            let state = lab.create(|_| {})?.state()?;
            let annotations = &state["annotations"];
            ensure!(
                annotations.is_null() || annotations.as_object().is_some_and(|all| all.is_empty()),
                "{annotations}"
            );
            Ok(())
        },
    ),
    must(
        "runtime.state.types",
        STATE,
        "The state is a JSON object whose members have the specified types.",
        |lab| {
            let state = lab.create(|_| {})?.state()?;
            for member in ["ociVersion", "id", "status", "bundle"] {
                has_type(&state, member, Value::is_string)?;
            }
            has_type(&state, "pid", Value::is_i64)
        },
    ),
    must(
        "runtime.state.statuses",
        STATE,
        "The status goes from created to running to stopped.",
        |lab| {
            let container = lab.create(|config| {
                config["process"]["args"] = json!(["sleep", "1000"]);
            })?;
            container.is("created")?;
            container.start()?;
            container.is("running")?;
            container.stop()
        },
    ),
    must(
        "runtime.state.unknown",
        QUERY,
        "The state of a container that does not exist is an error.",
        |lab| lab.knows_none(&["state", "nobody"]),
    ),
    must(
        "runtime.state.id-missing",
        QUERY,
        "state without an identifier fails.",
        |lab| fails(lab, &["state"]),
    ),
    interface(
        "cli.state.created-time",
        "runc state",
        "The state tells the root file system and the time of creation by RFC 3339.",
        |lab| {
            let state = lab.create(|_| {})?.state()?;
            let created = state["created"].as_str().unwrap_or_default();
            ensure!(
                created.len() >= 20
                    && created.as_bytes().get(10) == Some(&b'T')
                    && created.ends_with('Z'),
                "created {created:?}"
            );
            let rootfs = std::fs::canonicalize(state["rootfs"].as_str().unwrap_or_default())?;
            same(
                "rootfs",
                &rootfs.to_string_lossy(),
                &lab.rootfs().canonicalize()?.to_string_lossy(),
            )
        },
    ),
];

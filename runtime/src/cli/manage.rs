//! Commands on containers that exist.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

use keelson_linux::signal;
use keelson_shim_protocol::OciStatus;
use keelson_sys::clone;
use rustix::process::{Pid, PidfdFlags};

use super::arguments::{Arguments, only_id, read};
use super::readiness::Readiness;
use super::time::rfc3339;
use super::{Global, log};
use crate::cgroup::{self, Cgroup};
use crate::failure::{self, Failure, Step};
use crate::process::channel::{Channel, Message};
use crate::sandbox::shared::Shared;
use crate::spec::HookKind;
use crate::state::{self, State, Store};

/// Longest wait for a killed container to be gone, in milliseconds.
const KILL_TIMEOUT: i32 = 10_000;

fn id_only(arguments: Arguments) -> Result<String, Failure> {
    only_id(read(arguments, |_, _| Ok(false))?)
}

/// `start`.
pub(crate) fn start(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let store = Store::new(&global.root, &id_only(arguments)?)?;
    // Another `start` may be listening for the same container.
    startable(&store)?;
    let waiting = match Readiness::asked_for(&store) {
        Some(readiness) => readiness.listen()?,
        None => None,
    };
    start_container(&store)?;
    if let Some(waiting) = waiting {
        let state = store.load()?;
        // A process that has ended by now has sent all its messages.
        let told = match open_process(&state) {
            Ok(process) => waiting.wait(process.as_fd(), state.pid),
            Err(_) => waiting.step(Some(state.pid)).map(drop),
        };
        if let Err(failure) = told {
            failure::warn(&[failure]);
        }
    }
    Ok(0)
}

/// The state of a container that can be started.
fn startable(store: &Store) -> Result<State, Failure> {
    let state = store.load()?;
    let status = state.status(store.progress());
    if status != OciStatus::Created {
        return Err(Failure::conflict(format!(
            "container {} is {status}, only a created one can be started",
            state.id
        )));
    }
    Ok(state)
}

/// Lets a created container execute its command.
pub(crate) fn start_container(store: &Store) -> Result<(), Failure> {
    let state = startable(store)?;
    let channel = Channel::from_fd(store.connect()?);
    channel.start()?;
    log::debug(|| "init: closing the pipe to signal completion");
    let answer = channel.receive()?;
    store.started()?;
    match answer {
        Message::Closed => {
            let subject = state.subject();
            let hooks = &state.hooks.poststart;
            failure::warn(&subject.run_all(HookKind::Poststart, hooks, state.pid));
            Ok(())
        }
        Message::Failed(failure) => Err(failure),
        Message::Ready(_) | Message::Hooks | Message::Made(_) => {
            Err(Failure::internal("unexpected answer of the container"))
        }
    }
}

/// `state`.
pub(crate) fn state(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let store = Store::new(&global.root, &id_only(arguments)?)?;
    let state = store.load()?;
    let document = describe(&state, state.status(store.progress()));
    println!("{}", to_json(&document, true)?);
    Ok(0)
}

/// A container as `state` and `list` print it, with the members in runc's order.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: OciStatus,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: &'a str,
}

fn describe(state: &State, status: OciStatus) -> Described<'_> {
    Described {
        oci_version: &state.oci_version,
        id: &state.id,
        pid: if status == OciStatus::Stopped {
            0
        } else {
            state.pid
        },
        status,
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: rfc3339(state.created),
        annotations: &state.annotations,
        owner: "",
    }
}

fn to_json(value: &impl serde::Serialize, pretty: bool) -> Result<String, Failure> {
    match pretty {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    }
    .map_err(|error| Failure::internal(format!("write JSON: {error}")))
}

/// `kill`.
pub(crate) fn kill(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let mut all = false;
    let positional = read(arguments, |name, rest| {
        match name {
            "--all" | "-a" => all = rest.switch(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut positional = positional.into_iter();
    let id = positional.next().unwrap_or_default();
    let signal = parse_signal(positional.next().as_deref().unwrap_or("SIGTERM"))?;
    if positional.next().is_some() {
        return Err(Failure::invalid("kill takes an id and a signal"));
    }
    let store = Store::new(&global.root, &id)?;
    let state = store.load()?;
    let stopped = state.status(store.progress()) == OciStatus::Stopped;
    if all {
        // Without a pid namespace of its own a container leaves processes when its first one ends.
        return match state.open_cgroup() {
            None if stopped => Ok(0),
            _ => cgroup_of(&state)?.signal(signal).map(|()| 0),
        };
    }
    if stopped {
        return Err(Failure::conflict(format!("container {id} is not running")));
    }
    let step = || format!("send signal {signal} to process {}", state.pid);
    let process = open_process(&state).step(step)?;
    clone::signal_process(process.as_fd(), signal).step(step)?;
    Ok(0)
}

pub(super) fn open_process(state: &State) -> Result<std::os::fd::OwnedFd, rustix::io::Errno> {
    let pid = Pid::from_raw(state.pid).ok_or(rustix::io::Errno::SRCH)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // The number may have been reused between the check of its start time and the opening.
    if state::start_time(state.pid) != Some(state.pid_start) {
        return Err(rustix::io::Errno::SRCH);
    }
    Ok(process)
}

/// A signal by number (`9`) or name (`KILL`, `SIGKILL`, `RTMIN+3`).
fn parse_signal(text: &str) -> Result<i32, Failure> {
    // Signal 0 only checks that the process exists, and signals 32 and 33 belong to the C library;
    // runc sends them all.
    let number = text.parse().ok().or_else(|| signal::number(text));
    number
        .filter(|number| (0..=signal::REALTIME_MAX).contains(number))
        .ok_or_else(|| Failure::invalid(format!("{text:?} is not a signal")))
}

pub(crate) fn cgroup_of(state: &State) -> Result<Cgroup, Failure> {
    state
        .open_cgroup()
        .ok_or_else(|| Failure::invalid(format!("container {} has no cgroup", state.id)))
}

/// `delete`.
pub(crate) fn delete(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let mut force = false;
    let positional = read(arguments, |name, rest| {
        match name {
            "--force" | "-f" => force = rest.switch(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let id = only_id(positional)?;
    let store = Store::new(&global.root, &id)?;
    let _lock = store.lock()?;
    let state = match store.load() {
        Ok(state) => state,
        // An interrupted `create` leaves a directory without state.
        Err(_) if force || store.exists() => {
            store.remove()?;
            return Ok(0);
        }
        Err(failure) => return Err(failure),
    };
    let status = state.status(store.progress());
    if !force && !matches!(status, OciStatus::Stopped | OciStatus::Created) {
        return Err(Failure::conflict(format!(
            "container {id} is {status}; it must be stopped or --force be given"
        )));
    }
    remove(&store, &state, status == OciStatus::Stopped)?;
    Ok(0)
}

/// Kills a container's processes and deletes its state, unless another process did so already.
pub(crate) fn destroy(store: &Store) -> Result<(), Failure> {
    match store.lock()? {
        Some(_lock) => remove(store, &store.load()?, false),
        None => Ok(()),
    }
}

/// The caller holds the container's lock.
fn remove(store: &Store, state: &State, stopped: bool) -> Result<(), Failure> {
    if !stopped && let Ok(process) = open_process(state) {
        let _ = clone::signal_process(process.as_fd(), libc::SIGKILL);
        let mut ready = [nix::poll::PollFd::new(
            process.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        let timeout = u16::try_from(KILL_TIMEOUT).unwrap_or(u16::MAX);
        if nix::poll::poll(&mut ready, timeout) == Ok(0) {
            return Err(Failure::internal(format!(
                "container {}: process {} did not end after SIGKILL",
                state.id, state.pid
            )));
        }
    }
    if let Some(path) = &state.cgroup {
        cgroup::remove(path)?;
    }
    if let Some(Err(failure)) = state.shared.as_ref().map(Shared::unmount) {
        failure::warn(&[failure]);
    }
    // Only the container's name is left. It goes last: when a caller sees that it is gone, the
    // hooks have run.
    let hooks = &state.hooks.poststop;
    failure::warn(&state.subject().run_all(HookKind::Poststop, hooks, 0));
    store.remove()
}

/// `list`.
pub(crate) fn list(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let (mut format, mut quiet) = ("table".to_owned(), false);
    read(arguments, |name, rest| {
        match name {
            "--format" | "-f" => format = rest.value(name)?,
            "--quiet" | "-q" => quiet = rest.switch(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut containers = Vec::new();
    for id in state::list(&global.root)? {
        let store = Store::new(&global.root, &id)?;
        // A container that is being created or deleted right now has no state.
        if let Ok(state) = store.load() {
            let status = state.status(store.progress());
            containers.push((state, status));
        }
    }
    match format.as_str() {
        _ if quiet => {
            for (state, _) in &containers {
                println!("{}", state.id);
            }
        }
        "json" => {
            let documents: Vec<_> = containers
                .iter()
                .map(|(state, status)| describe(state, *status))
                .collect();
            println!("{}", to_json(&documents, false)?);
        }
        "table" => {
            let mut rows =
                vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
            rows.extend(containers.iter().map(|(state, status)| {
                let described = describe(state, *status);
                [
                    described.id.to_owned(),
                    described.pid.to_string(),
                    described.status.to_string(),
                    described.bundle.display().to_string(),
                    described.created,
                    "root".to_owned(),
                ]
            }));
            print!("{}", aligned(&rows));
        }
        other => {
            return Err(Failure::invalid(format!(
                "--format: {other:?} is not table or json"
            )));
        }
    }
    Ok(0)
}

/// Rows with aligned columns.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    const GAP: usize = 3;
    const NARROWEST: usize = 12;
    let mut widths = [NARROWEST; COLUMNS];
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count() + GAP);
        }
    }
    let mut table = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, text) in widths.iter().zip(row) {
            line.push_str(&format!("{text:<width$}"));
        }
        table.push_str(line.trim_end());
        table.push('\n');
    }
    table
}

/// `pause` and `resume`.
pub(crate) fn freeze(global: &Global, arguments: Arguments, frozen: bool) -> Result<u8, Failure> {
    let store = Store::new(&global.root, &id_only(arguments)?)?;
    let state = store.load()?;
    let wanted = match frozen {
        true => OciStatus::Running,
        false => OciStatus::Paused,
    };
    let status = state.status(store.progress());
    if status != wanted {
        return Err(Failure::conflict(format!(
            "container {} is {status}, not {wanted}",
            state.id
        )));
    }
    cgroup_of(&state)?.freeze(frozen)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMIN", 34),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "NOPE", "RTMIN+99"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}

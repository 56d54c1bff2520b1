//! `update`, `events` and `ps`: what a container may use, and what it uses.

use std::io::Read;
use std::time::Duration;

use keelson_shim_protocol::OciStatus;
use serde_json::{Map, Value, json};

use super::Global;
use super::arguments::{Arguments, only_id, read};
use super::manage::cgroup_of;
use crate::cgroup::Cgroup;
use crate::failure::{Failure, Step};
use crate::spec::{self, Resources};
use crate::state::{State, Store};

/// Options of `update` and the members of the resources object that they stand for.
const LIMITS: &[(&str, &[&str])] = &[
    ("--memory", &["memory", "limit"]),
    ("--memory-reservation", &["memory", "reservation"]),
    ("--memory-swap", &["memory", "swap"]),
    ("--kernel-memory", &["memory", "kernel"]),
    ("--kernel-memory-tcp", &["memory", "kernelTCP"]),
    ("--cpu-share", &["cpu", "shares"]),
    ("--cpu-shares", &["cpu", "shares"]),
    ("--cpu-quota", &["cpu", "quota"]),
    ("--cpu-burst", &["cpu", "burst"]),
    ("--cpu-period", &["cpu", "period"]),
    ("--cpu-rt-runtime", &["cpu", "realtimeRuntime"]),
    ("--cpu-rt-period", &["cpu", "realtimePeriod"]),
    ("--cpu-idle", &["cpu", "idle"]),
    ("--pids-limit", &["pids", "limit"]),
    ("--blkio-weight", &["blockIO", "weight"]),
];

/// `update`.
pub(crate) fn update(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let mut document = Map::new();
    let mut file = None;
    let positional = read(arguments, |name, rest| {
        if let Some((_, path)) = LIMITS.iter().find(|(option, _)| *option == name) {
            let value = rest.value(name)?;
            let number: i64 = value
                .parse()
                .map_err(|_| Failure::invalid(format!("{name}: {value:?} is not a number")))?;
            insert(&mut document, path, number.into());
            return Ok(true);
        }
        match name {
            "--cpuset-cpus" => insert(&mut document, &["cpu", "cpus"], rest.value(name)?.into()),
            "--cpuset-mems" => insert(&mut document, &["cpu", "mems"], rest.value(name)?.into()),
            "--resources" | "-r" => file = Some(rest.value(name)?),
            "--l3-cache-schema" | "--mem-bw-schema" => {
                return Err(Failure::unsupported(format!(
                    "{name}: Intel RDT is not supported"
                )));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let state = Store::new(&global.root, &only_id(positional)?)?.load()?;
    // As runc: a file replaces all options.
    let resources = match file {
        Some(path) => from_file(&path)?,
        None => serde_json::from_value(document.into())
            .map_err(|error| Failure::invalid(format!("update: {error}")))?,
    };
    cgroup_of(&state)?.update(&resources)?;
    Ok(0)
}

fn insert(document: &mut Map<String, Value>, path: &[&str], value: Value) {
    if let [object, member] = path
        && let Value::Object(object) = document
            .entry((*object).to_owned())
            .or_insert_with(|| json!({}))
    {
        object.insert((*member).to_owned(), value);
    }
}

fn from_file(path: &str) -> Result<Resources, Failure> {
    let step = || format!("--resources: read {path}");
    let bytes = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).step(step)?;
        bytes
    } else {
        std::fs::read(path).step(step)?
    };
    spec::parse_resources(&bytes)
        .map_err(|error| Failure::invalid(format!("--resources {path}: {error}")))
}

/// `events`.
pub(crate) fn events(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    let (mut once, mut interval) = (false, Duration::from_secs(5));
    let positional = read(arguments, |name, rest| {
        match name {
            "--stats" => once = rest.switch(),
            "--interval" => {
                let value = rest.value(name)?;
                interval = seconds(&value).ok_or_else(|| {
                    Failure::invalid(format!("--interval: {value:?} is not a time such as 5s"))
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let store = Store::new(&global.root, &only_id(positional)?)?;
    let state = store.load()?;
    let status = state.status(store.progress());
    if status == OciStatus::Stopped {
        return Err(Failure::conflict(format!(
            "container {} is stopped",
            state.id
        )));
    }
    let mut kills = cgroup_of(&state)?.oom_kills();
    loop {
        let cgroup = cgroup_of(&state)?;
        println!("{}", event("stats", &state.id, Some(&stats(&cgroup)?)));
        if once {
            return Ok(0);
        }
        std::thread::sleep(interval);
        if ended(&store, &state) {
            return Ok(0);
        }
        let now = cgroup_of(&state)?.oom_kills();
        if now > kills {
            println!("{}", event("oom", &state.id, None));
        }
        kills = now;
    }
}

/// A line of `events`, its members in runc's order.
fn event(kind: &str, id: &str, data: Option<&Value>) -> String {
    let (kind, id) = (json!(kind), json!(id));
    match data {
        Some(data) => format!(r#"{{"type":{kind},"id":{id},"data":{data}}}"#),
        None => format!(r#"{{"type":{kind},"id":{id}}}"#),
    }
}

fn ended(store: &Store, state: &State) -> bool {
    state.status(store.progress()) == OciStatus::Stopped
}

/// A time such as `500ms`, `5s`, `2m`; a bare number is seconds.
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    let unit = text.get(digits.len()..)?;
    Some(match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    })
}

/// What the cgroup has used. Members whose controller is missing are left out.
fn stats(cgroup: &Cgroup) -> Result<Value, Failure> {
    let number = |file: &str| -> Option<u64> { cgroup.read(file).ok()?.trim().parse().ok() };
    // "max" is no limit, which runc reports as the greatest number.
    let limit = |file: &str| -> Option<u64> {
        let text = cgroup.read(file).ok()?;
        Some(text.trim().parse().unwrap_or(u64::MAX))
    };
    let table = |file: &str| -> Map<String, Value> {
        let text = cgroup.read(file).unwrap_or_default();
        pairs(&text)
            .map(|(key, value)| (key.to_owned(), value.into()))
            .collect()
    };
    let mut data = Map::new();
    let cpu = table("cpu.stat");
    let nanoseconds = |key: &str| cpu.get(key).and_then(Value::as_u64).unwrap_or(0) * 1000;
    let count = |key: &str| cpu.get(key).and_then(Value::as_u64).unwrap_or(0);
    data.insert(
        "cpu".into(),
        json!({
            "usage": {
                "total": nanoseconds("usage_usec"),
                "kernel": nanoseconds("system_usec"),
                "user": nanoseconds("user_usec"),
            },
            "throttling": {
                "periods": count("nr_periods"),
                "throttledPeriods": count("nr_throttled"),
                "throttledTime": nanoseconds("throttled_usec"),
            },
        }),
    );
    if let Some(usage) = number("memory.current") {
        let raw = table("memory.stat");
        data.insert(
            "memory".into(),
            json!({
                "usage": {"usage": usage, "limit": limit("memory.max"), "failcnt": 0},
                "swap": {"usage": number("memory.swap.current"), "limit": limit("memory.swap.max"), "failcnt": 0},
                "cache": raw.get("file"),
                "raw": raw,
            }),
        );
    }
    let pids = match number("pids.current") {
        Some(current) => json!({"current": current, "limit": limit("pids.max")}),
        None => json!({"current": cgroup.processes()?.len()}),
    };
    data.insert("pids".into(), pids);
    Ok(data.into())
}

/// Lines of a key and a number.
fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// `ps`.
pub(crate) fn ps(global: &Global, arguments: Arguments) -> Result<u8, Failure> {
    // Arguments after the identifier are for ps(1), even if they look like options.
    let mut format = "table".to_owned();
    let (own, rest) = arguments.split_after_first(&["--format", "-f"]);
    let positional = read(own, |name, rest| {
        match name {
            "--format" | "-f" => format = rest.value(name)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let state = Store::new(&global.root, &only_id(positional)?)?.load()?;
    let pids = cgroup_of(&state)?.processes()?;
    match format.as_str() {
        "json" => println!("{}", json!(pids)),
        "table" => print!("{}", table(&pids, &rest)?),
        other => {
            return Err(Failure::invalid(format!(
                "--format: {other:?} is not table or json"
            )));
        }
    }
    Ok(0)
}

/// The output of ps(1), without the lines of other processes.
fn table(pids: &[i32], options: &[String]) -> Result<String, Failure> {
    let mut command = std::process::Command::new("ps");
    if options.is_empty() {
        command.arg("-ef");
    }
    let output = command.args(options).output().step(|| "execute ps")?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::invalid(format!("ps: {}", message.trim_end())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    select(&text, pids)
}

fn select(text: &str, pids: &[i32]) -> Result<String, Failure> {
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let column = title
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Failure::invalid("ps: its output has no column PID"))?;
    let mut table = format!("{title}\n");
    for line in lines {
        let pid = line.split_ascii_whitespace().nth(column);
        if pid
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
        {
            table.push_str(line);
            table.push('\n');
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_units() {
        assert_eq!(seconds("5s"), Some(Duration::from_secs(5)));
        assert_eq!(seconds("200ms"), Some(Duration::from_millis(200)));
        assert_eq!(seconds("3"), Some(Duration::from_secs(3)));
        for text in ["", "0s", "x", "5d", "-1s"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn only_the_containers_processes_are_listed() {
        let text = "UID PID CMD\nroot 1 init\nroot 12 sleep 1\nroot 2 x 12\n";
        assert_eq!(
            select(text, &[12]).unwrap(),
            "UID PID CMD\nroot 12 sleep 1\n"
        );
        assert!(select("UID CMD\n", &[1]).is_err());
    }

    #[test]
    fn statistics_are_pairs() {
        let found: Vec<_> = pairs("usage_usec 5\nbroken\nx y\nz 7\n").collect();
        assert_eq!(found, [("usage_usec", 5), ("z", 7)]);
    }
}

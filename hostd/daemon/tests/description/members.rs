//! Every described member of a request's body is honoured (a later inspect or the container shows
//! it), refused by its name, or has no effect in Docker, too. The bodies are made from the
//! description: each has one member, once under its own name and once in lower case.

use serde_json::{Map, Value, json};

use super::common::description::exchange;
use super::{Description, Host, is_root, stocked};

/// Members that Docker reads and that change nothing there either, with the reason.
const IGNORED: &[(&str, &str)] = &[
    (
        "NetworkingConfig.EndpointsConfig.*.NetworkID",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.EndpointID",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.Gateway",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.IPAddress",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.IPPrefixLen",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.IPv6Gateway",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.GlobalIPv6Address",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.GlobalIPv6PrefixLen",
        "told by the engine",
    ),
    (
        "NetworkingConfig.EndpointsConfig.*.DNSNames.[]",
        "told by the engine",
    ),
    ("HostConfig.KernelMemory", "not in cgroup v2: a warning"),
    ("HostConfig.KernelMemoryTCP", "not in cgroup v2: a warning"),
    ("HostConfig.MemorySwappiness", "not in cgroup v2: a warning"),
    ("HostConfig.OomKillDisable", "not in cgroup v2: a warning"),
    ("HostConfig.CpuPercent", "for Windows: a warning"),
];

/// Whether a member changes nothing on this machine.
fn is_ignored(host: &Host, path: &str) -> bool {
    let member = path.strip_prefix("HostConfig.").unwrap_or_default();
    let limit = match member {
        "Memory" | "MemoryReservation" => "memory limit",
        "CpuShares" | "CpuPeriod" | "CpuQuota" => "cpu cfs quota and shares",
        "CpusetCpus" | "CpusetMems" => "cpuset",
        "PidsLimit" => "pids limit",
        _ if member.starts_with("Blkio") => "io limit",
        _ => "",
    };
    let lacks = || host.get("/info").1.contains(&format!("No {limit} support"));
    IGNORED.iter().any(|(name, _)| *name == path) || (!limit.is_empty() && lacks())
}

/// Members of a commit's configuration that concern containers, not images.
const NOT_IN_IMAGES: &[&str] = &[
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "ArgsEscaped",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "StopTimeout",
];

/// Other members of the body, so that only the tested member can be wrong.
fn companions(path: &str) -> Value {
    let mount = |value: Value| json!({"HostConfig": {"Mounts": [value]}});
    match path {
        _ if path.starts_with("HostConfig.Mounts.[].TmpfsOptions") => {
            mount(json!({"Type": "tmpfs", "Target": "/m"}))
        }
        _ if path.starts_with("HostConfig.Mounts.[].VolumeOptions") => {
            mount(json!({"Type": "bind", "Source": "/", "Target": "/m"}))
        }
        _ if path.starts_with("HostConfig.Mounts") => {
            mount(json!({"Type": "bind", "Source": "/var/tmp", "Target": "/m"}))
        }
        _ if path.starts_with("HostConfig.Ulimits") => {
            json!({"HostConfig": {"Ulimits": [{"Name": "nofile", "Hard": 9}]}})
        }
        _ if path.starts_with("Ulimits") => json!({"Ulimits": [{"Name": "nofile", "Hard": 9}]}),
        _ if path.starts_with("HostConfig.DeviceRequests") => {
            json!({"HostConfig": {"DeviceRequests": [{"Driver": "cdi"}]}})
        }
        _ if path.starts_with("HostConfig.Devices") => {
            json!({"HostConfig": {"Devices": [{"PathOnHost": "/dev/null"}]}})
        }
        "HostConfig.RestartPolicy.MaximumRetryCount" | "RestartPolicy.MaximumRetryCount" => {
            let policy = json!({"RestartPolicy": {"Name": "on-failure"}});
            match path.starts_with("HostConfig") {
                true => json!({"HostConfig": policy}),
                false => policy,
            }
        }
        // It need not be there before the start.
        _ if path.starts_with("NetworkingConfig") => json!({"HostConfig": {"NetworkMode": "mine"}}),
        _ => json!({}),
    }
}

/// A value that can be honoured where the first of its type can't.
fn value(path: &str, schema: &Value) -> Value {
    let member = path.strip_prefix("HostConfig.").unwrap_or(path);
    let end = "NetworkingConfig.EndpointsConfig.*.";
    let member = member.strip_prefix(end).unwrap_or(member);
    match member {
        "Env.[]" | "Annotations.*" | "Labels.*" => json!("a=b"),
        "Volumes.*" | "ExposedPorts.*" => json!({}),
        "Image" => json!("team/app:1"),
        "WorkingDir" | "Mounts.[].Target" => json!("/x"),
        "Mounts.[].Source" => json!("/var/lib"),
        "Mounts.[].Type" => json!("tmpfs"),
        "MaskedPaths.[]" | "ReadonlyPaths.[]" | "Devices.[].PathInContainer" => json!("/x"),
        "Devices.[].PathOnHost" => json!("/dev/zero"),
        "DeviceCgroupRules.[]" => json!("c 42:* rm"),
        "Devices.[].CgroupPermissions" => json!("r"),
        "StopSignal" => json!("SIGINT"),
        "Ulimits.[].Name" => json!("nproc"),
        "Binds.[]" => json!("/var/tmp:/x"),
        "VolumesFrom.[]" => json!("it"),
        "LogConfig.Type" => json!("local"),
        "LogConfig.Config.*" => json!("5"),
        "NetworkMode" | "PidMode" | "CgroupnsMode" | "IpcMode" | "UTSMode" | "UsernsMode" => {
            json!("host")
        }
        "RestartPolicy.Name" => json!("always"),
        "CapAdd.[]" | "CapDrop.[]" => json!("NET_RAW"),
        "Dns.[]" => json!("10.0.0.1"),
        "DnsOptions.[]" => json!("ndots:2"),
        "IPAMConfig.IPv4Address" => json!("10.0.0.9"),
        "IPAMConfig.IPv6Address" => json!("fd00::9"),
        "IPAMConfig.LinkLocalIPs.[]" => json!("169.254.1.1"),
        "Links.[]" => json!("it:x"),
        "MacAddress" => json!("02:42:0a:00:00:09"),
        "PortBindings.*.[].HostIp" => json!("127.0.0.1"),
        "PortBindings.*.[].HostPort" => json!("8080"),
        "ExtraHosts.[]" => json!("a:10.0.0.1"),
        "SecurityOpt.[]" => json!("no-new-privileges"),
        "Tmpfs.*" => json!("size=5k"),
        "Mounts.[].TmpfsOptions.Options.[].[]" => json!("exec"),
        "Sysctls.*" => json!("5"),
        "ShmSize" | "Memory" | "MemoryReservation" | "MemorySwap" => json!(64 << 20),
        "Isolation" => json!("default"),
        "CpuQuota" | "CpuPeriod" => json!(50_000),
        "BlkioWeight" => json!(300),
        "CgroupParent" => json!("x"),
        "CpusetCpus" | "CpusetMems" => json!("0"),
        "Mounts.[].BindOptions.Propagation" => json!("rslave"),
        _ => match schema["type"].as_str() {
            Some("boolean") => json!(true),
            Some("integer") => json!(5),
            Some("string") => json!("x"),
            _ => json!({}),
        },
    }
}

/// The key of a map's value.
fn key(steps: &[String]) -> &'static str {
    match steps.join(".").as_str() {
        "HostConfig.LogConfig.Config" => "max-file",
        "HostConfig.Tmpfs" | "Volumes" => "/x",
        "HostConfig.Sysctls" => "fs.mqueue.msg_max",
        "HostConfig.PortBindings" | "ExposedPorts" => "80/tcp",
        "NetworkingConfig.EndpointsConfig" => "mine",
        _ => "k",
    }
}

/// Puts a value where the steps lead.
fn put(place: &mut Value, steps: &[String], at: usize, value: Value) {
    let Some(step) = steps.get(at) else {
        *place = value;
        return;
    };
    let next = match step.as_str() {
        "[]" => {
            if !place.is_array() {
                *place = json!([null]);
            }
            &mut place[0]
        }
        name => {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            let name = if name == "*" { key(&steps[..at]) } else { name };
            &mut place[name]
        }
    };
    put(next, steps, at + 1, value);
}

fn look<'a>(mut value: &'a Value, steps: &[String]) -> &'a Value {
    for (at, step) in steps.iter().enumerate() {
        value = match step.as_str() {
            "[]" => &value[0],
            "*" => &value[key(&steps[..at])],
            name => &value[name],
        };
    }
    value
}

/// The same document with the members' names in lower case; keys of maps stay.
fn lower(value: &Value, steps: &mut Vec<String>, names: &[(Vec<String>, Value)]) -> Value {
    match value {
        Value::Object(members) => {
            let is_map = names.iter().any(|(name, _)| {
                name.get(..steps.len()) == Some(steps)
                    && name.get(steps.len()).is_some_and(|s| s == "*")
            });
            let mut out = Map::new();
            for (name, value) in members {
                steps.push(if is_map { "*".to_owned() } else { name.clone() });
                let value = lower(value, steps, names);
                steps.pop();
                let name = if is_map {
                    name.clone()
                } else {
                    name.to_lowercase()
                };
                out.insert(name, value);
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            steps.push("[]".to_owned());
            let items = items.iter().map(|item| lower(item, steps, names)).collect();
            steps.pop();
            Value::Array(items)
        }
        other => other.clone(),
    }
}

/// Whether a refusal names the member, or one that contains it.
fn names_member(message: &str, steps: &[String]) -> bool {
    let message = message.to_lowercase();
    let joined = message.replace([' ', '-'], "");
    let names = steps.iter().filter(|step| {
        !matches!(
            step.as_str(),
            "[]" | "*" | "HostConfig" | "NetworkingConfig"
        )
    });
    names
        .map(|name| name.to_lowercase())
        .any(|name| joined.contains(&name))
        || message.contains("is not available on this host")
}

struct Judge<'a> {
    names: &'a [(Vec<String>, Value)],
    wrong: Vec<String>,
}

impl Judge<'_> {
    /// Sends a body in both spellings. `answer` returns the status, the message of a refusal, and
    /// the later inspect.
    fn both(
        &mut self,
        steps: &[String],
        body: &Value,
        mut answer: impl FnMut(&Value) -> (u16, String, Value),
    ) -> Option<Value> {
        let path = steps.join(".");
        let first = answer(body);
        let second = answer(&lower(body, &mut Vec::new(), self.names));
        if first != second {
            self.wrong.push(format!(
                "{path}: the case of {body} matters: {first:?}, {second:?}"
            ));
        }
        let (status, message, seen) = first;
        match status {
            200..300 => return Some(seen),
            400 | 404 | 409 | 501 if names_member(&message, steps) => {}
            _ => self
                .wrong
                .push(format!("{path}: {body}: {status} {message}")),
        }
        None
    }

    #[track_caller]
    fn end(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

fn body_of(steps: &[String], schema: &Value, with: Value) -> (Value, Value) {
    let path = steps.join(".");
    let value = value(&path, schema);
    let mut body = companions(&path);
    put(&mut body, steps, 0, value.clone());
    for (name, value) in with.as_object().into_iter().flatten() {
        if body.get(name).is_none() {
            body[name] = value.clone();
        }
    }
    (body, value)
}

fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn members_of_a_new_container() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let names = api.body("/containers/create");
    assert!(names.len() > 100, "{}", names.len());
    let mut judge = Judge {
        names: &names,
        wrong: Vec::new(),
    };
    for (steps, schema) in &names {
        let path = steps.join(".");
        let (body, value) = body_of(steps, schema, json!({"Image": "busybox", "Cmd": ["true"]}));
        let seen = judge.both(steps, &body, |body| create(&api, &host, body));
        let ignored = is_ignored(&host, &path);
        if let Some(seen) = seen {
            let found = match steps[0].as_str() {
                "HostConfig" => look(&seen, steps),
                "NetworkingConfig" => look(&seen["Endpoint"], steps.get(3..).unwrap_or_default()),
                // Behind the image's own.
                "Env" => seen["Config"]["Env"].as_array().unwrap().last().unwrap(),
                _ => look(&seen["Config"], steps),
            };
            if (*found == value) == ignored {
                judge.wrong.push(format!("{path}: {value} became {found}"));
            }
        } else if ignored {
            judge
                .wrong
                .push(format!("{path} is refused and said to be ignored"));
        }
    }
    judge.end();
}

fn create(api: &Description, host: &Host, body: &Value) -> (u16, String, Value) {
    let answer = exchange(
        host,
        "POST",
        "/containers/create",
        body.to_string().as_bytes(),
    );
    if answer.status >= 300 {
        return (answer.status, message(&answer.body), Value::Null);
    }
    let id = answer.json()["Id"].as_str().unwrap().to_owned();
    let seen = api.get(host, &format!("/containers/{id}/json"));
    api.succeed(host, "DELETE", &format!("/containers/{id}?v=1"), b"");
    let mut config = seen["Config"].clone();
    // It is made of the identifier when it is not given.
    if id.starts_with(config["Hostname"].as_str().unwrap()) {
        config["Hostname"] = json!("");
    }
    let mut end = seen["NetworkSettings"]["Networks"]["mine"].clone();
    if end.is_object() {
        // The identifier is among them.
        end["DNSNames"] = Value::Null;
    }
    let seen = json!({"Config": config, "HostConfig": seen["HostConfig"], "Endpoint": end});
    (answer.status, String::new(), seen)
}

#[test]
fn members_of_an_update() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let names = api.body("/containers/{id}/update");
    assert!(names.len() > 40, "{}", names.len());
    let mut judge = Judge {
        names: &names,
        wrong: Vec::new(),
    };
    for (steps, schema) in &names {
        let (body, value) = body_of(steps, schema, json!({}));
        let seen = judge.both(steps, &body, |body| {
            let made = br#"{"Image":"busybox"}"#;
            api.succeed(&host, "POST", "/containers/create?name=idle", made);
            let text = body.to_string();
            let answer = exchange(&host, "POST", "/containers/idle/update", text.as_bytes());
            let seen = api.get(&host, "/containers/idle/json");
            api.succeed(&host, "DELETE", "/containers/idle", b"");
            (
                answer.status,
                message(&answer.body),
                seen["HostConfig"].clone(),
            )
        });
        let path = format!("HostConfig.{}", steps.join("."));
        let ignored = is_ignored(&host, &path);
        if let Some(seen) = seen
            && (*look(&seen, steps) == value) == ignored
        {
            judge.wrong.push(format!(
                "{}: {value} became {}",
                steps.join("."),
                look(&seen, steps)
            ));
        }
    }
    judge.end();
}

#[test]
fn members_of_a_commit() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let names = api.body("/commit");
    let mut judge = Judge {
        names: &names,
        wrong: Vec::new(),
    };
    for (steps, schema) in &names {
        let (body, value) = body_of(steps, schema, json!({}));
        let seen = judge.both(steps, &body, |body| {
            let text = body.to_string();
            let path = "/commit?container=it&repo=made&pause=0";
            let answer = exchange(&host, "POST", path, text.as_bytes());
            let seen = api.get(&host, "/images/made/json");
            (answer.status, message(&answer.body), seen["Config"].clone())
        });
        let honoured = seen.is_some_and(|seen| *look(&seen, steps) == value);
        if honoured == NOT_IN_IMAGES.contains(&steps.join(".").as_str()) {
            judge
                .wrong
                .push(format!("{}: {value}: {honoured}", steps.join(".")));
        }
    }
    judge.end();
}

/// Output without its frames, whose boundaries have no meaning.
fn unframed(mut output: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some((head, rest)) = output.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let length = usize::try_from(length).unwrap();
        assert!(
            head[0] < 3 && length <= rest.len(),
            "{output:?} is no frame"
        );
        let (data, rest) = rest.split_at(length);
        text.extend_from_slice(data);
        output = rest;
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn members_of_an_exec() {
    if !is_root() {
        return;
    }
    let (api, host) = stocked();
    let names = api.body("/containers/{id}/exec");
    let script = "echo $k; pwd; id -u; grep CapEff /proc/self/status; stty size";
    let usual = json!({"Cmd": ["sh", "-c", script], "AttachStdout": true});
    let run = |body: &Value| {
        let text = body.to_string();
        let answer = exchange(&host, "POST", "/containers/it/exec", text.as_bytes());
        if answer.status >= 300 {
            return (answer.status, message(&answer.body), Value::Null);
        }
        let id = answer.json()["Id"].as_str().unwrap().to_owned();
        let start = format!("/exec/{id}/start");
        let output = api.succeed(&host, "POST", &start, b"{}").body;
        let mut seen = api.get(&host, &format!("/exec/{id}/json"));
        // It may not be known yet that it has ended.
        for own in ["ID", "Pid", "Running", "ExitCode", "CanRemove"] {
            seen.as_object_mut().unwrap().remove(own);
        }
        let output = unframed(&output);
        (201, String::new(), json!([seen, output]))
    };
    let mut judge = Judge {
        names: &names,
        wrong: Vec::new(),
    };
    for (steps, schema) in &names {
        let path = steps.join(".");
        let (mut with, value) = match path.as_str() {
            // An existing one is removed.
            "AttachStdout" => (usual.clone(), json!(false)),
            "ConsoleSize.[]" => (usual.clone(), json!(33)),
            "Env.[]" => (usual.clone(), json!("k=v")),
            "User" => (usual.clone(), json!("1")),
            "WorkingDir" => (usual.clone(), json!("/tmp")),
            "Cmd.[]" => (usual.clone(), json!("true")),
            "DetachKeys" => (usual.clone(), json!("ctrl-a")),
            _ => (usual.clone(), value(&path, schema)),
        };
        if path == "ConsoleSize.[]" {
            with["Tty"] = json!(true);
        }
        let before = run(&with).2;
        let mut body = with.clone();
        if path == "Cmd.[]" {
            body["Cmd"] = json!(null);
        }
        put(&mut body, steps, 0, value);
        if path == "ConsoleSize.[]" {
            body["ConsoleSize"] = json!([33, 44]);
        }
        if let Some(seen) = judge.both(steps, &body, run)
            && seen == before
        {
            judge.wrong.push(format!("{path}: {body} has no effect"));
        }
    }
    judge.end();
}

/// Bodies whose members are tested elsewhere have no others.
#[test]
fn members_of_small_bodies() {
    let api = Description::read();
    for (path, known) in [
        ("/exec/{id}/start", &["ConsoleSize", "Detach", "Tty"][..]),
        // The e-mail address is of no effect with Docker, too.
        ("/auth", &["email", "password", "serveraddress", "username"]),
    ] {
        let mut names: Vec<_> = api
            .body(path)
            .into_iter()
            .map(|(steps, _)| steps[0].clone())
            .collect();
        names.sort();
        assert_eq!(names, known, "{path}");
    }
}

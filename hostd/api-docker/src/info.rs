//! `/_ping`, `/version` and `/info`.

use std::fs;

use hostd_containers::{Status, apparmor_warning, host_memory};
use hostd_networks::{Driver, Pools};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::images::platform::go_architecture;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, blocking, offers};

/// `GET` and `HEAD /_ping`.
pub(crate) async fn ping(_: &Api, _: Call) -> Result<Response<Body>, ApiError> {
    let mut response = reply::bytes(StatusCode::OK, "text/plain; charset=utf-8", b"OK".to_vec());
    let headers = response.headers_mut();
    headers.insert("builder-version", HeaderValue::from_static("1"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn kernel_release() -> String {
    let names = rustix::system::uname();
    names.release().to_string_lossy().into_owned()
}

/// The machine's host name, also that of containers with the host's UTS namespace.
pub(crate) fn host_name() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().into_owned()
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// `GET /version`.
pub(crate) async fn version(api: &Api, _: Call) -> Result<Response<Body>, ApiError> {
    let version = api.0.facts.version;
    let kernel = kernel_release();
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "Platform": {"Name": "Keelson"},
            "Components": [{
                "Name": "Engine",
                "Version": version,
                "Details": {
                    "ApiVersion": ApiVersion::MAX.to_string(),
                    "MinAPIVersion": ApiVersion::MIN.to_string(),
                    "Arch": go_architecture(),
                    "Os": "linux",
                    "KernelVersion": kernel,
                    "Experimental": "false",
                },
            }],
            "Version": version,
            "ApiVersion": ApiVersion::MAX.to_string(),
            "MinAPIVersion": ApiVersion::MIN.to_string(),
            "Os": "linux",
            "Arch": go_architecture(),
            "KernelVersion": kernel,
            // Docker always has these members. Nothing here is made of Go or knows its commit.
            "GitCommit": "",
            "GoVersion": "",
        }),
    ))
}

/// `NAME` and `VERSION_ID` of os-release(5).
fn os_release(text: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(|value| value.trim_matches(['"', '\'']).to_owned())
        .unwrap_or_default()
}

/// Members that clients expect, with fixed values because what they describe is not built.
fn fixed() -> Value {
    json!({
        "IndexServerAddress": "https://index.docker.io/v1/",
        "GenericResources": [],
        "Labels": [],
        "ExperimentalBuild": false,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive",
            "ControlAvailable": false, "Error": "", "RemoteManagers": null,
        },
        // An orderly stop of the engine stops its containers, too.
        "LiveRestoreEnabled": false,
        "Isolation": "",
        "InitBinary": hostd_containers::INIT_NAME,
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
    })
}

/// A proxy's URL without its user name and password.
fn proxy(proxy: &Option<http::Uri>) -> String {
    let Some(uri) = proxy else {
        return String::new();
    };
    let text = uri.to_string();
    let text = text.strip_suffix('/').unwrap_or(&text);
    match (uri.authority(), text.split_once("://")) {
        (Some(authority), Some((scheme, rest))) if authority.as_str().contains('@') => {
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            format!("{scheme}://xxxxx:xxxxx@{rest}")
        }
        _ => text.to_owned(),
    }
}

/// Brings the answer to the shape that clients of an older version know.
fn for_version(answer: &mut Map<String, Value>, version: ApiVersion) {
    let before = |minor| version < ApiVersion::new(1, minor);
    if before(50) {
        for name in ["BridgeNfIptables", "BridgeNfIp6tables"] {
            answer.insert(name.to_owned(), json!(false));
        }
    }
    if before(49) {
        for name in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            if let Some(Value::Object(commit)) = answer.get_mut(name) {
                let id = commit.get("ID").cloned().unwrap_or_default();
                commit.insert("Expected".to_owned(), id);
            }
        }
    }
    if before(39) {
        for name in ["KernelVersion", "OperatingSystem"] {
            if answer.get(name) == Some(&json!("")) {
                answer.insert(name.to_owned(), json!("<unknown>"));
            }
        }
    }
    if before(25) {
        let name_only = |option: &Value| {
            let text = option.as_str()?.strip_prefix("name=")?;
            Some(json!(text.split(',').next()))
        };
        if let Some(Value::Array(options)) = answer.get_mut("SecurityOptions") {
            *options = options.iter().filter_map(name_only).collect();
        }
        answer.insert("ExecutionDriver".to_owned(), json!("<not supported>"));
    }
}

/// `GET /info`.
pub(crate) async fn info(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let inner = &api.0;
    let volumes = inner.engine.volumes().clone();
    let volume_drivers = blocking(move || volumes.drivers()).await?;
    let containers = api.containers().list();
    let count = |fits: fn(Status) -> bool| {
        containers
            .iter()
            .filter(|container| fits(container.state.status))
            .count()
    };
    let running = count(|s| matches!(s, Status::Running | Status::Restarting));
    let paused = count(|s| s == Status::Paused);
    let facts = inner.engine.facts();
    let (cgroup_driver, cgroup_version) = offers::cgroups(facts);
    let release = fs::read_to_string("/etc/os-release")
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let mut warnings = inner
        .facts
        .warnings
        .read()
        .map(|list| list.clone())
        .unwrap_or_default();
    warnings.extend(offers::missing_limits(facts));
    warnings.extend(apparmor_warning(&facts.apparmor));
    warnings.extend(api.0.engine.networks().warnings());
    let proxies = &inner.images.registry_options().proxies;
    let mut log_drivers = offers::LOG_DRIVERS;
    log_drivers.sort_unstable();
    let mut answer = json!({
        "ID": inner.facts.id,
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len().saturating_sub(running + paused),
        "Images": inner.images.list().len(),
        "Driver": offers::STORAGE_DRIVER,
        "DriverStatus": [["Layer format", inner.images.backend()]],
        "DockerRootDir": inner.engine.root().display().to_string(),
        "Plugins": {
            "Volume": volume_drivers,
            "Network": Driver::NAMES,
            "Authorization": [],
            "Log": log_drivers,
        },
        "OomKillDisable": false,
        "IPv4Forwarding": first_line("/proc/sys/net/ipv4/ip_forward") == "1",
        "Debug": tracing::enabled!(tracing::Level::DEBUG),
        "NFd": fs::read_dir("/proc/self/fd").map(Iterator::count).unwrap_or_default(),
        "NGoroutines": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": offers::LOG_DRIVER,
        "CgroupDriver": cgroup_driver,
        "CgroupVersion": cgroup_version,
        "NEventsListener": inner.events.listeners(),
        "KernelVersion": kernel_release(),
        "OperatingSystem": os_release(&release, "PRETTY_NAME"),
        "OSVersion": os_release(&release, "VERSION_ID"),
        "OSType": "linux",
        "Architecture": std::env::consts::ARCH,
        "NCPU": facts.cpus,
        "MemTotal": host_memory(),
        "Name": host_name(),
        "ServerVersion": inner.facts.version,
        "Runtimes": inner.runtimes.render(),
        "CDISpecDirs": inner.engine.defaults().cdi_directories,
        "DefaultRuntime": inner.runtimes.usual(),
        "SecurityOptions": offers::security_options(facts, inner.engine.defaults()),
        "HttpProxy": proxy(&proxies.http),
        "HttpsProxy": proxy(&proxies.https),
        "NoProxy": proxies.direct.join(","),
        "DefaultAddressPools": pools(inner.engine.networks().pools()),
        "Warnings": warnings,
        "RegistryConfig": crate::images::remote::registry_config(api),
    });
    if let Value::Object(answer) = &mut answer {
        answer.extend(offers::limits(facts));
        if let Value::Object(part) = fixed() {
            answer.extend(part);
        }
        for_version(answer, call.version);
    }
    Ok(reply::json(StatusCode::OK, &answer))
}

/// The pools of automatic subnets.
fn pools(pools: &Pools) -> Vec<Value> {
    let all = pools.all().iter();
    all.map(|pool| json!({"Base": pool.base.to_string(), "Size": pool.size}))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_shown_without_passwords() {
        let shown = |text: &str| proxy(&Some(text.parse().unwrap()));
        assert_eq!(proxy(&None), "");
        assert_eq!(shown("http://proxy:3128"), "http://proxy:3128");
        assert_eq!(
            shown("http://me:secret@proxy:3128"),
            "http://xxxxx:xxxxx@proxy:3128"
        );
    }

    #[test]
    fn host_files_are_read() {
        let release = "NAME=x\nPRETTY_NAME=\"Some OS 1\"\nVERSION_ID='1'\n";
        assert_eq!(os_release(release, "PRETTY_NAME"), "Some OS 1");
        assert_eq!(os_release(release, "VERSION_ID"), "1");
    }

    #[test]
    fn older_clients_get_what_they_know() {
        let of = |minor| {
            let value = json!({
                "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
                "KernelVersion": "", "OperatingSystem": "x", "RuncCommit": {"ID": "y"},
            });
            let Value::Object(mut answer) = value else {
                unreachable!()
            };
            for_version(&mut answer, ApiVersion::new(1, minor));
            Value::Object(answer)
        };
        assert_eq!(of(24)["SecurityOptions"], json!(["seccomp", "cgroupns"]));
        assert_eq!(of(25)["SecurityOptions"][1], "name=cgroupns");
        assert_eq!(
            (&of(38)["KernelVersion"], &of(39)["KernelVersion"]),
            (&json!("<unknown>"), &json!(""))
        );
        assert_eq!(of(38)["OperatingSystem"], "x");
        assert_eq!(of(48)["RuncCommit"]["Expected"], "y");
        assert_eq!(of(49)["RuncCommit"], json!({"ID": "y"}));
        assert_eq!(of(49)["BridgeNfIptables"], false);
        assert!(of(50).get("BridgeNfIp6tables").is_none());
    }
}

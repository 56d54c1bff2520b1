//! Networks of containers, through the `docker` command, with real packets. Each hostd has a network
//! namespace of its own, and some have a neighbour on a wire.

#[path = "networks/addresses.rs"]
mod addresses;
#[path = "networks/clients.rs"]
mod clients;
mod common;
#[path = "networks/details.rs"]
mod details;
#[path = "networks/names.rs"]
mod names;
#[path = "networks/projects.rs"]
mod projects;
#[path = "networks/publish.rs"]
mod publish;
#[path = "networks/separation.rs"]
mod separation;
#[path = "networks/survival.rs"]
mod survival;

use common::{Done, Host, is_root};
use serde_json::Value;

/// A hostd with networks and the busybox image; `None` if this machine does not allow it.
fn host() -> Option<Host> {
    host_with(&[])
}

fn host_with(extra: &[&str]) -> Option<Host> {
    if !is_root() {
        return None;
    }
    let host = Host::start_networked(extra);
    host.load_busybox();
    Some(host)
}

/// Starts a container that waits, and returns its identifier.
#[track_caller]
fn idle(host: &Host, name: &str, options: &[&str]) -> String {
    let mut args = vec!["run", "-d", "--name", name, "--stop-signal=KILL"];
    args.extend(options);
    args.extend(["busybox", "sleep", "100000"]);
    host.docker(&args).ok()
}

/// Starts a web server whose every page is its name.
#[track_caller]
fn web(host: &Host, name: &str, options: &[&str]) -> String {
    let serve = format!(
        "mkdir -p /www && echo {name} > /www/index.html && exec httpd -f -vv -p 80 -h /www"
    );
    let mut args = vec!["run", "-d", "--name", name, "--stop-signal=KILL"];
    args.extend(options);
    args.extend(["busybox", "sh", "-c", &serve]);
    let id = host.docker(&args).ok();
    common::wait_until("the server listens", || {
        exec(host, name, "netstat -ltn | grep -q :80").code == 0
    });
    id
}

/// Runs a line of shell in a container.
#[track_caller]
fn exec(host: &Host, name: &str, line: &str) -> Done {
    host.docker(&["exec", name, "sh", "-c", line])
}

/// Runs a program of this machine in a container's network.
fn inside(host: &Host, name: &str, program: &str) -> std::process::Command {
    let pid = &inspect(host, name)["State"]["Pid"];
    let mut command = std::process::Command::new("nsenter");
    command
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .arg("--")
        .arg(program);
    command
}

/// Gets a page by a program of this machine in a container's network.
#[track_caller]
fn gets(host: &Host, from: &str, url: &str) -> Result<String, String> {
    let done = common::run(
        inside(host, from, "curl").args(["-g", "-sS", "-m", "3", url]),
        b"",
    );
    match done.code {
        0 => Ok(done.stdout.trim().to_owned()),
        _ => Err(done.stderr),
    }
}

/// A value of an object, as `inspect` shows it.
#[track_caller]
fn inspect(host: &Host, name: &str) -> Value {
    let text = host.docker(&["inspect", name]).ok();
    let list: Value = serde_json::from_str(&text).unwrap();
    list[0].clone()
}

/// The address of a container in a network.
#[track_caller]
fn address(host: &Host, name: &str, network: &str) -> String {
    let value = inspect(host, name);
    let end = &value["NetworkSettings"]["Networks"][network];
    let address = end["IPAddress"].as_str().unwrap_or_default().to_owned();
    assert!(!address.is_empty(), "{end:#}");
    address
}

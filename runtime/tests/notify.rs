//! The listener of a seccomp filter goes to an agent of the caller's.

mod common;

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use common::{Setup, Shim, can_run, eventually};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

/// A container whose calls of mkdir(2) are for an agent.
fn setup(script: &str, listener: &Path) -> Setup {
    let mut setup = Setup::new(&["sh", "-c", script]);
    setup.config["annotations"] = json!({"some": "thing"});
    setup.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
        "listenerPath": listener,
        "listenerMetadata": "for the agent",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    setup
}

/// Receives one process state with its descriptor.
fn receive(mut connection: UnixStream) -> (Value, OwnedFd) {
    connection.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 65536];
    let buffer = &mut [IoSliceMut::new(&mut text)];
    let received =
        rustix::net::recvmsg(&connection, buffer, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(fds.len(), 1);
    text.truncate(received.bytes);
    connection.read_to_end(&mut text).unwrap();
    (serde_json::from_slice(&text).unwrap(), fds.remove(0))
}

fn is_listener(fd: &OwnedFd) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    link.to_string_lossy().contains("seccomp notify")
}

/// The script's shell waits in mkdir until the agent is gone. Then the call fails with ENOSYS.
const SCRIPT: &str = "echo before; /bin/busybox mkdir /tmp/x; echo code $?; exec sleep 1000";

fn assert_ends_with_the_agent(shim: &Shim, fd: OwnedFd) {
    eventually("output", || shim.output().contains("before"));
    drop(fd);
    eventually("output", || shim.output().contains("code 1"));
    let output = shim.output();
    assert!(output.contains("Function not implemented"), "{output}");
}

#[test]
fn the_agent_gets_the_listener_and_the_state() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shim = setup(SCRIPT, &path).create();
    let connection = listener.accept().unwrap().0;
    // At creation already: an agent may have work to do before the start.
    let (state, fd) = receive(connection);
    shim.start();
    assert_eq!(state["ociVersion"], "1.2.0");
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["pid"], shim.pid);
    assert_eq!(state["metadata"], "for the agent");
    assert_eq!(state["state"]["id"], shim.id.as_str());
    assert_eq!(state["state"]["pid"], shim.pid);
    assert_eq!(state["state"]["status"], "creating");
    assert_eq!(state["state"]["annotations"]["some"], "thing");
    assert!(is_listener(&fd));
    assert_ends_with_the_agent(&shim, fd);

    // An additional process has a filter of its own, and so its own listener.
    let process = json!({
        "args": ["/bin/busybox", "mkdir", "/tmp/y"], "cwd": "/", "user": {"uid": 0, "gid": 0},
    });
    let _output = shim.session("one", process);
    let pid = shim.start_session("one").unwrap();
    let (state, fd) = receive(listener.accept().unwrap().0);
    assert_eq!(state["pid"], pid);
    assert_eq!(state["state"]["pid"], shim.pid);
    assert_eq!(state["state"]["status"], "running");
    assert_eq!(
        state["state"]["bundle"],
        json!(shim.directory.path().join("bundle"))
    );
    drop(fd);
    assert_eq!(shim.session_code("one"), 1);
}

#[test]
fn a_user_namespace_makes_no_difference() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut setup = setup(SCRIPT, &path);
    let linux = &mut setup.config["linux"];
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
    let namespaces = linux["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    let shim = setup.create();
    let connection = listener.accept().unwrap().0;
    shim.start();
    let (state, fd) = receive(connection);
    assert_eq!(state["pid"], shim.pid);
    assert!(is_listener(&fd));
    assert_ends_with_the_agent(&shim, fd);
}

#[test]
fn without_an_agent_there_is_no_container() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let message = setup("true", &directory.path().join("nobody.sock")).fails();
    assert!(message.contains("linux.seccomp.listenerPath"), "{message}");
}

#[test]
fn an_agent_that_accepts_nobody_is_not_waited_for_without_end() {
    if !can_run() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let _full = common::full_socket(&path);
    let message = setup("true", &path).fails();
    assert!(message.contains("linux.seccomp.listenerPath"), "{message}");
}

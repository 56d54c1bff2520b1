//! Access to the API, and the answers to bad clients.

mod common;
#[path = "access/host_api.rs"]
mod host_api;
#[path = "access/routes.rs"]
mod routes;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, Host, PATIENCE, hostctl, is_root, run};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

struct Tls {
    host: Host,
    port: u16,
    directory: tempfile::TempDir,
}

fn tls_host() -> Tls {
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let listen = format!("tcp://127.0.0.1:{port}");
    let keys = directory.path().join("tls");
    let host = Host::start_with(&["--listen", &listen, "--tls", keys.to_str().unwrap()]);
    Tls {
        host,
        port,
        directory,
    }
}

impl Tls {
    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    fn issue(&self, hostctl: &Path, role: &str) -> PathBuf {
        let out = self.directory.path().join(format!("client-{role}"));
        run(
            Command::new(hostctl)
                .args(["--host", &self.host.url(), "certificate", "issue"])
                .args(["--name", "test", "--role", role, "--out"])
                .arg(&out),
            b"",
        )
        .ok();
        out
    }

    fn docker(&self, certificates: &Path, args: &[&str]) -> Done {
        let url = self.url();
        run(
            self.host
                .docker_command(args)
                .env("DOCKER_HOST", url)
                .env("DOCKER_TLS_VERIFY", "1")
                .env("DOCKER_CERT_PATH", certificates),
            b"",
        )
    }
}

#[test]
fn tcp_wants_a_certificate_of_this_machine() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let tls = tls_host();
    let good = tls.issue(&hostctl, "admin");
    tls.docker(&good, &["version"]).ok();

    // Without a certificate: only the authority is known to the client.
    let none = tls.directory.path().join("none");
    fs::create_dir(&none).unwrap();
    fs::copy(good.join("ca.pem"), none.join("ca.pem")).unwrap();
    let done = run(
        Command::new("curl")
            .args(["-sS", "--cacert"])
            .arg(none.join("ca.pem"))
            .arg(format!("https://127.0.0.1:{}/_ping", tls.port)),
        b"",
    );
    assert_ne!(done.code, 0, "{}", done.stdout);
    assert!(
        done.stderr.contains("certificate required"),
        "{}",
        done.stderr
    );

    // With a certificate of another authority.
    let other = tls_host();
    let foreign = other.issue(&hostctl, "admin");
    let mixed = tls.directory.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    fs::copy(good.join("ca.pem"), mixed.join("ca.pem")).unwrap();
    for file in ["cert.pem", "key.pem"] {
        fs::copy(foreign.join(file), mixed.join(file)).unwrap();
    }
    let done = tls.docker(&mixed, &["ps"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("tls: "), "{}", done.stderr);

    // Without TLS at all.
    let mut plain = TcpStream::connect(("127.0.0.1", tls.port)).unwrap();
    plain
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        .unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("400") && answer.contains("HTTPS"),
        "{answer}"
    );
}

#[test]
fn attach_works_over_tls() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let tls = tls_host();
    tls.host.load_busybox();
    let good = tls.issue(&hostctl, "operator");
    let mut command = tls
        .host
        .docker_command(&["run", "-i", "--rm", "busybox", "cat"]);
    command
        .env("DOCKER_HOST", tls.url())
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", &good);
    let input = b"over tls\n".repeat(100_000);
    let done = run(&mut command, &input);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stdout.as_bytes() == input,
        "{} bytes",
        done.stdout.len()
    );
}

#[test]
fn roles_are_kept() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let tls = tls_host();
    let ctl = |certificates: &Path, args: &[&str]| {
        run(
            Command::new(&hostctl)
                .args(["--host", &tls.url(), "--cert-path"])
                .arg(certificates)
                .args(args),
            b"",
        )
    };
    let reader = tls.issue(&hostctl, "reader");
    ctl(&reader, &["status"]).ok();
    ctl(&reader, &["service", "list"]).ok();
    tls.docker(&reader, &["ps"]).ok();
    tls.docker(&reader, &["tag", "a", "b"])
        .fails_with("role reader may not POST");
    let refused = ctl(&reader, &["poweroff"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    let operator = tls.issue(&hostctl, "operator");
    assert_eq!(ctl(&operator, &["reboot"]).code, 5);
    tls.docker(&operator, &["tag", "a", "b"])
        .fails_with("No such image");
}

#[test]
fn a_revoked_certificate_counts_no_more() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let mut tls = tls_host();
    tls.host.load_busybox();
    let local = |tls: &Tls, args: &[&str]| {
        let mut command = Command::new(&hostctl);
        command.args(["--host", &tls.host.url(), "--format=json", "certificate"]);
        run(command.args(args), b"")
    };
    let operator = tls.issue(&hostctl, "operator");
    let admin = tls.issue(&hostctl, "admin");
    let list: serde_json::Value = serde_json::from_str(&local(&tls, &["list"]).ok()).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["role"], "operator");
    // Not for others.
    let refused = run(
        Command::new(&hostctl)
            .args(["--host", &tls.url(), "--cert-path"])
            .arg(&operator)
            .args(["certificate", "list"]),
        b"",
    );
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    // An open connection ends when the right is revoked.
    let mut follow = tls
        .host
        .docker_command(&["events"])
        .env("DOCKER_HOST", tls.url())
        .env("DOCKER_TLS_VERIFY", "1")
        .env("DOCKER_CERT_PATH", &operator)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    common::wait_until("events are listened to", || {
        tls.host
            .docker(&["info", "-f", "{{.NEventsListener}}"])
            .ok()
            == "1"
    });
    let fingerprint = list[0]["fingerprint"].as_str().unwrap();
    let revoked = local(&tls, &["revoke", "--fingerprint", fingerprint]).ok();
    assert!(revoked.contains("revoked\": \"2"), "{revoked}");
    common::wait_until("the stream has ended", || {
        follow.try_wait().unwrap().is_some()
    });
    for _ in 0..2 {
        let done = tls.docker(&operator, &["ps"]);
        assert_ne!(done.code, 0);
        tls.docker(&admin, &["ps"]).ok();
        // Also for the next daemon.
        tls.host.kill_daemon();
        tls.host.start_daemon();
    }
    // By name all of them.
    assert_eq!(local(&tls, &["revoke", "--name", "nobody"]).code, 3);
    local(&tls, &["revoke", "--name", "test"]).ok();
    assert_ne!(tls.docker(&admin, &["ps"]).code, 0);
    let wrong = local(&tls, &["revoke", "--serial", "no digits"]);
    assert!(wrong.stderr.starts_with("{\"error\":"), "{}", wrong.stderr);
}

#[test]
fn every_command_of_hostctl_speaks_json() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let tls = tls_host();
    tls.host.load_busybox();
    let out = tls.directory.path().join("json");
    let issue = format!("certificate issue --name j --out {}", out.display());
    let without_init = !Path::new(keelson_model::init::CONTROL_SOCKET).exists();
    let mut commands = vec![
        "service list",
        "status",
        "provision status",
        &issue,
        "certificate list",
        "certificate revoke --name j",
        "image verify",
        "image verify none",
    ];
    if without_init {
        commands.extend(["boot", "poweroff", "reboot", "halt"]);
    }
    for line in commands {
        let done = run(
            Command::new(&hostctl)
                .args(["--format", "json", "--host", &tls.host.url()])
                .args(line.split(' ')),
            b"",
        );
        let text = match done.code {
            0 => &done.stdout,
            _ => &done.stderr,
        };
        let value: serde_json::Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
        assert!(
            done.code == 0 || value["error"].is_string(),
            "{line}: {text}"
        );
    }
}

#[test]
fn readers_do_not_make_the_machine_fetch() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let tls = tls_host();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let registry = format!("localhost:{}", listener.local_addr().unwrap().port());
    let reader = tls.issue(&hostctl, "reader");
    for path in [
        format!("/images/search?term={registry}/x"),
        format!("/v1.51/distribution/{registry}/x/json"),
        format!("/v1.51/distribution/{registry}%2Fx/json"),
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"])
            .arg(reader.join("ca.pem"))
            .arg("--cert")
            .arg(reader.join("cert.pem"))
            .arg("--key")
            .arg(reader.join("key.pem"))
            .arg(format!("https://127.0.0.1:{}{path}", tls.port));
        let answer = run(&mut curl, b"").ok();
        assert!(answer.contains("role reader may not GET"), "{answer}");
        assert!(listener.accept().is_err(), "{path} was fetched");
    }
    // Nor does anybody reach this machine by a name that only resolves to it.
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let port = listener.local_addr().unwrap().port();
    for host in [hostname.as_str(), "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"] {
        let (status, body) = tls
            .host
            .get(&format!("/images/search?term={host}:{port}/x"));
        assert!(status >= 400, "{host}: {status} {body}");
        assert!(
            listener.accept().is_err(),
            "{host} was connected to: {body}"
        );
    }
}

#[test]
fn power_needs_our_init() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    if Path::new(keelson_model::init::CONTROL_SOCKET).exists() {
        keelson_testing::skip("other init", "this machine runs Keelson's");
        return;
    }
    let host = Host::start();
    let done = run(
        Command::new(hostctl).args(["--host", &host.url(), "poweroff"]),
        b"",
    );
    assert_eq!(done.code, 7, "{}", done.stderr);
    assert!(
        done.stderr.contains("not started by Keelson's init"),
        "{}",
        done.stderr
    );
}

#[test]
fn tcp_without_tls_is_refused() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let output = Command::new(host.command().get_program())
        .args(["--root", host.path().join("r2").to_str().unwrap()])
        .args(["--run", host.path().join("u2").to_str().unwrap()])
        .args(["--listen", "tcp://127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("without TLS") && text.contains("--tls"),
        "{text}"
    );
}

#[test]
fn versions_and_pages_are_answered_as_docker_does() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let (status, body) = host.get("/v1.99/info");
    assert_eq!(status, 400);
    assert!(body.contains("client version 1.99 is too new. Maximum supported API version is 1.51"));
    let (status, body) = host.get("/no/such/page");
    assert_eq!(
        (status, body.trim()),
        (404, r#"{"message":"page not found"}"#)
    );
    let (status, body) = host.get("/v1.51/swarm");
    assert_eq!(status, 503);
    assert!(body.contains("This node is not a swarm manager."), "{body}");
    let (status, body) = host.send("POST", "/v1.51/swarm/leave?force=1", "");
    assert_eq!(status, 503);
    assert!(body.contains("This node is not part of a swarm"), "{body}");
    let (status, body) = host.send("POST", "/v1.51/swarm/join", "{}");
    assert_eq!(status, 501);
    assert!(body.contains("POST /swarm/join is not built yet"), "{body}");
    let (status, _) = host.get("/host/v1/nothing");
    assert_eq!(status, 404);
    assert_eq!(host.get("/v1.24/containers/json").0, 200);
    let (status, body) = host.get("/containers/json?filters=%7B%22colour%22%3A%5B%22red%22%5D%7D");
    assert_eq!(status, 400);
    assert!(body.contains("invalid filter 'colour'"), "{body}");
}

#[test]
fn requests_are_taken_as_docker_takes_them() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    // A path as a shell writes it, without encoding.
    let (status, body) = host.get("/containers/json?all=1&filters={\"label\":[\"a<b|c\"]}&x=`^\\");
    assert_eq!((status, body.trim()), (200, "[]"));
    for (path, word) in [
        ("/containers/json?all=%zz", "invalid URL escape"),
        ("/containers/%4/json", "invalid URL escape"),
        (
            "/containers/json?all=1;size=1",
            "invalid semicolon separator",
        ),
    ] {
        let (status, body) = host.get(path);
        assert_eq!(status, 400, "{path}");
        assert!(body.contains(word), "{path}: {body}");
    }
    let create = |kind: &str, body: &str| {
        host.http(&format!(
            "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let json = "Content-Type: application/json\r\n";
    for (kind, body, status, word) in [
        (
            json,
            r#"{"image":"none","Unheard":[1]}"#,
            404,
            "No such image",
        ),
        (json, r#"{"Image":"none","Tty":"yes"}"#, 400, "Tty"),
        (json, r#"{"Image":"none"} {}"#, 400, "invalid JSON"),
        (
            json,
            "",
            400,
            "invalid JSON: got EOF while reading request body",
        ),
        (json, "null", 400, "config cannot be empty"),
        (
            "",
            r#"{"Image":"none"}"#,
            400,
            "malformed Content-Type header ()",
        ),
        (
            "Content-Type: text/plain\r\n",
            r#"{"Image":"none"}"#,
            400,
            "unsupported Content-Type header (text/plain): must be 'application/json'",
        ),
    ] {
        let (answered, answer) = create(kind, body);
        assert_eq!(answered, status, "{body}: {answer}");
        assert!(answer.contains(word), "{body}: {answer}");
    }
    // Scripts look for headers by Docker's spelling of their names.
    let head = {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(host.socket()).unwrap();
        stream.write_all(b"HEAD /_ping HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    for name in [
        "Api-Version",
        "Builder-Version",
        "Content-Type",
        "Docker-Experimental",
        "Ostype",
        "Server",
    ] {
        assert!(head.contains(&format!("\r\n{name}: ")), "{name}: {head}");
    }
}

#[test]
fn bad_requests_hurt_nobody() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let post = |body: &str| host.send("POST", "/containers/create", body);
    let (status, body) = post(r#"{"Image":"a","HostConfig":{"Memory":"much"}}"#);
    assert_eq!(status, 400);
    assert!(
        body.contains("HostConfig.Memory") || body.contains("Memory"),
        "{body}"
    );
    assert_eq!(post("{").0, 400);
    assert_eq!(post("").0, 400);
    assert_eq!(post("{}").0, 400);
    assert_eq!(post(r#"{"Image":"no-such-image"}"#).0, 404);
    // A head that never ends, and bytes that are no HTTP.
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
    let _ = stream.write_all(b"GET /_ping HTTP/1.1\r\n");
    for _ in 0..200 {
        if stream.write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    let _ = stream.write_all(&[0xff; 4096]);
    drop(stream);
    host.docker(&["ps"]).ok();
}

#[test]
fn a_wrong_configuration_is_a_warning() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    let directory = host.path().join("config/etc/keelson");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("host.toml"), "hostnam = \"x\"\n").unwrap();
    host.stop_daemon();
    host.start_daemon();
    let info = host.docker(&["info", "-f", "{{.Warnings}}"]).ok();
    assert!(info.contains("hostnam"), "{info}");
    let (status, body) = host.get("/host/v1/status");
    assert_eq!(status, 200);
    assert!(body.contains("hostnam"), "{body}");
}

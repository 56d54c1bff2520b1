//! Forwarding to Debian's rsyslog: datagrams, TCP with octet counting, TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use super::common::net::Net;
use super::common::{Host, clients, is_root, wait_until};
use super::{KernelLog, argument, configure, lines, status};

/// rsyslog in a namespace, as it is in Debian.
struct Rsyslog {
    directory: PathBuf,
    root: PathBuf,
    process: Option<Child>,
}

const TEMPLATE: &str = r#"
template(name="form" type="string" string="%pri% %protocol-version% %timestamp:::date-rfc3339% %hostname% %app-name% %structured-data% %msg%\n")
"#;

impl Rsyslog {
    fn new(directory: &Path, program: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let root = program.ancestors().nth(3).unwrap().to_owned();
        Self {
            directory: directory.to_owned(),
            root,
            process: None,
        }
    }

    fn start(&mut self, net: &Net, tls_peers: &str) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let text = format!(
            r#"
global(workDirectory="{work}" maxMessageSize="64k"
    defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}"
    defaultNetstreamDriverKeyFile="{key}")
module(load="imudp")
module(load="imtcp")
{TEMPLATE}
ruleset(name="udp") {{ action(type="omfile" file="{udp}" template="form") }}
ruleset(name="tcp") {{ action(type="omfile" file="{tcp}" template="form") }}
ruleset(name="tls") {{ action(type="omfile" file="{tls}" template="form") }}
input(type="imudp" address="127.0.0.1" port="5514" ruleset="udp")
input(type="imtcp" address="127.0.0.1" port="5514" ruleset="tcp")
input(type="imtcp" address="127.0.0.1" port="6514" ruleset="tls"
    streamDriver.name="ossl" streamDriver.mode="1" {tls_peers})
"#,
            work = self.directory.display(),
            ca = at("ca.pem"),
            certificate = at("server.pem"),
            key = at("server.key"),
            udp = at("udp"),
            tcp = at("tcp"),
            tls = at("tls"),
        );
        let configuration = self.directory.join("rsyslog.conf");
        fs::write(&configuration, text).unwrap();
        let libraries = ["usr/lib", "lib"].map(|lib| {
            let path = self.root.join(lib).join("x86_64-linux-gnu");
            path.display().to_string()
        });
        let modules = self.root.join("usr/lib/x86_64-linux-gnu/rsyslog");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("rsyslog.log"))
            .unwrap();
        let process = net
            .command(self.root.join("usr/sbin/rsyslogd"))
            .arg("-n")
            .arg("-f")
            .arg(&configuration)
            .arg("-i")
            .arg(self.directory.join("pid"))
            .arg("-M")
            .arg(&modules)
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let _ = fs::remove_file(self.directory.join("pid"));
    }

    fn received(&self, transport: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join(transport)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn has(&self, transport: &str, part: &str) -> bool {
        self.received(transport)
            .iter()
            .any(|line| line.contains(part))
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.join("rsyslog.log"));
            eprintln!("--- rsyslog ---\n{}", log.unwrap_or_default());
        }
        self.kill();
    }
}

/// Files of an authority, a server for 127.0.0.1 and a client.
fn certificates(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    for (name, subject) in [("server", "127.0.0.1"), ("client", "machine.test")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([subject.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, subject);
        let certificate = params.signed_by(&key, &ca).unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn target(name: &str, url: &str, more: &str) -> String {
    format!("[[logs.forward]]\nname = '{name}'\ntarget = '{url}'\n{more}\n")
}

fn forward(host: &Host, name: &str) -> Value {
    let status = status(host);
    let targets = status["forward"].as_array().unwrap();
    let found = targets.iter().find(|target| target["name"] == name);
    found.unwrap_or_else(|| panic!("{status}")).clone()
}

fn wait_for_error(host: &Host, name: &str, part: &str) {
    wait_until(&format!("{name} fails with {part}"), || {
        let target = forward(host, name);
        target["error"]
            .as_str()
            .is_some_and(|error| error.contains(part))
    });
}

#[test]
fn rsyslog_gets_everything_over_all_transports_also_after_it_was_gone() {
    if !is_root() {
        return;
    }
    let Some(program) = clients::file("rsyslog/usr/sbin/rsyslogd") else {
        return;
    };
    let mut kernel = KernelLog::new();
    let path = kernel.path();
    let mut host = Host::start_networked(&["--kernel-log", argument(&path)]);
    let directory = host.path().join("rsyslog");
    certificates(&directory);
    let other = host.path().join("other");
    certificates(&other);
    let ca = format!("ca = '{}'\n", directory.join("ca.pem").display());
    let text = [
        target("udp", "udp://127.0.0.1:5514", ""),
        target("tcp", "tcp://127.0.0.1:5514", ""),
        target("tls", "tls://127.0.0.1:6514", &ca),
        target(
            "wrong",
            "tls://127.0.0.1:6514",
            &format!("ca = '{}'", other.join("ca.pem").display()),
        ),
        target("name", "tls://localhost:6514", &ca),
        target("absent", "tls://127.0.0.1:6514", "ca = '/no/such/file.pem'"),
    ];
    kernel.write(4, "before rsyslog: ä");
    configure(&mut host, &text.concat());
    wait_for_error(
        &host,
        "tcp",
        "connect to tcp://127.0.0.1:5514: Connection refused",
    );

    let mut rsyslog = Rsyslog::new(&directory, &program);
    rsyslog.start(host.net(), "streamDriver.authMode=\"anon\"");
    for transport in ["tcp", "tls"] {
        wait_until("the first line arrived", || {
            rsyslog.has(transport, "before rsyslog: ä")
        });
    }
    wait_for_error(
        &host,
        "wrong",
        "name the authority that has signed its certificate with `ca`",
    );
    wait_for_error(
        &host,
        "name",
        "use a name in `target` that is in its certificate",
    );
    wait_for_error(&host, "absent", "/no/such/file.pem");
    let line = rsyslog.received("tcp");
    let line = line
        .iter()
        .find(|line| line.contains("before rsyslog"))
        .unwrap();
    let stored = &lines(&host, "unit=kernel")[0];
    let time = stored["time"].as_str().unwrap().replace('Z', "+00:00");
    assert!(
        line.starts_with(&format!("4 1 {time} "))
            || line.contains(&stored["time"].as_str().unwrap()[..26]),
        "{line} / {time}"
    );
    assert!(line.contains(" kernel [meta sequenceId="), "{line}");

    // It is gone without a word, and comes back.
    rsyslog.kill();
    for number in 0..200 {
        kernel.write(6, &format!("while it is gone {number:03}"));
    }
    wait_for_error(&host, "tcp", "127.0.0.1:5514");
    rsyslog.start(host.net(), "streamDriver.authMode=\"anon\"");
    kernel.write(6, "the last line");
    for transport in ["tcp", "tls"] {
        wait_until("the last line arrived", || {
            rsyslog.has(transport, "the last line")
        });
        let received = rsyslog.received(transport);
        for number in 0..200 {
            let text = format!("while it is gone {number:03}");
            assert!(
                received.iter().any(|line| line.ends_with(&text)),
                "{transport}: {text}"
            );
        }
    }
    // Datagrams may be lost, but not for long.
    let mut number = 0;
    wait_until("datagrams arrive", || {
        number += 1;
        kernel.write(6, &format!("datagram {number}"));
        rsyslog.has("udp", "datagram")
    });
    wait_until("TCP is up to date", || {
        forward(&host, "tcp")["caught_up"] == true
    });
    assert_eq!(forward(&host, "tcp")["state"], "connected");
}

#[test]
fn a_server_that_wants_certificates_gets_them() {
    if !is_root() {
        return;
    }
    let Some(program) = clients::file("rsyslog/usr/sbin/rsyslogd") else {
        return;
    };
    let mut host = Host::start_networked(&[]);
    let directory = host.path().join("rsyslog");
    certificates(&directory);
    let mut rsyslog = Rsyslog::new(&directory, &program);
    rsyslog.start(
        host.net(),
        "streamDriver.authMode=\"x509/name\" permittedPeer=[\"machine.test\"]",
    );
    let at = |name: &str| directory.join(name).display().to_string();
    let ca = format!("ca = '{}'\n", at("ca.pem"));
    let own = format!(
        "{ca}certificate = '{}'\nkey = '{}'\n",
        at("client.pem"),
        at("client.key")
    );
    let text = [
        target("known", "tls://127.0.0.1:6514", &own),
        target("unknown", "tls://127.0.0.1:6514", &ca),
    ];
    configure(&mut host, &text.concat());
    wait_until("lines arrive", || rsyslog.has("tls", "hostd"));
    wait_until("the other fails", || {
        !forward(&host, "unknown")["error"].is_null()
    });
    assert_eq!(forward(&host, "unknown")["sent"], 0);
}

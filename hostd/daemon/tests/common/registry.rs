//! Debian's `docker-registry` on a loopback port.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// `keeper` with password `secret`, hashed with bcrypt at its lowest cost.
const HTPASSWD: &str = "keeper:$2y$04$M/Grtg5GDjwXIfNAw3PvUO4EjJiXVQg834Z0zasWd5TQpgZjS4G9i\n";

/// The credentials that the registry asks for.
#[derive(Default)]
pub struct Wants {
    /// User name and password.
    pub login: bool,
    /// PEM files: certificate and key.
    pub tls: Option<(String, String)>,
    /// It does not know by which address it is reached.
    pub hidden: bool,
}

/// A running registry.
pub struct Registry {
    dir: TempDir,
    child: Child,
    pub port: u16,
}

impl Registry {
    pub fn start(wants: &Wants) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("keelson-registry-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let path = |name: &str| dir.path().join(name);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: x\n",
            path("data").display()
        );
        if wants.hidden {
            config.push_str("  relativeurls: true\n");
        }
        if let Some((certificate, key)) = &wants.tls {
            fs::write(path("cert.pem"), certificate).unwrap();
            fs::write(path("key.pem"), key).unwrap();
            config.push_str(&format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                path("cert.pem").display(),
                path("key.pem").display()
            ));
        }
        if wants.login {
            fs::write(path("htpasswd"), HTPASSWD).unwrap();
            config.push_str(&format!(
                "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                path("htpasswd").display()
            ));
        }
        fs::write(path("config.yml"), config).unwrap();
        let log = File::create(path("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("no docker-registry: install the package docker-registry");
        let mut registry = Self { dir, child, port };
        super::wait_until("the registry answers", || {
            let ended = registry.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", registry.log());
            TcpStream::connect(("127.0.0.1", registry.port)).is_ok()
        });
        registry
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    /// A name in this registry.
    pub fn name(&self, rest: &str) -> String {
        format!("localhost:{}/{rest}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

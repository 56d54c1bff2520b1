//! A client certificate for the developer who started this machine under QEMU.
//!
//! The developer's side passes a certificate request through fw_cfg. Certificates come back through
//! a virtio-serial port; private keys never leave their side. A caller who can write fw_cfg controls
//! the virtual hardware, so the request is trusted like one from the console.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use keelson_model::host_api::{Provisioned, Role};

use crate::pki::Pki;
use crate::pki_error::PkiError;

/// Name of the virtio-serial port.
pub const PORT_NAME: &str = "io.keelson.provision";
/// Common name of the certificate.
const CLIENT_NAME: &str = "provisioned";
/// Largest request, in bytes.
const MAX_REQUEST: u64 = 64 << 10;
/// How long the port's driver may take to appear.
const PORT_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two look-ups of the port.
const PORT_POLL: Duration = Duration::from_millis(200);

/// Where the request and the port are.
#[derive(Debug, Clone)]
pub struct ProvisionPaths {
    /// The request.
    pub request: PathBuf,
    /// Directory with one directory per virtio-serial port.
    pub ports: PathBuf,
    /// Directory of device nodes.
    pub devices: PathBuf,
}

impl ProvisionPaths {
    /// The paths on a real machine.
    pub fn machine() -> Self {
        Self {
            request: "/sys/firmware/qemu_fw_cfg/by_name/opt/io.keelson/client.csr/raw".into(),
            ports: "/sys/class/virtio-ports".into(),
            devices: "/dev".into(),
        }
    }
}

/// A failure of the provisioning.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// A file can't be read or written.
    #[error("can't {operation} {}: {source}", path.display())]
    Io {
        /// The operation: read, open, write.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The request is not usable.
    #[error("{}: {reason}", path.display())]
    Request {
        /// The request.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The request can't be signed.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The port did not appear.
    #[error("no virtio-serial port is named {PORT_NAME} in {}", .0.display())]
    NoPort(PathBuf),
}

/// Answers the request when there is one. Blocks until the port's driver is loaded and the other
/// side has read the answer. Returns whether there was a request.
///
/// # Errors
/// See [`ProvisionError`]. The machine runs on without this client.
pub fn run(
    paths: &ProvisionPaths,
    pki: &Pki,
    listen: Vec<String>,
    hostname: String,
) -> Result<bool, ProvisionError> {
    let Some(request) = read_request(&paths.request)? else {
        return Ok(false);
    };
    let issued = pki.issue(&request, CLIENT_NAME, Role::Admin, Timestamp::now())?;
    let answer = Provisioned {
        version: 1,
        ca: issued.ca,
        certificate: issued.certificate,
        listen,
        hostname,
    };
    let port = wait_for_port(paths)?;
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    let io = |operation| {
        let path = port.clone();
        move |source| ProvisionError::Io {
            operation,
            path,
            source,
        }
    };
    let mut device = fs::OpenOptions::new()
        .write(true)
        .open(&port)
        .map_err(io("open"))?;
    device.write_all(&line).map_err(io("write"))?;
    Ok(true)
}

fn read_request(path: &Path) -> Result<Option<String>, ProvisionError> {
    let failed = |source| ProvisionError::Io {
        operation: "read",
        path: path.to_owned(),
        source,
    };
    let wrong = |reason: &str| ProvisionError::Request {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let length = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if length > MAX_REQUEST {
        return Err(wrong("the request is too large"));
    }
    let bytes = fs::read(path).map_err(failed)?;
    // QEMU's string= form adds no terminating zero; other tools do.
    let text = String::from_utf8(bytes).map_err(|_| wrong("the request is not text"))?;
    Ok(Some(text.trim_end_matches('\0').to_owned()))
}

fn wait_for_port(paths: &ProvisionPaths) -> Result<PathBuf, ProvisionError> {
    let deadline = Instant::now() + PORT_TIMEOUT;
    loop {
        if let Some(name) = find_port(&paths.ports) {
            let device = paths.devices.join(name);
            if device.exists() {
                return Ok(device);
            }
        }
        if Instant::now() >= deadline {
            return Err(ProvisionError::NoPort(paths.ports.clone()));
        }
        std::thread::sleep(PORT_POLL);
    }
}

/// The name of the port's device.
fn find_port(ports: &Path) -> Option<std::ffi::OsString> {
    fs::read_dir(ports)
        .ok()?
        .flatten()
        .find(|entry| {
            fs::read_to_string(entry.path().join("name"))
                .is_ok_and(|name| name.trim_end() == PORT_NAME)
        })
        .map(|entry| entry.file_name())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    fn machine(dir: &Path) -> ProvisionPaths {
        for (port, name) in [("vport0p1", "org.other"), ("vport0p2", PORT_NAME)] {
            let directory = dir.join("ports").join(port);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("name"), format!("{name}\n")).unwrap();
        }
        fs::create_dir_all(dir.join("dev")).unwrap();
        fs::write(dir.join("dev/vport0p2"), "").unwrap();
        ProvisionPaths {
            request: dir.join("client.csr"),
            ports: dir.join("ports"),
            devices: dir.join("dev"),
        }
    }

    #[test]
    fn a_request_is_answered_on_the_port() {
        let dir = TempDir::new().unwrap();
        let paths = machine(dir.path());
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        fs::write(&paths.request, csr).unwrap();
        let pki = Pki::open(&dir.path().join("tls")).unwrap();
        let listen = vec!["0.0.0.0:2376".to_owned()];
        assert!(run(&paths, &pki, listen.clone(), "node".to_owned()).unwrap());
        let line = fs::read_to_string(dir.path().join("dev/vport0p2")).unwrap();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        let answer: Provisioned = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (answer.version, &answer.listen, answer.hostname.as_str()),
            (1, &listen, "node")
        );
        assert_eq!(answer.ca, pki.ca());
    }

    #[test]
    fn without_a_request_nothing_happens() {
        let dir = TempDir::new().unwrap();
        let paths = machine(dir.path());
        let pki = Pki::open(&dir.path().join("tls")).unwrap();
        assert!(!run(&paths, &pki, Vec::new(), "node".to_owned()).unwrap());
    }

    #[test]
    fn a_bad_request_is_an_error_and_the_port_stays_empty() {
        let dir = TempDir::new().unwrap();
        let paths = machine(dir.path());
        let pki = Pki::open(&dir.path().join("tls")).unwrap();
        for request in [&b"nonsense"[..], &[0xff; 10]] {
            fs::write(&paths.request, request).unwrap();
            assert!(run(&paths, &pki, Vec::new(), "node".to_owned()).is_err());
        }
        assert_eq!(fs::read(dir.path().join("dev/vport0p2")).unwrap(), b"");
    }
}

//! How a client gets its certificate from a machine. The key stays here; the signing request enters
//! the machine as a firmware configuration item, and the machine sends the certificates through a
//! virtio-serial port.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde::{Deserialize, Serialize};

use super::error::HarnessError;

/// Firmware configuration item with the signing request (PEM).
pub(crate) const CSR_ITEM: &str = "opt/io.keelson/client.csr";
/// Longest line that is accepted from the machine, in bytes.
pub(crate) const MAX_LINE: usize = 1 << 16;

/// The line that a machine writes to its provisioning port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Version of this format; 1.
    pub version: u32,
    /// Certificate of the machine's own authority, PEM.
    pub ca: String,
    /// The client's certificate, PEM.
    pub certificate: String,
    /// Where the API listens inside the machine.
    #[serde(default)]
    pub listen: Vec<String>,
    /// The machine's name.
    #[serde(default)]
    pub hostname: String,
}

impl Provisioned {
    /// Reads the line.
    ///
    /// # Errors
    /// It is not JSON of version 1, or holds something else than certificates.
    pub fn parse(line: &[u8]) -> Result<Self, HarnessError> {
        let value: Self = serde_json::from_slice(line)
            .map_err(|e| HarnessError::Provision(format!("line from the machine: {e}")))?;
        if value.version != 1 {
            return Err(HarnessError::Provision(format!(
                "line from the machine has version {}, this program reads 1",
                value.version
            )));
        }
        for (name, pem) in [("ca", &value.ca), ("certificate", &value.certificate)] {
            if !pem.trim_start().starts_with("-----BEGIN CERTIFICATE-----") {
                return Err(HarnessError::Provision(format!(
                    "{name} in the line from the machine is not a PEM certificate"
                )));
            }
        }
        Ok(value)
    }
}

/// A client's key pair with its signing request.
#[derive(Debug)]
pub struct ClientKey {
    key_pem: String,
    csr_pem: String,
}

impl ClientKey {
    /// Makes a new ECDSA P-256 key and a request for `common_name`.
    ///
    /// # Errors
    /// The cryptographic library fails.
    pub fn generate(common_name: &str) -> Result<Self, HarnessError> {
        let fail = |e: rcgen::Error| HarnessError::Provision(format!("client key: {e}"));
        let key = KeyPair::generate().map_err(fail)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let request = params.serialize_request(&key).map_err(fail)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem: request.pem().map_err(fail)?,
        })
    }

    /// The signing request, PEM. It holds no secret.
    #[must_use]
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// Writes `ca.pem`, `cert.pem` and `key.pem` as the docker command wants them, in a directory
    /// that only its owner can look into.
    ///
    /// # Errors
    /// The directory can't be written.
    pub fn save(&self, dir: &Path, provisioned: &Provisioned) -> Result<Credentials, HarnessError> {
        fs::create_dir_all(dir).map_err(HarnessError::io("create", dir))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(HarnessError::io("restrict", dir))?;
        write_private(&dir.join("key.pem"), &self.key_pem)?;
        write_private(&dir.join("cert.pem"), &provisioned.certificate)?;
        write_private(&dir.join("ca.pem"), &provisioned.ca)?;
        Ok(Credentials {
            dir: dir.to_owned(),
        })
    }
}

/// Replaces a file as a whole, readable for its owner only.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<(), HarnessError> {
    let temporary = path.with_extension("tmp");
    // A file left by an interrupted run may have other permissions.
    fs::remove_file(&temporary).ok();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(HarnessError::io("create", &temporary))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(HarnessError::io("write", &temporary))?;
    fs::rename(&temporary, path).map_err(HarnessError::io("rename to", path))
}

/// A directory with `ca.pem`, `cert.pem` and `key.pem`: what `DOCKER_CERT_PATH` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The directory.
    pub dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n";

    #[test]
    fn makes_a_request_and_keeps_the_key_private() {
        let key = ClientKey::generate("test client").unwrap();
        assert!(
            key.csr_pem()
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        );
        assert!(!key.csr_pem().contains("PRIVATE KEY"));
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("certs");
        let provisioned = Provisioned {
            version: 1,
            ca: PEM.to_owned(),
            certificate: PEM.to_owned(),
            listen: Vec::new(),
            hostname: String::new(),
        };
        for _ in 0..2 {
            key.save(&target, &provisioned).unwrap();
        }
        let mode = |name: &str| {
            let path = target.join(name);
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!(mode(""), 0o700);
        assert_eq!(mode("key.pem"), 0o600);
        assert_eq!(fs::read_to_string(target.join("ca.pem")).unwrap(), PEM);
        assert_eq!(fs::read_dir(&target).unwrap().count(), 3);
    }

    #[test]
    fn refuses_lines_that_are_not_version_1_with_certificates() {
        let good = serde_json::json!({"version": 1, "ca": PEM, "certificate": PEM,
            "listen": ["0.0.0.0:2376"], "hostname": "keelson", "later": true});
        let parse = |value: &serde_json::Value| Provisioned::parse(value.to_string().as_bytes());
        assert_eq!(parse(&good).unwrap().hostname, "keelson");
        for (member, value) in [
            ("version", serde_json::json!(2)),
            ("ca", serde_json::json!("")),
            ("certificate", serde_json::json!("rubbish")),
            ("certificate", serde_json::Value::Null),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            assert!(parse(&bad).is_err(), "{bad}");
        }
        assert!(Provisioned::parse(b"{").is_err());
    }
}

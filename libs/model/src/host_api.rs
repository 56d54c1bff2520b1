//! The messages between the host API (`/host/v1/…`) and its clients.

use serde::{Deserialize, Serialize};

use crate::init::PowerAction;
use crate::provision::ProvisionState;

mod config;
mod time;

pub use config::{
    ConfigApplied, ConfigApply, ConfigChange, ConfigConfirmed, ConfigDiff, ConfigOrigin,
    ConfigProblem, ConfigProposal, ConfigTakenBack, ConfigValidated, ConfigView, ConfigWaiting,
};
pub use time::{TimeServer, TimeStatus};

/// The answer to `GET /host/v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The machine's name.
    pub hostname: String,
    /// Version of hostd.
    pub version: String,
    /// Name of the booted deployment, on a machine that Keelson's init started.
    pub deployment: Option<String>,
    /// Seconds since the kernel started.
    pub uptime: f64,
    /// What is wrong with the configuration or the machine, one sentence each.
    pub warnings: Vec<String>,
    /// SHA-256 fingerprint of the certificate authority, colon-separated hexadecimal digits.
    pub ca_fingerprint: Option<String>,
    /// netcfg's own report, when netcfg runs.
    pub network: Option<serde_json::Value>,
}

/// The answer to `GET /host/v1/provision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionReport {
    /// How far the provisioning is.
    pub state: ProvisionState,
    /// The source whose documents are in effect: `nocloud`, `ec2`, ….
    pub source: Option<String>,
    /// Its device or URL.
    pub place: Option<String>,
    /// Instance-id of these documents.
    pub instance_id: Option<String>,
    /// When the sources were last asked, RFC 3339.
    pub when: Option<String>,
    /// The settings that the documents make, by their paths in `host.toml`.
    pub applied: Vec<String>,
    /// What was left out, each `document:line: message`.
    pub left_out: Vec<String>,
    /// Why sources could not be read, and the like.
    pub problems: Vec<String>,
}

/// The body of `POST /host/v1/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// How the machine ends.
    pub action: PowerAction,
    /// Kill everything at once instead of stopping it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The rights of a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// All operations on containers; of the machine only reading.
    Operator,
    /// Reading.
    Reader,
}

impl Role {
    /// The role's name. It is the organisation (O=) in the certificate's subject.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Reader => "reader",
        }
    }

    /// The role of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Admin, Self::Operator, Self::Reader]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// The body of `POST /host/v1/certificates`: asks for a certificate for a key that the client made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS #10 request, PEM. Only its public key is used.
    pub csr: String,
    /// Common name.
    pub name: String,
    /// What the certificate allows.
    pub role: Role,
}

/// The answer to a [`CertificateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// Certificate of the authority, PEM.
    pub ca: String,
    /// The client's certificate, PEM.
    pub certificate: String,
}

/// A client certificate, as the machine remembers it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate, colon-separated hexadecimal digits; empty when it was revoked by
    /// its serial number and is not known otherwise.
    pub fingerprint: String,
    /// Serial number, hexadecimal digits; empty when it is not known.
    pub serial: String,
    /// Common name; empty when it is not known.
    pub name: String,
    /// What it allows; absent when it is not known.
    pub role: Option<Role>,
    /// When it was issued (RFC 3339); absent when it is not known.
    pub issued: Option<String>,
    /// When it ends by itself (RFC 3339); absent when it is not known.
    pub expires: Option<String>,
    /// When it was revoked (RFC 3339). Absent: it is valid.
    pub revoked: Option<String>,
}

/// The body of `POST /host/v1/certificates/revoke`: exactly one member selects the certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RevocationRequest {
    /// One certificate, by its SHA-256 fingerprint; with or without colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// One certificate, by its serial number; with or without colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// All certificates that were issued to this name until now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The one line that a first boot under QEMU writes to the provisioning port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Version of this format; 1.
    pub version: u32,
    /// Certificate of the authority, PEM.
    pub ca: String,
    /// The client's certificate, PEM.
    pub certificate: String,
    /// Addresses that the APIs listen on with TLS.
    pub listen: Vec<String>,
    /// The machine's name.
    pub hostname: String,
}

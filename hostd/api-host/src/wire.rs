//! The JSON documents of the host API. `openapi` describes these types.
//!
//! The machine's programs send each other other types, those of `keelson_model`. So the description
//! concerns this crate only, and PID 1 links nothing of it. The conversions name every member: a
//! member that is added on one side does not compile until it is added on the other.

use keelson_model::host_api as model;
use keelson_model::{init, service, verify};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer to a request that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Error {
    /// What went wrong, in one sentence, with the member, its value and the remedy.
    pub(crate) message: String,
}

/// What the owner of a client certificate may do.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Everything.
    Admin,
    /// Everything that concerns containers. Of the machine: reading only.
    Operator,
    /// Reading.
    Reader,
}

impl From<model::Role> for Role {
    fn from(role: model::Role) -> Self {
        match role {
            model::Role::Admin => Self::Admin,
            model::Role::Operator => Self::Operator,
            model::Role::Reader => Self::Reader,
        }
    }
}

impl From<Role> for model::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::Operator => Self::Operator,
            Role::Reader => Self::Reader,
        }
    }
}

/// The machine.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    /// The machine's name.
    hostname: String,
    /// Version of hostd.
    version: String,
    /// Name of the booted deployment, on a machine that Keelson's init started.
    deployment: Option<String>,
    /// Seconds since the kernel started.
    uptime: f64,
    /// Problems of the configuration or the machine, one sentence each.
    warnings: Vec<String>,
    /// SHA-256 fingerprint of the certificate authority, colon-separated hexadecimal digits.
    ca_fingerprint: Option<String>,
    /// netcfg's own report, when netcfg runs.
    #[schema(value_type = Option<Object>)]
    network: Option<serde_json::Value>,
}

impl From<model::HostStatus> for Status {
    fn from(status: model::HostStatus) -> Self {
        let model::HostStatus {
            hostname,
            version,
            deployment,
            uptime,
            warnings,
            ca_fingerprint,
            network,
        } = status;
        Self {
            hostname,
            version,
            deployment,
            uptime,
            warnings,
            ca_fingerprint,
            network,
        }
    }
}

/// The boot and the supervised processes, as PID 1 reports them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Boot {
    /// Name of the booted ostree deployment: `<commit>.<serial>`.
    deployment: Option<String>,
    /// Steps of the boot in the order in which they ended.
    boot: Vec<BootStep>,
    /// The supervised processes.
    processes: Vec<Process>,
}

/// One step of the boot. Times are seconds since the kernel started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BootStep {
    /// Short name: `stage1`, `mounts`, `modules`, `netcfg-ready`, `hostd-ready`, …
    name: String,
    /// When the step began.
    started: f64,
    /// When the step ended.
    ended: f64,
    /// What failed, when it failed and the boot went on without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A process that PID 1 keeps running.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Process {
    /// `netcfg` or `hostd`.
    name: String,
    /// `starting`, `ready`, `hung` (sends no sign of life), `waiting` (for its restart),
    /// `stopping` or `stopped`.
    state: String,
    /// Process identifier while it runs.
    pid: Option<i32>,
    /// How often it was restarted after it ended by itself.
    restarts: u32,
    /// How it last ended, for example `killed by SIGKILL`.
    last_exit: Option<String>,
}

impl From<init::InitStatus> for Boot {
    fn from(status: init::InitStatus) -> Self {
        let init::InitStatus {
            deployment,
            boot,
            processes,
        } = status;
        let step = |step| {
            let init::BootStep {
                name,
                started,
                ended,
                error,
            } = step;
            BootStep {
                name,
                started,
                ended,
                error,
            }
        };
        let process = |process| {
            let init::ProcessStatus {
                name,
                state,
                pid,
                restarts,
                last_exit,
            } = process;
            Process {
                name,
                state: state.to_string(),
                pid,
                restarts,
                last_exit,
            }
        };
        Self {
            deployment,
            boot: boot.into_iter().map(step).collect(),
            processes: processes.into_iter().map(process).collect(),
        }
    }
}

/// One of the machine's own services.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Service {
    /// Its name in the configuration.
    name: String,
    /// One line for people.
    description: String,
    /// `running`, `starting`, `waiting` (for its restart), `failing` (ends again and again, or can't be
    /// started now), `stopped`, `failed` (can't be started as it is configured) or `disabled`.
    state: String,
    /// Whether the configuration switches it on.
    enabled: bool,
    /// The image as the configuration names it, or the layers of the OS.
    image: String,
    /// `starting`, `healthy` or `unhealthy`, if its health is checked and it runs.
    health: Option<String>,
    /// Identifier of its first process, while it runs.
    pid: Option<i32>,
    /// How often it was started again after it ended by itself or did not start.
    restarts: u32,
    /// When it entered this state (RFC 3339).
    since: String,
    /// Exit code of its last run.
    exit_code: Option<i32>,
    /// The last error.
    error: Option<String>,
}

impl From<service::ServiceStatus> for Service {
    fn from(status: service::ServiceStatus) -> Self {
        let service::ServiceStatus {
            name,
            description,
            state,
            enabled,
            image,
            health,
            pid,
            restarts,
            since,
            exit_code,
            error,
        } = status;
        Self {
            name,
            description,
            state: state.to_string(),
            enabled,
            image,
            health,
            pid,
            restarts,
            since,
            exit_code,
            error,
        }
    }
}

/// A stream of a service's output.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a service's output, or a piece of a long one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceLogLine {
    /// When it was written (RFC 3339).
    pub(crate) time: String,
    /// Where it was written.
    pub(crate) stream: LogStream,
    /// The text, without the end of the line.
    pub(crate) text: String,
}

/// What follows an orderly stop.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PowerAction {
    /// Power off.
    Poweroff,
    /// Restart through the firmware.
    Reboot,
    /// Start the kernel of the running deployment again, without the firmware. Refused where the
    /// kernel may not start another one, as under Secure Boot.
    Kexec,
    /// Stop the processor without switching the power off.
    Halt,
}

impl From<PowerAction> for init::PowerAction {
    fn from(action: PowerAction) -> Self {
        match action {
            PowerAction::Poweroff => Self::Poweroff,
            PowerAction::Reboot => Self::Reboot,
            PowerAction::Kexec => Self::Kexec,
            PowerAction::Halt => Self::Halt,
        }
    }
}

/// A request to stop the machine. The answer repeats it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Power {
    /// What follows the stop.
    pub(crate) action: PowerAction,
    /// Kill everything at once instead of stopping it, also when an orderly stop is under way;
    /// file systems are still unmounted. The stop can't be taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schema(default = false)]
    pub(crate) force: bool,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TakesEffect {
    /// When the machine starts the next time.
    NextStart,
}

/// The answer to a request for a new identity.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IdentityReset {
    /// When the machine has it.
    pub(crate) takes_effect: TakesEffect,
}

/// A request for a client certificate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateRequest {
    /// PKCS #10 request, PEM. Only its public key is used.
    pub(crate) csr: String,
    /// Common name.
    pub(crate) name: String,
    /// Role of the certificate's owner.
    pub(crate) role: Role,
}

/// A certificate that was issued.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IssuedCertificate {
    /// Certificate of the authority, PEM.
    ca: String,
    /// The client's certificate, PEM.
    certificate: String,
}

impl From<model::IssuedCertificate> for IssuedCertificate {
    fn from(issued: model::IssuedCertificate) -> Self {
        let model::IssuedCertificate { ca, certificate } = issued;
        Self { ca, certificate }
    }
}

/// A client certificate in the machine's list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientCertificate {
    /// SHA-256 of the certificate, colon-separated hexadecimal digits. Empty when only its serial
    /// number is known.
    fingerprint: String,
    /// Serial number, hexadecimal digits; empty when it is not known.
    serial: String,
    /// Common name; empty when it is not known.
    name: String,
    /// Role of its owner; null when it is not known.
    role: Option<Role>,
    /// When it was issued (RFC 3339); null when it is not known.
    issued: Option<String>,
    /// When it expires (RFC 3339); null when it is not known.
    expires: Option<String>,
    /// When it was revoked (RFC 3339); null when it is not revoked.
    revoked: Option<String>,
}

impl From<model::ClientCertificate> for ClientCertificate {
    fn from(certificate: model::ClientCertificate) -> Self {
        let model::ClientCertificate {
            fingerprint,
            serial,
            name,
            role,
            issued,
            expires,
            revoked,
        } = certificate;
        Self {
            fingerprint,
            serial,
            name,
            role: role.map(Role::from),
            issued,
            expires,
            revoked,
        }
    }
}

/// Which certificates to revoke. Exactly one member must be set.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RevocationRequest {
    /// One certificate, by its SHA-256 fingerprint; with or without colons.
    fingerprint: Option<String>,
    /// One certificate, by its serial number; with or without colons.
    serial: Option<String>,
    /// All certificates that have been issued to this name.
    name: Option<String>,
}

impl From<RevocationRequest> for model::RevocationRequest {
    fn from(request: RevocationRequest) -> Self {
        let RevocationRequest {
            fingerprint,
            serial,
            name,
        } = request;
        Self {
            fingerprint,
            serial,
            name,
        }
    }
}

/// Which stored images to check.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    /// Names or identifiers of images. Empty: all images.
    #[serde(default)]
    pub(crate) images: Vec<String>,
}

/// One line of a check's report.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum VerifyLine {
    /// The first line: how much will be read.
    Started {
        /// Images.
        images: u64,
        /// Layers; a shared layer counts once.
        layers: u64,
        /// Bytes of all files that will be read.
        bytes: u64,
    },
    /// How much has been read.
    Progress {
        /// Bytes read so far.
        bytes: u64,
    },
    /// An object is damaged.
    Damaged {
        /// `layer`, `configuration`, `manifest`, `record` or `names`.
        kind: String,
        /// Its digest; empty when it has none.
        digest: String,
        /// The file or directory.
        path: String,
        /// What is wrong.
        reason: String,
        /// The images that need it: by name, or by identifier when they have none.
        images: Vec<String>,
        /// What to do.
        remedy: String,
    },
    /// The last line: everything has been checked.
    Finished {
        /// Damaged objects.
        damaged: u64,
        /// Bytes read.
        bytes: u64,
    },
}

impl From<verify::VerifyLine> for VerifyLine {
    fn from(line: verify::VerifyLine) -> Self {
        match line {
            verify::VerifyLine::Started {
                images,
                layers,
                bytes,
            } => Self::Started {
                images,
                layers,
                bytes,
            },
            verify::VerifyLine::Progress { bytes } => Self::Progress { bytes },
            verify::VerifyLine::Damaged(verify::Damage {
                kind,
                digest,
                path,
                reason,
                images,
                remedy,
            }) => Self::Damaged {
                kind,
                digest,
                path,
                reason,
                images,
                remedy,
            },
            verify::VerifyLine::Finished { damaged, bytes } => Self::Finished { damaged, bytes },
        }
    }
}

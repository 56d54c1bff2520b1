//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keelson_model::host_api::Role;
use keelson_model::init::PowerAction;

/// Manages a Keelson machine, the one it runs on or another.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// The machine: unix:///path or tcp://host:port.
    #[arg(
        long,
        short = 'H',
        value_name = "URL",
        env = "DOCKER_HOST",
        default_value = "unix:///run/docker.sock",
        global = true
    )]
    pub(crate) host: String,

    /// Directory with ca.pem, cert.pem and key.pem for tcp://.
    #[arg(long, value_name = "DIR", env = "DOCKER_CERT_PATH", global = true)]
    pub(crate) cert_path: Option<PathBuf>,

    /// How results are shown.
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    pub(crate) format: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// How to stop the machine.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Kill everything at once, also when an orderly stop is under way. File systems are still
    /// unmounted.
    #[arg(long)]
    pub(crate) force: bool,
}

/// How to restart the machine.
#[derive(Debug, Args)]
pub(crate) struct RebootArgs {
    #[command(flatten)]
    pub(crate) stop: StopArgs,

    /// Start the kernel of the running deployment again, without the firmware. Some devices do not
    /// survive that.
    #[arg(long)]
    pub(crate) kexec: bool,
}

impl RebootArgs {
    pub(crate) fn action(&self) -> PowerAction {
        match self.kexec {
            true => PowerAction::Kexec,
            false => PowerAction::Reboot,
        }
    }
}

/// `hostctl identity`.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make a new identity at the next start, for a machine whose disk was copied. All client
    /// certificates are void then.
    Reset,
}

/// `hostctl boot`.
#[derive(Debug, Args)]
pub(crate) struct BootArgs {
    /// Write a picture of the boot into this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

/// `hostctl provision`.
#[derive(Debug, Subcommand)]
pub(crate) enum ProvisionCommand {
    /// Which source was found, what was applied, and what was left out, with the lines.
    Status,
}

/// `hostctl power`.
#[derive(Debug, Subcommand)]
pub(crate) enum PowerCommand {
    /// Stop everything in order and switch the machine off.
    #[command(alias = "poweroff")]
    Off(StopArgs),
    /// Stop everything in order and restart the machine.
    Reboot(RebootArgs),
    /// Stop everything in order and halt the processor.
    Halt(StopArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// System services.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// The machine: version, deployment, warnings, network.
    Status,
    /// Steps of the boot with a chart of them, and the supervised processes.
    Boot(BootArgs),
    /// What the platform (a cloud, a seed disk) told the machine.
    #[command(subcommand)]
    Provision(ProvisionCommand),
    /// The machine's clock, and the time servers.
    Time,
    /// Show the machine's name, or give it another one.
    Hostname {
        /// The new name: letters, digits and hyphens.
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
    /// Stop everything in order and switch the machine off.
    Poweroff(StopArgs),
    /// Stop everything in order and restart the machine.
    Reboot(RebootArgs),
    /// Stop everything in order and halt the processor.
    Halt(StopArgs),
    /// The same stops under one word: `power off`, `power reboot`, `power halt`.
    #[command(subcommand)]
    Power(PowerCommand),
    /// The machine's identity: machine-id, keys, certificate authority.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// The machine's configuration (host.toml).
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The machine's logs: kernel, init, netcfg, hostd, services.
    Logs(LogsArgs),
    /// Client certificates.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// Stored container images.
    #[command(subcommand)]
    Image(ImageCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Read stored images again and compare them with their original contents. Exits with 1 if
    /// something is damaged.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Images by name or identifier; all if none is named.
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show every value that counts.
    Show(ShowConfigArgs),
    /// Say what is wrong with a file.
    Validate(ConfigFileArgs),
    /// Show what a file would change, and when each value would work.
    Diff(ConfigFileArgs),
    /// Replace host.toml, or a drop-in, by a file. A change that can lock you out (network, api, user)
    /// is taken back by itself unless it is confirmed in time.
    Apply(ApplyConfigArgs),
    /// Keep the change that waits for its confirmation.
    Confirm,
    /// Take back the change that waits, or else the last one.
    Rollback,
}

#[derive(Debug, Args)]
pub(crate) struct ShowConfigArgs {
    /// Also show the layer, file and line that each value comes from.
    #[arg(long)]
    pub(crate) origin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFileArgs {
    /// The new text; `-` for standard input.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// It is for the file host.toml.d/NAME.toml instead of host.toml.
    #[arg(long, value_name = "NAME")]
    pub(crate) drop_in: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyConfigArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFileArgs,

    /// Take the change back unless it is confirmed in time; 0: it need not be confirmed. Default: 120
    /// if the change can lock you out.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) confirm_within: Option<u32>,

    /// Let hostd restart if the change needs it. Containers go on.
    #[arg(long)]
    pub(crate) restart: bool,
}

#[derive(Debug, Default, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LogsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<LogsCommand>,

    /// Go on with new lines; begins with the last 10, unless --tail says otherwise.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Nothing earlier: 2026-11-30T12:00:00Z, "2026-11-30 12:00:00" (UTC), seconds since 1970, or a
    /// time before now such as 10m or 2h30m.
    #[arg(long, short = 'S', value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Nothing later, in the same forms.
    #[arg(long, short = 'U', value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Only lines of this unit: kernel, init, netcfg, hostd, or a service; may be repeated.
    #[arg(long, short, value_name = "UNIT")]
    pub(crate) unit: Vec<String>,

    /// Only this boot: 0 for the newest, -1 for the one before, or the beginning of an identifier.
    #[arg(
        long,
        short,
        value_name = "BOOT",
        num_args = 0..=1,
        default_missing_value = "0",
        allow_hyphen_values = true
    )]
    pub(crate) boot: Option<String>,

    /// Only this many of the last lines, or all.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) tail: Option<String>,

    /// Nothing less urgent: emergency, alert, critical, error, warning, notice, info or debug.
    #[arg(long, short, value_name = "PRIORITY")]
    pub(crate) priority: Option<String>,

    /// How lines are shown.
    #[arg(long, short, value_enum)]
    pub(crate) output: Option<LogsOutput>,

    /// List the boots that have lines.
    #[arg(long)]
    pub(crate) list_boots: bool,
}

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogsOutput {
    /// Time, unit and text.
    Short,
    /// One JSON document on each line.
    Json,
    /// Only the text.
    Cat,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum LogsCommand {
    /// The state of the store, and of forwarding.
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List them.
    #[command(alias = "ls")]
    List,
    /// Show everything that is known of one.
    Status(ServiceArgs),
    /// Start one that rests, or at once one that waits for its next attempt.
    Start(ServiceArgs),
    /// Stop one until it is started again, or until the next boot.
    Stop(ServiceArgs),
    /// Stop one and start it again.
    Restart(ServiceArgs),
    /// Show what one has written.
    Logs(ServiceLogsArgs),
    /// Switch one on, for later boots, too.
    Enable(ServiceArgs),
    /// Stop one and switch it off, for later boots, too.
    Disable(ServiceArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// The service.
    #[arg(value_name = "NAME", value_parser = parse_service)]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceLogsArgs {
    /// The service.
    #[arg(value_name = "NAME", value_parser = parse_service)]
    pub(crate) name: String,

    /// Go on with what it writes from now on, until it ends.
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Only this many of the last lines.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) tail: Option<u64>,

    /// Only what is not older than this: 90s, 10m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    pub(crate) since: Option<Duration>,

    /// Show when each line was written.
    #[arg(long, short)]
    pub(crate) timestamps: bool,
}

/// `90`, `90s`, `10m`, `2h`, `3d`.
fn parse_age(text: &str) -> Result<Duration, WrongAge> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| WrongAge)?;
    let unit = match text.get(digits.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err(WrongAge),
    };
    number
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or(WrongAge)
}

/// The text is no age.
#[derive(Debug, thiserror::Error)]
#[error("expected a number with s, m, h or d, such as 10m")]
struct WrongAge;

/// The text can't be the name of a service.
#[derive(Debug, thiserror::Error)]
#[error("a service's name has small letters, digits and hyphens only")]
struct NoServiceName;

/// Nothing else may come into a path of the API.
fn parse_service(name: &str) -> Result<String, NoServiceName> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    match !name.is_empty() && name.bytes().all(plain) {
        true => Ok(name.to_owned()),
        false => Err(NoServiceName),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// Make a key here and let the machine sign a certificate for it.
    Issue(IssueArgs),
    /// List the certificates that the machine has issued, and which of them are revoked.
    #[command(alias = "ls")]
    List,
    /// Make certificates invalid, at once and permanently. Connections that were opened with them
    /// end.
    Revoke(RevokeArgs),
}

/// The certificates: one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokeArgs {
    /// One certificate, by its SHA-256 fingerprint (openssl x509 -fingerprint -sha256).
    #[arg(long, value_name = "HEX")]
    pub(crate) fingerprint: Option<String>,

    /// One certificate, by its serial number.
    #[arg(long, value_name = "HEX")]
    pub(crate) serial: Option<String>,

    /// All certificates that were issued to this name until now.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// Common name of the certificate: a person or a program.
    #[arg(long)]
    pub(crate) name: String,

    /// What it allows: admin, operator or reader.
    #[arg(long, value_parser = parse_role, default_value = "admin")]
    pub(crate) role: Role,

    /// Directory for ca.pem, cert.pem and key.pem, as for DOCKER_CERT_PATH. It must not have a key
    /// yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// The text is not the name of a role.
#[derive(Debug, thiserror::Error)]
#[error("expected admin, operator or reader")]
struct UnknownRole;

fn parse_role(name: &str) -> Result<Role, UnknownRole> {
    Role::parse(name).ok_or(UnknownRole)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn ages_are_read() {
        for (text, seconds) in [
            ("90", 90),
            ("5s", 5),
            ("10m", 600),
            ("2h", 7200),
            ("1d", 86_400),
        ] {
            assert_eq!(parse_age(text).unwrap().as_secs(), seconds);
        }
        for wrong in ["", "m", "-5m", "5w", "5mm", "99999999999999999999d"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn boots_may_be_numbers_before_this_one() {
        let boot = |arguments: &[&str]| {
            let line = ["hostctl", "logs"].iter().chain(arguments);
            match Options::try_parse_from(line).unwrap().command {
                Command::Logs(args) => args.boot,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(boot(&[]), None);
        assert_eq!(boot(&["--boot"]).as_deref(), Some("0"));
        assert_eq!(boot(&["--boot", "-1"]).as_deref(), Some("-1"));
        assert_eq!(boot(&["-b", "-1", "-n", "5"]).as_deref(), Some("-1"));
    }
}

//! Root's rights: for the distribution's packages, and for making an image, since files in it
//! belong to root, and ostree sets owners.
//!
//! For an image a user namespace in which the calling user is root is enough, and needs no
//! password; where the kernel's administrator forbids these, sudo is used.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress;

/// Variables that a program still needs under sudo.
const KEPT_VARIABLES: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "CI",
    "KEELSON_DEBIAN_MIRROR",
    "PATH",
    "SOURCE_DATE_EPOCH",
    "TERM",
];

/// Whether this process has all rights.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program run as root: by sudo where this process is not root.
#[must_use]
pub fn as_root(name: &str) -> Command {
    let mut command;
    if is_root() {
        command = Command::new(name);
    } else {
        command = Command::new("sudo");
        command.args([
            "--non-interactive",
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            name,
        ]);
    }
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Lets sudo ask for the password now, visibly, so that later calls need none. Returns whether sudo
/// allows them.
#[must_use]
pub fn authenticate() -> bool {
    let mut sudo = Command::new("sudo");
    if std::io::stdin().is_terminal() {
        sudo.arg("--validate");
    } else {
        sudo.args(["--non-interactive", "true"])
            .stdin(Stdio::null());
    }
    sudo.status().is_ok_and(|status| status.success())
}

/// How this process gets root's rights over files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// It has them.
    Root,
    /// In a user namespace.
    UserNamespace,
    /// By sudo.
    Sudo,
}

impl Means {
    /// The means with the least rights that works here.
    #[must_use]
    pub fn find() -> Self {
        if is_root() {
            return Self::Root;
        }
        let namespace = Command::new("unshare")
            .args(["--map-root-user", "--mount", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if namespace.is_ok_and(|status| status.success()) {
            Self::UserNamespace
        } else {
            Self::Sudo
        }
    }

    /// Runs this program again with root's rights and other arguments.
    ///
    /// # Errors
    /// It fails; its message is on standard error already.
    pub fn run_self(self, arguments: &[&str]) -> Result<()> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command;
        match self {
            Self::Root => command = Command::new(&program),
            Self::UserNamespace => {
                command = Command::new("unshare");
                command
                    .args(["--map-root-user", "--mount", "--"])
                    .arg(&program);
            }
            Self::Sudo => {
                progress::say(
                    "   ! user namespaces are not allowed here: the image is made with sudo",
                );
                command = Command::new("sudo");
                command.arg("env");
                for name in KEPT_VARIABLES {
                    if let Some(value) = std::env::var_os(name) {
                        let mut assignment = std::ffi::OsString::from(name);
                        assignment.push("=");
                        assignment.push(value);
                        command.arg(assignment);
                    }
                }
                command.arg(&program);
            }
        }
        let status = command
            .args(arguments)
            .status()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        if !status.success() {
            bail!("the image was not made");
        }
        Ok(())
    }
}

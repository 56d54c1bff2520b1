//! Root's rights for making an image: files in it belong to root, and ostree sets owners.
//!
//! A user namespace in which the calling user is root is enough and asks nobody; where the
//! kernel's administrator forbids these, sudo is used.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress;

/// Variables that a program run by sudo needs all the same.
const KEPT_VARIABLES: [&str; 7] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_TARGET_DIR",
    "CI",
    "KEELSON_DEBIAN_MIRROR",
    "PATH",
    "SOURCE_DATE_EPOCH",
    "TERM",
];

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
        if nix::unistd::geteuid().is_root() {
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
    /// It fails; what it said is on standard error already.
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

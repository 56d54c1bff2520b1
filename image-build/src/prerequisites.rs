//! What the building machine must have, and installing what it lacks from its own distribution.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::apt::{self, DEBIAN_KEYRING};
use crate::distribution::Distribution;
use crate::progress::{self, Step};
use crate::tools;
use crate::workspace::{MUSL_TARGET, Workspace};

/// What is about to be done; each includes the former.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Compile the executables.
    Build,
    /// Make the image.
    Image,
    /// Run it in QEMU.
    Run,
    /// Run all tests.
    Test,
}

/// How the machine shows that it has something.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// An executable in the search path.
    Program(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
}

impl Sign {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => tools::in_path(name).is_some(),
            Self::File(paths) => paths.iter().any(|path| Path::new(path).exists()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program(name) => name,
            Self::File(paths) => paths.first().copied().unwrap_or_default(),
        }
    }
}

/// Something needed, the package that brings it, and what for.
struct Need {
    purpose: Purpose,
    sign: Sign,
    package: &'static str,
    reason: &'static str,
}

const fn program(
    purpose: Purpose,
    name: &'static str,
    package: &'static str,
    reason: &'static str,
) -> Need {
    Need {
        purpose,
        sign: Sign::Program(name),
        package,
        reason,
    }
}

const NEEDS: &[Need] = &[
    program(
        Purpose::Build,
        "musl-gcc",
        "musl-tools",
        "links static executables",
    ),
    program(Purpose::Image, "python3", "python3", "runs mkosi"),
    program(Purpose::Image, "depmod", "kmod", "indexes kernel modules"),
    program(
        Purpose::Image,
        "systemd-sysusers",
        "systemd",
        "makes the image's system users",
    ),
    program(
        Purpose::Image,
        "ostree",
        "ostree",
        "commits and deploys the operating system",
    ),
    program(Purpose::Image, "zstd", "zstd", "compresses the initrd"),
    program(Purpose::Image, "xz", "xz-utils", "reads kernel modules"),
    program(
        Purpose::Image,
        "mkfs.erofs",
        "erofs-utils",
        "packs system services",
    ),
    program(
        Purpose::Image,
        "mmd",
        "mtools",
        "writes the EFI system partition",
    ),
    program(
        Purpose::Image,
        "mkfs.vfat",
        "dosfstools",
        "makes the EFI system partition",
    ),
    program(Purpose::Image, "sfdisk", "fdisk", "partitions disk images"),
    program(
        Purpose::Image,
        "mkfs.ext4",
        "e2fsprogs",
        "makes the root file system",
    ),
    program(
        Purpose::Image,
        "qemu-img",
        "qemu-utils",
        "makes and checks disk images",
    ),
    Need {
        purpose: Purpose::Image,
        sign: Sign::File(&[
            DEBIAN_KEYRING,
            "/usr/share/keyrings/debian-archive-keyring.pgp",
        ]),
        package: "debian-archive-keyring",
        reason: "verifies Debian's packages",
    },
    program(
        Purpose::Run,
        "qemu-system-x86_64",
        "qemu-system-x86",
        "runs the virtual machine",
    ),
    Need {
        purpose: Purpose::Run,
        sign: Sign::File(&[
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_CODE.fd",
        ]),
        package: "ovmf",
        reason: "is the virtual machine's UEFI firmware",
    },
    Need {
        purpose: Purpose::Test,
        sign: Sign::File(&["/bin/busybox"]),
        package: "busybox-static",
        reason: "is the image that tests run",
    },
    program(
        Purpose::Test,
        "apparmor_parser",
        "apparmor",
        "compiles profiles for tests in the virtual machine",
    ),
    program(
        Purpose::Test,
        "cpio",
        "cpio",
        "reads back the initrd in tests",
    ),
    program(
        Purpose::Test,
        "curl",
        "curl",
        "is a client of the API in tests",
    ),
    program(
        Purpose::Test,
        "bzip2",
        "bzip2",
        "packs archives for tests of loading",
    ),
    program(Purpose::Test, "ip", "iproute2", "makes networks for tests"),
    program(
        Purpose::Test,
        "dnsmasq",
        "dnsmasq-base",
        "is the DHCP server of tests",
    ),
    program(
        Purpose::Test,
        "dockerd",
        "docker.io",
        "exchanges images with ours in tests",
    ),
    program(
        Purpose::Test,
        "podman",
        "podman",
        "exchanges images with ours in tests",
    ),
    program(
        Purpose::Test,
        "skopeo",
        "skopeo",
        "exchanges images with ours in tests",
    ),
    program(
        Purpose::Test,
        "docker-registry",
        "docker-registry",
        "is the registry of tests",
    ),
    program(
        Purpose::Test,
        "umoci",
        "umoci",
        "unpacks images in tests, for comparison",
    ),
    program(
        Purpose::Test,
        "runc",
        "runc",
        "is what our container runtime is compared with",
    ),
    program(
        Purpose::Test,
        "crun",
        "crun",
        "is what our container runtime is compared with",
    ),
    program(
        Purpose::Test,
        "openssl",
        "openssl",
        "looks at certificates in tests",
    ),
];

/// Installs what is missing for `purpose`, after saying what and why.
///
/// # Errors
/// The distribution is none whose packages are known, or the installation fails; the message
/// says what to install.
pub fn ensure(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if !missing.is_empty() {
        let distribution = Distribution::detect()?;
        if !distribution.has_debian_packages() {
            bail!(
                "{} is not known here (Debian 12, 13 and Ubuntu 22.04 and later are). Install \
                 what brings these, and try again:\n{}",
                distribution.name,
                explain(&missing)
            );
        }
        if !distribution.is_supported() {
            progress::say(&format!(
                "{} is not tested; its packages are tried.",
                distribution.name
            ));
        }
        install(workspace, &missing)?;
    }
    rust_target()?;
    if purpose >= Purpose::Test {
        rust_components()?;
    }
    Ok(())
}

/// Missing packages and why each is needed.
fn missing(purpose: Purpose) -> BTreeMap<&'static str, String> {
    let mut missing: BTreeMap<&'static str, String> = NEEDS
        .iter()
        .filter(|need| need.purpose <= purpose && !need.sign.is_there())
        .map(|need| {
            (
                need.package,
                format!("{} {}", need.sign.name(), need.reason),
            )
        })
        .collect();
    // Where apt knows no Debian archive, debootstrap's default is used.
    if purpose >= Purpose::Image && apt::image_sources().is_err() {
        missing.insert(
            "debootstrap",
            "debootstrap knows a Debian mirror".to_owned(),
        );
    }
    missing
}

fn explain(missing: &BTreeMap<&'static str, String>) -> String {
    missing
        .iter()
        .map(|(package, reason)| format!("  {package:<24} {reason}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn install(workspace: &Workspace, missing: &BTreeMap<&'static str, String>) -> Result<()> {
    progress::say(&format!(
        "These packages of the distribution are missing and are installed now{}:\n{}",
        if is_root() { "" } else { " with sudo" },
        explain(missing)
    ));
    if !is_root() {
        authenticate(missing)?;
    }
    let log = progress::log_file(&workspace.log(), "apt");
    let mut step = Step::begin("apt-get install");
    let apt_get = |arguments: &[&str]| {
        let mut command = as_root("apt-get");
        command
            .args([
                "-o",
                "DPkg::Lock::Timeout=300",
                "-o",
                "APT::Get::Assume-Yes=true",
            ])
            .args(arguments)
            .args(missing.keys().filter(|_| arguments.contains(&"install")));
        command
    };
    let arguments = ["install", "--no-install-recommends"];
    // Package lists may be missing or out of date; they are fetched only then.
    if progress::run(&mut step, &mut apt_get(&arguments), &log).is_err() {
        step.detail("package lists");
        let lists = progress::log_file(&workspace.log(), "apt-update");
        progress::run(&mut step, &mut apt_get(&["update"]), &lists)?;
        progress::run(&mut step, &mut apt_get(&arguments), &log)
            .with_context(|| format!("install these packages:\n{}", explain(missing)))?;
    }
    step.done(&missing.keys().copied().collect::<Vec<_>>().join(" "));
    Ok(())
}

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

/// Lets sudo ask for the password now, visibly, so that later calls need none.
fn authenticate(missing: &BTreeMap<&'static str, String>) -> Result<()> {
    let mut sudo = Command::new("sudo");
    if std::io::stdin().is_terminal() {
        sudo.arg("--validate");
    } else {
        sudo.args(["--non-interactive", "true"])
            .stdin(Stdio::null());
    }
    let allowed = sudo.status().is_ok_and(|status| status.success());
    if !allowed {
        bail!(
            "sudo does not allow it. Install these packages as root and try again:\n  apt-get install {}",
            missing.keys().copied().collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}

/// The standard library for static executables.
fn rust_target() -> Result<()> {
    let present = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", MUSL_TARGET])
        .output()
        .is_ok_and(|output| {
            let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success() && Path::new(&folder).is_dir()
        });
    if present {
        return Ok(());
    }
    if tools::in_path("rustup").is_none() {
        bail!(
            "Rust's standard library for {MUSL_TARGET} is missing, and there is no rustup to add it"
        );
    }
    let step = Step::begin(format!("rustup target add {MUSL_TARGET}"));
    progress::output(Command::new("rustup").args(["target", "add", MUSL_TARGET]))?;
    step.done("");
    Ok(())
}

/// The formatter and the linter.
fn rust_components() -> Result<()> {
    let cargo =
        |name: &str| progress::output(Command::new("cargo").args([name, "--version"])).is_ok();
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| !cargo(command))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = Step::begin(format!("rustup component add {}", missing.join(" ")));
    progress::output(
        Command::new("rustup")
            .args(["component", "add"])
            .args(&missing),
    )
    .context("cargo test needs rustfmt and clippy")?;
    step.done("");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_purposes_need_more() {
        let count = |purpose| NEEDS.iter().filter(|need| need.purpose <= purpose).count();
        assert!(count(Purpose::Build) < count(Purpose::Image));
        assert!(count(Purpose::Image) < count(Purpose::Run));
        assert_eq!(count(Purpose::Test), NEEDS.len());
    }

    #[test]
    fn signs_are_looked_for() {
        assert!(Sign::Program("sh").is_there());
        assert!(!Sign::Program("no-such-program-anywhere").is_there());
        assert!(Sign::File(&["/nonexistent", "/etc/passwd"]).is_there());
        assert!(!Sign::File(&["/nonexistent"]).is_there());
    }

    #[test]
    fn the_explanation_names_every_package() {
        let missing = BTreeMap::from([
            ("a-package", "x does this".to_owned()),
            ("b", "y".to_owned()),
        ]);
        let text = explain(&missing);
        assert!(text.contains("a-package") && text.contains("x does this"));
        assert_eq!(text.lines().count(), 2);
    }
}

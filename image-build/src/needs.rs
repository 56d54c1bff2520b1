//! The requirements of the building machine: programs and files, and the packages that contain
//! them.

use std::path::Path;

use crate::apt::{self, DEBIAN_KEYRING};
use crate::tools;

/// The purpose of the requirements. Each includes the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
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

/// How to find out whether the machine has something.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// An executable in the search path.
    Program(&'static str),
    /// One of these files.
    File(&'static [&'static str]),
    /// A module of the distribution's Python, in any version.
    PythonModule(&'static str),
}

impl Sign {
    fn is_there(self) -> bool {
        match self {
            Self::Program(name) => tools::in_path(name).is_some(),
            Self::File(paths) => paths.iter().any(|path| Path::new(path).exists()),
            Self::PythonModule(name) => std::fs::read_dir("/usr/lib").is_ok_and(|entries| {
                let mut versions = entries
                    .flatten()
                    .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
                versions.any(|version| version.path().join(name).is_dir())
            }),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program(name) => name,
            Self::File(paths) => paths.first().copied().unwrap_or_default(),
            Self::PythonModule(name) => name,
        }
    }
}

/// A requirement, the package that contains it, and its purpose.
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
        "apparmor_parser",
        "apparmor",
        "compiles the AppArmor profile of containers",
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
    program(
        Purpose::Test,
        "debootstrap",
        "debootstrap",
        "makes the machines on which these steps are tested",
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
    program(
        Purpose::Test,
        "ssh",
        "openssh-client",
        "logs in to the virtual machine in tests",
    ),
    program(Purpose::Test, "ip", "iproute2", "makes networks for tests"),
    program(
        Purpose::Test,
        "nft",
        "nftables",
        "shows tests what the kernel's packet filter has",
    ),
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
        "newuidmap",
        "uidmap",
        "maps the users of ordinary users' containers in tests",
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
    Need {
        purpose: Purpose::Test,
        sign: Sign::PythonModule("ensurepip"),
        package: "python3-venv",
        reason: "unpacks clients that are written in Python",
    },
    program(
        Purpose::Test,
        "openssl",
        "openssl",
        "looks at certificates in tests",
    ),
];

/// The requirements of `purpose` that this machine has, and those that it lacks.
#[derive(Debug, Default)]
pub struct Survey {
    /// Packages to install, each with its purpose.
    pub missing: Vec<Missing>,
    /// Packages of the list whose programs and files are there.
    pub present: Vec<&'static str>,
}

/// A missing requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The distribution's package.
    pub package: &'static str,
    /// The program or file that it brings, and what that is for.
    pub reason: String,
}

/// Looks for everything that `purpose` needs.
#[must_use]
pub fn survey(purpose: Purpose) -> Survey {
    let mut survey = Survey::default();
    for need in NEEDS.iter().filter(|need| need.purpose <= purpose) {
        if need.sign.is_there() {
            survey.present.push(need.package);
        } else {
            survey.missing.push(Missing {
                package: need.package,
                reason: format!("{} {}", need.sign.name(), need.reason),
            });
        }
    }
    // Where apt knows no Debian archive, debootstrap's default is used.
    let wanted = purpose >= Purpose::Image && apt::image_sources().is_err();
    if wanted
        && !survey
            .missing
            .iter()
            .any(|need| need.package == "debootstrap")
    {
        survey.missing.push(Missing {
            package: "debootstrap",
            reason: "debootstrap knows a Debian mirror".to_owned(),
        });
    }
    survey.missing.sort_by_key(|need| need.package);
    survey
}

/// One line for each package: its name and its purpose.
#[must_use]
pub fn explain(missing: &[Missing]) -> String {
    missing
        .iter()
        .map(|need| format!("  {:<24} {}", need.package, need.reason))
        .collect::<Vec<_>>()
        .join("\n")
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
        let need = |package, reason: &str| Missing {
            package,
            reason: reason.to_owned(),
        };
        let text = explain(&[need("a-package", "x does this"), need("b", "y")]);
        assert!(text.contains("a-package") && text.contains("x does this"));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_survey_puts_each_need_on_one_side() {
        let survey = survey(Purpose::Run);
        let names = survey.missing.iter().map(|need| need.package);
        for package in names {
            assert!(!survey.present.contains(&package), "{package}");
        }
    }
}

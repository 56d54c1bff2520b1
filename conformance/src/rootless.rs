//! Runs the suite as an ordinary user, in the way that rootless engines call a runtime. The user
//! makes a user namespace with newuidmap(1) and a mount namespace, and calls the runtime as root
//! inside. The runtime has no rights outside of them and no cgroup.
//!
//! The user exists only in a mount namespace, where this run has its own /etc/passwd and similar
//! files. Everything runs in a pid namespace, whose end kills all processes that a case leaves.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::command;
use crate::elsewhere::outcome_of;
use crate::runner::Results;
use crate::runtime::{Runtime, UNIFIED};

/// Rights that an ordinary user can't have. Cases that need one do not apply to the user's runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lack {
    /// A place in the host's cgroups.
    Cgroup,
    /// The right to make device nodes and rules for them.
    Devices,
    /// The right to map the owners of a file system of the host.
    IdMappedMounts,
    /// The right to load profiles.
    Profiles,
}

impl Lack {
    /// Why the cases do not apply.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Cgroup => {
                "nobody has given the user a cgroup, so that nothing is counted, limited or frozen"
            }
            Self::Devices => {
                "only the machine's root makes device nodes and filters for them; the user's are the host's"
            }
            Self::IdMappedMounts => {
                "only who owns a file system may map its owners, and the host's are not the user's"
            }
            Self::Profiles => "only the machine's root loads profiles",
        }
    }
}

/// The cases that do not apply: the whole identifier, or its beginning up to a dot.
const LACKS: &[(Lack, &[&str])] = &[
    (
        Lack::Cgroup,
        &[
            "linux.resources.",
            "linux.cgroups-path.absolute",
            "linux.cgroups-path.made",
            "linux.cgroups-path.unset",
            "linux.cgroups-path.whole-container",
            "linux.cgroups-path.in-place-at-create",
            "linux.cgroups-path.frozen",
            "linux.cgroups-path.not-empty",
            "linux.cgroups-path.systemd-form",
            "runtime.delete.resources",
            "cli.kill.all",
            "cli.exec.paused",
            "cli.exec.ignore-paused",
            "cli.ps.table",
            "cli.ps.json",
            "cli.ps.options",
            "cli.pause.freezes",
            "cli.pause.kill",
            "cli.pause.delete-force",
            "cli.events.stats",
            "cli.events.members-in-order",
            "cli.update.null",
        ],
    ),
    (
        Lack::Devices,
        &[
            "linux.devices.listed",
            "linux.devices.outside-dev",
            "linux.devices.block",
            "linux.devices.user-namespace",
            "linux.device-rules.deny-listed",
            "linux.device-rules.allow",
            "linux.device-rules.order",
            "linux.device-rules.wildcard",
            "linux.device-rules.allow-all",
        ],
    ),
    (Lack::IdMappedMounts, &["config.mounts.id-mapped"]),
    (
        Lack::Profiles,
        &[
            "linux.apparmor.enforced",
            "linux.apparmor.no-new-privileges",
            "linux.apparmor.plain-user",
            "linux.apparmor.unknown",
            "linux.apparmor.exec",
            "linux.apparmor.exec-option",
        ],
    ),
];

/// The missing right because of which the case does not apply.
pub(crate) fn lack(case: &str) -> Option<Lack> {
    LACKS.iter().find_map(|(lack, names)| {
        let named = |name: &&str| *name == case || name.ends_with('.') && case.starts_with(*name);
        names.iter().any(named).then_some(*lack)
    })
}

/// The cases that apply to an ordinary user's runtime.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = crate::cases::all();
    all.extend(crate::cases::of_users());
    all.retain(|case| lack(case.id).is_none());
    all
}

/// The cases that do not apply, by the missing right.
pub(crate) fn left_out() -> BTreeMap<Lack, Vec<Case>> {
    let mut found = BTreeMap::<Lack, Vec<Case>>::new();
    for case in crate::cases::all() {
        if let Some(lack) = lack(case.id) {
            found.entry(lack).or_default().push(case);
        }
    }
    found
}

/// The user number for the first runtime, which is not used on the machine, and the ids that each
/// user may map. Each runtime has its own user, because the kernel counts keyrings by user.
const FIRST_USER: u32 = 54_321;
const FURTHER: &str = "700000:1000000";

/// Makes the mount namespace in which the user exists, becomes the user, and enters its user
/// namespace. `$HIDE` is a mount that the runtime can't handle.
const ENTER: &str = r#"
set -e
mount --make-rprivate /
if [ -n "$HIDE" ]; then umount "$HIDE"; fi
for file in passwd group subuid subgid; do
    [ -e /etc/$file ] || touch /etc/$file
    mount --bind "$HOME/etc/$file" /etc/$file
done
cd "$HOME"
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups \
    unshare --map-root-user --map-auto --mount "$@"
"#;

/// Runs the cases that apply as an ordinary user, with every runtime.
pub(crate) fn run(cases: &[&Case], runtimes: &[Runtime], jobs: usize) -> Result<Results> {
    can_run()?;
    // All run at the same time, because they mostly wait.
    let found: Vec<Result<Value>> = std::thread::scope(|scope| {
        let run = |(user, runtime)| scope.spawn(move || run_one(cases, runtime, user, jobs));
        let running: Vec<_> = (FIRST_USER..).zip(runtimes).map(run).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended
            .map(|result| result.unwrap_or_else(|_| Err(anyhow!("it panicked"))))
            .collect()
    });
    let mut results = Results::new();
    for (index, (runtime, found)) in runtimes.iter().zip(found).enumerate() {
        let found = found.with_context(|| format!("{} as an ordinary user", runtime.name))?;
        for case in cases {
            let outcome = outcome_of(&found, case.id, &runtime.name)
                .with_context(|| format!("no result of {}", case.id))?;
            results.insert((case.id, index), outcome);
        }
    }
    Ok(results)
}

fn run_one(cases: &[&Case], runtime: &Runtime, user: u32, jobs: usize) -> Result<Value> {
    // Sockets are below it, and their paths must be short.
    let directory = tempfile::Builder::new().prefix("user").tempdir()?;
    let home = directory.path().join("h");
    let bin = directory.path().join("bin");
    prepare(&home, user)?;
    // The user may not be able to reach files elsewhere.
    std::fs::create_dir(&bin)?;
    let program = bin.join("conformance");
    std::fs::copy(std::env::current_exe()?, &program).context("copy this program")?;
    let own = bin.join(&runtime.name);
    std::fs::copy(&runtime.path, &own).context("copy the runtime")?;
    let busybox = bin.join("busybox");
    std::fs::write(&busybox, keelson_testing::busybox::bytes()?).context("copy busybox")?;
    for path in [directory.path(), &bin, &program, &own, &busybox] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))?;
    }
    let json = home.join("results.json");
    let hide = match runtime.hides_unified {
        true => UNIFIED,
        false => "",
    };
    let mut inside = Command::new("unshare");
    inside
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", ENTER, "sh"])
        .arg(&program)
        .args(["--inside", "--subject", &runtime.name, "--runtime"])
        .arg(&own)
        .arg("--json")
        .arg(&json)
        .arg(format!("--jobs={jobs}"))
        .arg(format!("--deadline={}", command::deadline().as_secs()));
    for case in cases {
        inside.arg(format!("--filter={}", case.id));
    }
    let output = inside
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &home)
        .env("TMPDIR", home.join("tmp"))
        .env("USER", "tester")
        .env("USER_ID", user.to_string())
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("HIDE", hide)
        .env(keelson_testing::busybox::VARIABLE, &busybox)
        .output()
        .context("execute unshare")?;
    let said = || {
        let text = String::from_utf8_lossy(&output.stderr);
        format!("{}: {}", output.status, text.trim())
    };
    let text = std::fs::read(&json).with_context(said)?;
    serde_json::from_slice(&text).with_context(said)
}

/// Makes the user's directories and the files that name it.
fn prepare(home: &Path, user: u32) -> Result<()> {
    for name in ["etc", "run", "tmp"] {
        std::fs::create_dir_all(home.join(name))?;
    }
    for (file, line) in [
        (
            "passwd",
            format!("tester:x:{user}:{user}::{}:/bin/sh\n", home.display()),
        ),
        ("group", format!("tester:x:{user}:\n")),
        ("subuid", format!("tester:{FURTHER}\n")),
        ("subgid", format!("tester:{FURTHER}\n")),
    ] {
        let own = std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
        // Only the first line of a number counts.
        std::fs::write(home.join("etc").join(file), line + &own)?;
    }
    // The containers' users must be able to pass through all directories but the one for sockets.
    for (name, mode) in [("", 0o755), ("tmp", 0o755), ("run", 0o700)] {
        let path = home.join(name);
        chown(&path, Some(user), Some(user))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
    }
    Ok(())
}

/// Requires the programs that make an ordinary user's namespaces.
fn can_run() -> Result<()> {
    let directories = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    for (program, package) in [
        ("newuidmap", "uidmap"),
        ("setpriv", "util-linux"),
        ("unshare", "util-linux"),
    ] {
        ensure!(
            directories
                .iter()
                .any(|directory| directory.join(program).is_file()),
            "{program} is missing: install the package {package}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluded_cases_exist() {
        let cases = crate::cases::all();
        for (lack, names) in LACKS {
            for name in *names {
                let known = |case: &Case| case.id == *name || case.id.starts_with(name);
                assert!(cases.iter().any(known), "{lack:?}: {name}");
            }
        }
    }
}

//! `process.apparmorProfile`, on a kernel that enforces AppArmor. Needs `apparmor_parser`.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, interface, must};
use crate::command;
use crate::lab::{Lab, contains, same, skip};

const PROCESS: &str = "config.md#linux-process";

/// A profile in the kernel. It is removed at the end.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    /// Everything is allowed, except writing to one file.
    fn load(lab: &Lab) -> Result<Self> {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y'))
            || !std::path::Path::new("/sys/kernel/security/apparmor/.replace").exists()
        {
            return skip("this kernel does not enforce AppArmor");
        }
        if Command::new("apparmor_parser").arg("-V").output().is_err() {
            return skip("apparmor_parser is not installed");
        }
        let name = lab.cgroup().trim_start_matches('/').replace('/', "-");
        let text = format!(
            "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
             file,\n capability,\n network,\n mount,\n umount,\n signal,\n ptrace,\n unix,\n\
             deny /tmp/denied w,\n}}\n"
        );
        let profile = Self { name, text };
        profile.parse("--replace")?;
        Ok(profile)
    }

    fn parse(&self, action: &str) -> Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), &self.text)?;
        let mut parser = command::quiet(std::path::Path::new("apparmor_parser"));
        parser
            .args([action, "--skip-cache", "--quiet"])
            .arg(file.path());
        let done = command::run(&mut parser)?.output();
        done.map(drop)
            .with_context(|| format!("apparmor_parser {action}"))
    }

    fn ask(&self, config: &mut Value) {
        config["process"]["apparmorProfile"] = json!(self.name);
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        if let Err(error) = self.parse("--remove") {
            eprintln!("{error:#}");
        }
    }
}

/// Prints the process's profile, and tries the rule.
const LOOK: &str = "cat /proc/self/attr/current; echo a > /tmp/allowed && echo allowed; \
    (echo b > /tmp/denied) 2> /dev/null || echo denied";

fn confined(lab: &Lab, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let profile = Profile::load(lab)?;
    let all = std::fs::Permissions::from_mode(0o1777);
    std::fs::set_permissions(lab.rootfs().join("tmp"), all)?;
    let seen = lab.script(LOOK, |config| {
        profile.ask(config);
        edit(config);
    })?;
    same(
        "output",
        &seen,
        &format!("{}\nallowed\ndenied", profile.enforced()),
    )
}

pub(super) const CASES: &[Case] = &[
    must(
        "linux.apparmor.enforced",
        PROCESS,
        "The process is confined by the profile.",
        |lab| confined(lab, |_| {}),
    ),
    must(
        "linux.apparmor.no-new-privileges",
        PROCESS,
        "A profile and noNewPrivileges go together.",
        |lab| {
            confined(lab, |config| {
                config["process"]["noNewPrivileges"] = json!(true)
            })
        },
    ),
    must(
        "linux.apparmor.plain-user",
        PROCESS,
        "The process of a user without rights is confined as well.",
        |lab| {
            confined(lab, |config| {
                config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
                config["process"]["capabilities"] = json!({});
            })
        },
    ),
    must(
        "linux.apparmor.unknown",
        PROCESS,
        "A profile that is not loaded is an error.",
        |lab| {
            Profile::load(lab)?;
            let message = lab.refuses(|config| {
                config["process"]["apparmorProfile"] = json!("conformance-not-loaded");
            })?;
            contains("message", &message, "apparmor")
        },
    ),
    interface(
        "linux.apparmor.exec",
        "runc exec",
        "A further process is confined by the container's profile.",
        |lab| {
            let profile = Profile::load(lab)?;
            let container =
                lab.start("echo ready; exec sleep 1000", |config| profile.ask(config))?;
            container.says("ready")?;
            let seen = container.script(&[], LOOK)?;
            contains("output", &seen, &profile.enforced())?;
            contains("output", &seen, "denied")?;
            container.stop()
        },
    ),
    interface(
        "linux.apparmor.exec-option",
        "runc exec --apparmor",
        "A further process is confined by the profile that is asked for.",
        |lab| {
            let profile = Profile::load(lab)?;
            let container = lab.idle()?;
            let seen = container.script(&["--apparmor", &profile.name], LOOK)?;
            ensure!(seen.starts_with(&profile.enforced()), "{seen}");
            container.stop()
        },
    ),
];

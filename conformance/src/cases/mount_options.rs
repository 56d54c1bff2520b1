//! Options of mounts and the propagation of mounts.

use anyhow::{Result, ensure};
use nix::mount::MsFlags;
use serde_json::json;

use super::mounts::{OPTIONS, bind, mount_below, shown, source, tmpfs};
use crate::case::{Case, must, should};
use crate::lab::{Lab, contains, same};

const PROPAGATION: &str = "config-linux.md#rootfs-mount-propagation";

/// Requires an option of a tmpfs.
fn has(lab: &Lab, option: &str, wanted: &str) -> Result<()> {
    let mount = tmpfs(lab, &[option])?;
    ensure!(
        mount.options.iter().any(|word| word == wanted),
        "{wanted} in {:?}",
        mount.options
    );
    Ok(())
}

/// Requires that one option undoes another.
fn undoes(lab: &Lab, options: &[&str], unwanted: &str) -> Result<()> {
    let mount = tmpfs(lab, options)?;
    ensure!(
        !mount.options.iter().any(|word| word == unwanted),
        "{unwanted} in {:?}",
        mount.options
    );
    Ok(())
}

/// Makes a directory a shared mount point.
fn shared_directory(lab: &Lab) -> Result<String> {
    let directory = source(lab)?;
    nix::mount::mount(
        Some(directory.as_str()),
        directory.as_str(),
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    nix::mount::mount(
        None::<&str>,
        directory.as_str(),
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )?;
    Ok(directory)
}

fn propagation(lab: &Lab, option: &str) -> Result<String> {
    let directory = shared_directory(lab)?;
    let text = lab.script("cat /proc/self/mountinfo", |config| {
        bind(config, &directory, "/mnt", &["rbind", option]);
    })?;
    Ok(shown(&text, "/mnt")?.propagation)
}

fn root_propagation(lab: &Lab, value: &str) -> Result<String> {
    let text = lab.script("cat /proc/self/mountinfo", |config| {
        config["linux"]["rootfsPropagation"] = json!(value);
    })?;
    Ok(shown(&text, "/")?.propagation)
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.mounts.option-ro",
        OPTIONS,
        "ro makes a mount read-only.",
        |lab| has(lab, "ro", "ro"),
    ),
    must(
        "config.mounts.option-rw",
        OPTIONS,
        "rw undoes an earlier ro.",
        |lab| undoes(lab, &["ro", "rw"], "ro"),
    ),
    must(
        "config.mounts.option-nosuid",
        OPTIONS,
        "nosuid is set.",
        |lab| has(lab, "nosuid", "nosuid"),
    ),
    must(
        "config.mounts.option-suid",
        OPTIONS,
        "suid undoes nosuid.",
        |lab| undoes(lab, &["nosuid", "suid"], "nosuid"),
    ),
    must(
        "config.mounts.option-nodev",
        OPTIONS,
        "nodev is set.",
        |lab| has(lab, "nodev", "nodev"),
    ),
    must(
        "config.mounts.option-dev",
        OPTIONS,
        "dev undoes nodev.",
        |lab| undoes(lab, &["nodev", "dev"], "nodev"),
    ),
    must(
        "config.mounts.option-noexec",
        OPTIONS,
        "noexec is set.",
        |lab| has(lab, "noexec", "noexec"),
    ),
    must(
        "config.mounts.option-exec",
        OPTIONS,
        "exec undoes noexec.",
        |lab| undoes(lab, &["noexec", "exec"], "noexec"),
    ),
    must(
        "config.mounts.option-noatime",
        OPTIONS,
        "noatime is set.",
        |lab| has(lab, "noatime", "noatime"),
    ),
    must(
        "config.mounts.option-nodiratime",
        OPTIONS,
        "nodiratime is set.",
        |lab| has(lab, "nodiratime", "nodiratime"),
    ),
    must(
        "config.mounts.option-relatime",
        OPTIONS,
        "relatime is set.",
        |lab| has(lab, "relatime", "relatime"),
    ),
    must(
        "config.mounts.option-strictatime",
        OPTIONS,
        "strictatime is set: neither relatime nor noatime holds.",
        |lab| {
            let options = tmpfs(lab, &["strictatime"])?.options;
            ensure!(
                !options
                    .iter()
                    .any(|word| word == "relatime" || word == "noatime"),
                "{options:?}"
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.option-sync",
        OPTIONS,
        "sync is set.",
        |lab| {
            let mount = tmpfs(lab, &["sync"])?;
            ensure!(
                mount.data.iter().any(|word| word == "sync"),
                "{:?}",
                mount.data
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.option-dirsync",
        OPTIONS,
        "dirsync is set.",
        |lab| {
            let mount = tmpfs(lab, &["dirsync"])?;
            ensure!(
                mount.data.iter().any(|word| word == "dirsync"),
                "{:?}",
                mount.data
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.option-defaults",
        OPTIONS,
        "defaults is accepted.",
        |lab| tmpfs(lab, &["defaults"]).map(drop),
    ),
    must(
        "config.mounts.option-silent",
        OPTIONS,
        "silent and loud are accepted.",
        |lab| tmpfs(lab, &["silent", "loud"]).map(drop),
    ),
    must(
        "config.mounts.option-accepted",
        OPTIONS,
        "async, atime, diratime, norelatime and nostrictatime are accepted.",
        |lab| {
            tmpfs(
                lab,
                &["async", "atime", "diratime", "norelatime", "nostrictatime"],
            )
            .map(drop)
        },
    ),
    must(
        "config.mounts.option-lazytime",
        OPTIONS,
        "lazytime and nolazytime are accepted.",
        |lab| {
            tmpfs(lab, &["lazytime"])?;
            tmpfs(lab, &["lazytime", "nolazytime"]).map(drop)
        },
    ),
    must(
        "config.mounts.option-iversion",
        OPTIONS,
        "iversion and noiversion are accepted.",
        |lab| {
            let directory = source(lab)?;
            lab.script("true", |config| {
                bind(
                    config,
                    &directory,
                    "/mnt",
                    &["bind", "iversion", "noiversion"],
                )
            })
            .map(drop)
        },
    ),
    should(
        "config.mounts.option-nosymfollow",
        OPTIONS,
        "nosymfollow forbids to follow symbolic links.",
        |lab| has(lab, "nosymfollow", "nosymfollow"),
    ),
    must(
        "config.mounts.option-private",
        OPTIONS,
        "rprivate makes a bound directory private.",
        |lab| same("propagation", &propagation(lab, "rprivate")?, ""),
    ),
    must(
        "config.mounts.option-shared",
        OPTIONS,
        "rshared makes a bound directory share its mounts.",
        |lab| contains("propagation", &propagation(lab, "rshared")?, "shared:"),
    ),
    must(
        "config.mounts.option-slave",
        OPTIONS,
        "rslave makes a bound directory receive mounts and not send them.",
        |lab| {
            let found = propagation(lab, "rslave")?;
            ensure!(
                found.contains("master:") && !found.contains("shared:"),
                "{found}"
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.option-unbindable",
        OPTIONS,
        "runbindable makes a bound directory unbindable.",
        |lab| {
            contains(
                "propagation",
                &propagation(lab, "runbindable")?,
                "unbindable",
            )
        },
    ),
    must(
        "config.mounts.slave-receives",
        OPTIONS,
        "What the host mounts later shows in a directory bound with rslave.",
        |lab| {
            let directory = shared_directory(lab)?;
            let container = lab.start(
                "echo ready; while ! test -e /mnt/below/inner; do sleep 0.01; done; echo seen",
                |config| {
                    bind(config, &directory, "/mnt", &["rbind", "rslave"]);
                },
            )?;
            container.says("ready")?;
            mount_below(&directory)?;
            container.says("seen")
        },
    ),
    must(
        "linux.rootfs-propagation.private",
        PROPAGATION,
        "private: the root neither sends nor receives mounts.",
        |lab| same("propagation", &root_propagation(lab, "private")?, ""),
    ),
    must(
        "linux.rootfs-propagation.slave",
        PROPAGATION,
        "slave: mounts of the host show in the root, and not the other way.",
        |lab| {
            let directory = lab.bundle();
            nix::mount::mount(
                Some(&directory),
                &directory,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            nix::mount::mount(
                None::<&str>,
                &directory,
                None::<&str>,
                MsFlags::MS_SHARED,
                None::<&str>,
            )?;
            let found = root_propagation(lab, "rslave")?;
            ensure!(found.contains("master:"), "{found:?}");
            Ok(())
        },
    ),
    must(
        "linux.rootfs-propagation.shared",
        PROPAGATION,
        "shared: the root is in a peer group.",
        |lab| contains("propagation", &root_propagation(lab, "shared")?, "shared:"),
    ),
    must(
        "linux.rootfs-propagation.unbindable",
        PROPAGATION,
        "unbindable: the root cannot be bound.",
        |lab| {
            contains(
                "propagation",
                &root_propagation(lab, "unbindable")?,
                "unbindable",
            )
        },
    ),
    must(
        "linux.rootfs-propagation.invalid",
        PROPAGATION,
        "Another word is an error.",
        |lab| {
            lab.refuses(|config| config["linux"]["rootfsPropagation"] = json!("nonsense"))
                .map(drop)
        },
    ),
];

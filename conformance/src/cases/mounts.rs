//! `root` and `mounts`.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::case::{Case, interface, must, should};
use crate::lab::{Lab, contains, push, same};

const ROOT: &str = "config.md#root";
const MOUNTS: &str = "config.md#mounts";
pub(super) const OPTIONS: &str = "config.md#linux-mount-options";

/// The line of a mount point in the container's mountinfo: options, optional fields, type, and
/// options of the file system.
pub(super) struct Shown {
    pub(super) options: Vec<String>,
    pub(super) propagation: String,
    pub(super) kind: String,
    pub(super) data: Vec<String>,
}

/// Mounts a tmpfs with options, and prints its mountinfo.
pub(super) fn tmpfs(lab: &Lab, options: &[&str]) -> Result<Shown> {
    let text = lab.script("cat /proc/self/mountinfo", |config| {
        push(
            &mut config["mounts"],
            json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options}),
        );
    })?;
    shown(&text, "/mnt")
}

pub(super) fn shown(mountinfo: &str, place: &str) -> Result<Shown> {
    let line = mountinfo
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(place))
        .with_context(|| format!("{place} is not mounted: {mountinfo}"))?;
    let (left, right) = line.split_once(" - ").context("a separator")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let words = |text: Option<&&str>| {
        let text = text.copied().unwrap_or_default();
        text.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    Ok(Shown {
        options: words(left.get(5)),
        propagation: left.get(6..).unwrap_or_default().join(" "),
        kind: right.first().copied().unwrap_or_default().to_owned(),
        data: words(right.get(2)),
    })
}

/// A directory of the host with a file.
pub(super) fn source(lab: &Lab) -> Result<String> {
    let directory = lab.path("source");
    std::fs::create_dir_all(directory.join("below"))?;
    std::fs::write(directory.join("file"), "of the host")?;
    Ok(directory.to_string_lossy().into_owned())
}

pub(super) fn bind(config: &mut Value, source: &str, destination: &str, options: &[&str]) {
    push(
        &mut config["mounts"],
        json!({"destination": destination, "type": "bind", "source": source, "options": options}),
    );
}

/// A tmpfs below the source directory, so that recursion shows.
pub(super) fn mount_below(source: &str) -> Result<()> {
    nix::mount::mount(
        Some("tmpfs"),
        format!("{source}/below").as_str(),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    std::fs::write(format!("{source}/below/inner"), "below")?;
    Ok(())
}

pub(super) const CASES: &[Case] = &[
    must(
        "config.root.missing",
        ROOT,
        "The root file system's directory must exist.",
        |lab| {
            lab.refuses(|config| config["root"]["path"] = json!("nonexistent"))
                .map(drop)
        },
    ),
    must(
        "config.root.required",
        ROOT,
        "On Linux, root is required.",
        |lab| {
            lab.refuses(|config| {
                config.as_object_mut().map(|object| object.remove("root"));
            })
            .map(drop)
        },
    ),
    must(
        "config.root.folder",
        ROOT,
        "The root file system is a directory.",
        |lab| {
            std::fs::write(lab.bundle().join("plain"), "")?;
            lab.refuses(|config| config["root"]["path"] = json!("plain"))
                .map(drop)
        },
    ),
    must(
        "config.root.relative",
        ROOT,
        "A relative path is relative to the bundle.",
        |lab| {
            std::fs::rename(lab.rootfs(), lab.bundle().join("other"))?;
            lab.script("true", |config| config["root"]["path"] = json!("./other"))
                .map(drop)
        },
    ),
    must(
        "config.root.absolute",
        ROOT,
        "The path may be absolute and outside the bundle.",
        |lab| {
            let directory = lab.path("elsewhere");
            std::fs::rename(lab.rootfs(), &directory)?;
            lab.script("true", |config| config["root"]["path"] = json!(directory))
                .map(drop)
        },
    ),
    must(
        "config.root.readonly",
        ROOT,
        "With readonly, nothing in the root file system can be written.",
        |lab| {
            let text = lab.script(
                "touch /x /etc/x /bin/x 2>&1 | grep -c 'Read-only file system'",
                |config| {
                    config["root"]["readonly"] = json!(true);
                },
            )?;
            same("refusals", &text, "3")
        },
    ),
    must(
        "config.root.readonly-not-mounts",
        ROOT,
        "With readonly, mounts above the root stay writable.",
        |lab| {
            lab.script("touch /dev/shm/x && touch /mnt/x", |config| {
                config["root"]["readonly"] = json!(true);
                std::fs::create_dir(lab.rootfs().join("mnt")).ok();
                push(
                    &mut config["mounts"],
                    json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}),
                );
            })
            .map(drop)
        },
    ),
    must(
        "config.root.writable",
        ROOT,
        "By default the root file system is writable.",
        |lab| {
            lab.script("echo kept > /x", |_| {})?;
            same(
                "file",
                &std::fs::read_to_string(lab.rootfs().join("x"))?,
                "kept\n",
            )
        },
    ),
    must(
        "config.root.jailed",
        ROOT,
        "Nothing of the host is reached through the root directory's parent.",
        |lab| {
            std::fs::write(lab.bundle().join("secret"), "")?;
            let text = lab.script("ls /.. /../../..; cat /../secret || echo none", |_| {})?;
            contains("output", &text, "none")
        },
    ),
    must(
        "config.root.old-root-gone",
        ROOT,
        "The host's root is not among the container's mounts.",
        |lab| {
            let text = lab.script("cut -d' ' -f5 /proc/self/mountinfo", |_| {})?;
            let unknown: Vec<&str> = text
                .lines()
                .filter(|place| {
                    *place != "/"
                        && !["/proc", "/dev", "/sys"]
                            .iter()
                            .any(|known| place.starts_with(known))
                })
                .collect();
            ensure!(unknown.is_empty(), "{unknown:?}");
            Ok(())
        },
    ),
    must(
        "config.mounts.order",
        MOUNTS,
        "Mounts are made in the listed order: a later one covers an earlier.",
        |lab| {
            let directory = source(lab)?;
            let text = lab.script("cat /mnt/file; ls /mnt/in | wc -l", |config| {
                push(
                    &mut config["mounts"],
                    json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs"}),
                );
                bind(config, &directory, "/mnt", &["bind"]);
                push(
                    &mut config["mounts"],
                    json!({"destination": "/mnt/in", "type": "tmpfs", "source": "tmpfs"}),
                );
            })?;
            same("output", &text, "of the host0")
        },
    ),
    must(
        "config.mounts.destination-made",
        MOUNTS,
        "A destination that is missing is made.",
        |lab| {
            let text = lab.script("cat /proc/self/mountinfo", |config| {
                push(
                    &mut config["mounts"],
                    json!({"destination": "/a/b/c", "type": "tmpfs", "source": "tmpfs"}),
                );
            })?;
            same("type", &shown(&text, "/a/b/c")?.kind, "tmpfs")
        },
    ),
    must(
        "config.mounts.bind-folder",
        OPTIONS,
        "A directory of the host is bound.",
        |lab| {
            let directory = source(lab)?;
            let text = lab.script("cat /mnt/file; echo new > /mnt/made", |config| {
                bind(config, &directory, "/mnt", &["bind"])
            })?;
            same("file", &text, "of the host")?;
            same(
                "made",
                &std::fs::read_to_string(format!("{directory}/made"))?,
                "new\n",
            )
        },
    ),
    must(
        "config.mounts.bind-file",
        OPTIONS,
        "A file of the host is bound, also where there is none.",
        |lab| {
            let directory = source(lab)?;
            let text = lab.script("cat /etc/given /etc/passwd", |config| {
                bind(
                    config,
                    &format!("{directory}/file"),
                    "/etc/given",
                    &["bind"],
                );
                bind(
                    config,
                    &format!("{directory}/file"),
                    "/etc/passwd",
                    &["bind"],
                );
            })?;
            same("files", &text, "of the hostof the host")
        },
    ),
    must(
        "config.mounts.bind-not-recursive",
        OPTIONS,
        "bind leaves out what is mounted below the source.",
        |lab| {
            let directory = source(lab)?;
            mount_below(&directory)?;
            let text = lab.script("ls /mnt/below | wc -l", |config| {
                bind(config, &directory, "/mnt", &["bind"])
            })?;
            same("files", &text, "0")
        },
    ),
    must(
        "config.mounts.bind-recursive",
        OPTIONS,
        "rbind brings what is mounted below the source.",
        |lab| {
            let directory = source(lab)?;
            mount_below(&directory)?;
            let text = lab.script("cat /mnt/below/inner", |config| {
                bind(config, &directory, "/mnt", &["rbind"])
            })?;
            same("file", &text, "below")
        },
    ),
    must(
        "config.mounts.bind-readonly",
        OPTIONS,
        "A bound directory with ro cannot be written.",
        |lab| {
            let directory = source(lab)?;
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["touch", "/mnt/x"]);
                bind(config, &directory, "/mnt", &["bind", "ro"]);
            })?;
            contains("message", &ended.failure()?, "Read-only file system")
        },
    ),
    should(
        "config.mounts.recursive-readonly",
        OPTIONS,
        "rro makes also what is mounted below read-only.",
        |lab| {
            let directory = source(lab)?;
            mount_below(&directory)?;
            let ended = lab.run(|config| {
                config["process"]["args"] = json!(["touch", "/mnt/below/x"]);
                bind(config, &directory, "/mnt", &["rbind", "rro"]);
            })?;
            contains("message", &ended.failure()?, "Read-only file system")
        },
    ),
    must(
        "config.mounts.readonly-not-recursive",
        OPTIONS,
        "ro leaves what is mounted below as it was.",
        |lab| {
            let directory = source(lab)?;
            mount_below(&directory)?;
            lab.script("touch /mnt/below/x && ! touch /mnt/x", |config| {
                bind(config, &directory, "/mnt", &["rbind", "ro"])
            })
            .map(drop)
        },
    ),
    must(
        "config.mounts.source-missing",
        MOUNTS,
        "A source that does not exist is an error.",
        |lab| {
            lab.refuses(|config| bind(config, "/no/such/source", "/mnt", &["bind"]))
                .map(drop)
        },
    ),
    must(
        "config.mounts.unknown-type",
        MOUNTS,
        "A type of file system that the kernel does not have is an error.",
        |lab| {
            lab.refuses(|config| {
                push(
                    &mut config["mounts"],
                    json!({"destination": "/mnt", "type": "nonsensefs", "source": "x"}),
                );
            })
            .map(drop)
        },
    ),
    must(
        "config.mounts.option-wrong",
        MOUNTS,
        "An option that the file system refuses is an error.",
        |lab| {
            lab.refuses(|config| {
            push(&mut config["mounts"], json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]}));
        })
        .map(drop)
        },
    ),
    must(
        "config.mounts.data",
        MOUNTS,
        "Options of the file system reach it.",
        |lab| {
            let mount = tmpfs(lab, &["size=1024k", "mode=711", "nr_inodes=77"])?;
            for wanted in ["size=1024k", "mode=711", "nr_inodes=77"] {
                ensure!(
                    mount.data.iter().any(|word| word == wanted),
                    "{wanted} in {:?}",
                    mount.data
                );
            }
            Ok(())
        },
    ),
    must(
        "config.mounts.proc",
        "config-linux.md#default-filesystems",
        "proc is that of the container's PID namespace.",
        |lab| {
            let text = lab.script("tr '\\0' '\\n' < /proc/1/environ; true", |config| {
                push(
                    &mut config["process"]["env"],
                    json!("MARK=of the container"),
                );
            })?;
            contains("environment of process 1", &text, "MARK=of the container")
        },
    ),
    must(
        "config.mounts.devpts",
        "config-linux.md#default-filesystems",
        "devpts is an instance of its own.",
        |lab| {
            let text = lab.script("ls /dev/pts; stat -c %a /dev/pts/ptmx", |_| {})?;
            same("contents", &text, "ptmx\n666")
        },
    ),
    must(
        "config.mounts.shm",
        "config-linux.md#default-filesystems",
        "/dev/shm is a tmpfs with the size and mode given.",
        |lab| {
            let text = lab.script(
                "stat -c %a /dev/shm; grep ' /dev/shm ' /proc/self/mounts",
                |_| {},
            )?;
            ensure!(
                text.starts_with("1777") && text.contains("size=65536k"),
                "{text}"
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.sysfs",
        "config-linux.md#default-filesystems",
        "sysfs shows the container's network devices.",
        |lab| same("devices", &lab.script("ls /sys/class/net", |_| {})?, "lo"),
    ),
    must(
        "config.mounts.mqueue",
        MOUNTS,
        "mqueue can be mounted.",
        |lab| {
            let text = lab.script("cat /proc/self/mountinfo", |config| {
            push(&mut config["mounts"], json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]}));
        })?;
            same("type", &shown(&text, "/dev/mqueue")?.kind, "mqueue")
        },
    ),
    must(
        "config.mounts.cgroup",
        MOUNTS,
        "The type cgroup mounts the machine's cgroups; with ro, no process can be moved.",
        |lab| {
            let text = lab.script(
                "find /sys/fs/cgroup -name cgroup.procs | while read f; do (echo $$ > $f) 2>&1; done; true",
                |config| {
                    push(
                        &mut config["mounts"],
                        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
                    );
                },
            )?;
            ensure!(!text.is_empty(), "no file cgroup.procs");
            // Cgroups of other containers may disappear during the search.
            for line in text.lines().filter(|line| !line.contains("nonexistent")) {
                contains("writing", line, "Read-only file system")?;
            }
            Ok(())
        },
    ),
    interface(
        "config.mounts.tmpcopyup",
        OPTIONS,
        "tmpcopyup fills a tmpfs with what it covers.",
        |lab| {
            std::fs::create_dir(lab.rootfs().join("filled"))?;
            std::fs::write(lab.rootfs().join("filled/file"), "copied")?;
            let text = lab.script("cat /filled/file; touch /filled/new", |config| {
            push(&mut config["mounts"], json!({"destination": "/filled", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
        })?;
            same("file", &text, "copied")?;
            ensure!(!lab.rootfs().join("filled/new").exists(), "it is no tmpfs");
            Ok(())
        },
    ),
    must(
        "config.mounts.id-mapped",
        "config.md#mounts",
        "uidMappings and gidMappings of a bind mount map its owners.",
        |lab| {
            let directory = source(lab)?;
            let mapping = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
            let text = lab.script("stat -c %u:%g /mnt/file", |config| {
            push(&mut config["mounts"], json!({"destination": "/mnt", "type": "bind", "source": directory, "options": ["bind"], "uidMappings": mapping, "gidMappings": mapping}));
        })?;
            same("owner", &text, "5000:5000")
        },
    ),
    must(
        "config.mounts.link-stays-inside",
        MOUNTS,
        "A destination that is a symbolic link to an absolute path stays in the container.",
        |lab| {
            let outside = lab.path("outside");
            std::fs::create_dir(&outside)?;
            symlink(&outside, lab.rootfs().join("link"))?;
            let directory = source(lab)?;
            // To refuse it would be correct as well.
            let _ = lab.script("cat /link/file", |config| {
                bind(config, &directory, "/link/made", &["bind"])
            });
            ensure!(
                std::fs::read_dir(&outside)?.next().is_none(),
                "something was made on the host"
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.dots-stay-inside",
        MOUNTS,
        "A destination with .. stays in the container.",
        |lab| {
            let directory = source(lab)?;
            let _ = lab.script("true", |config| {
                bind(config, &directory, "/../../escaped", &["bind"])
            });
            ensure!(
                !lab.bundle().join("escaped").exists() && !lab.path("escaped").exists(),
                "made outside"
            );
            Ok(())
        },
    ),
    must(
        "config.mounts.proc-not-a-link",
        MOUNTS,
        "proc is not mounted through a symbolic link of the image (CVE-2019-19921).",
        |lab| {
            let proc = lab.rootfs().join("proc");
            std::fs::remove_dir(&proc)?;
            std::fs::create_dir(lab.rootfs().join("evil"))?;
            symlink("/evil", &proc)?;
            match lab.run(|config| {
            config["process"]["args"] = json!(["sh", "-c", "cat /proc/sys/kernel/hostname; echo changed > /proc/sys/kernel/hostname; hostname"]);
            config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        })?
        .output()
        {
            // Refused.
            Err(_) => Ok(()),
            Ok(text) => {
                ensure!(!text.contains("changed"), "readonlyPaths were not applied: {text}");
                Ok(())
            }
        }
        },
    ),
];

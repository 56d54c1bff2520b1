//! The clients of the Docker Engine API that tests drive beside the docker command line, and the
//! servers that the machine is a client of. They are
//! fetched once, each into a directory of its own; nothing is installed on the machine.
//!
//! Their versions are pinned: Debian's by its release, those in Python and for Node.js by the files
//! in `image-build/clients`, which hold a hash of each package. Node.js itself comes as a Python
//! package, which is one file where the distribution's npm is hundreds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, FORMER_RELEASE, IMAGE_RELEASE};
use crate::progress::{self, Step};
use crate::stamp::{Inputs, Stamp};
use crate::workspace::Workspace;

/// Raise it when the code makes a different installation from the same files.
const PROCEDURE: u32 = 1;

/// Clients of one kind.
struct Client {
    /// Its directory's name, which tests know (`hostd/daemon/tests/common/clients.rs`).
    name: &'static str,
    /// The files of a complete installation.
    program: &'static str,
    source: Source,
}

/// Where a client comes from.
enum Source {
    /// Packages of a Debian release, which are only unpacked. What every machine has is not among them.
    Debian {
        release: &'static str,
        packages: &'static [&'static str],
    },
    /// Python packages in an environment of their own. Each file of requirements is installed
    /// after those before it, which may be needed to build it.
    Python(&'static [&'static str]),
    /// Node.js packages, installed by the npm of the Python environment named `by`.
    Node {
        lock: &'static str,
        by: &'static str,
    },
}

const CLIENTS: [Client; 7] = [
    Client {
        name: "docker-former",
        program: "usr/bin/docker",
        source: Source::Debian {
            release: FORMER_RELEASE,
            packages: &["docker.io"],
        },
    },
    Client {
        name: "docker",
        program: "usr/bin/docker",
        source: Source::Debian {
            release: IMAGE_RELEASE,
            packages: &["docker-cli"],
        },
    },
    Client {
        name: "compose",
        program: "usr/libexec/docker/cli-plugins/docker-compose",
        source: Source::Debian {
            release: IMAGE_RELEASE,
            packages: &["docker-compose"],
        },
    },
    Client {
        name: "compose-former",
        program: "bin/docker-compose",
        source: Source::Python(&["compose-v1-build.txt", "compose-v1.txt"]),
    },
    Client {
        name: "python",
        program: "bin/node",
        source: Source::Python(&["python.txt"]),
    },
    Client {
        name: "node",
        program: "node_modules/dockerode/package.json",
        source: Source::Node {
            lock: "node",
            by: "python",
        },
    },
    // A server that logs are forwarded to.
    Client {
        name: "rsyslog",
        program: "usr/sbin/rsyslogd",
        source: Source::Debian {
            release: FORMER_RELEASE,
            packages: &[
                "rsyslog",
                "rsyslog-openssl",
                "libestr0",
                "libfastjson4",
                "libsystemd0",
                "libuuid1",
            ],
        },
    },
];

/// The directory of the clients.
#[must_use]
pub fn directory(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("clients")
}

/// Fetches missing clients, and returns whether all exist afterwards. Clients that can't be
/// fetched, for example without the network, are named. Tests that need them are skipped then,
/// which continuous integration does not accept.
pub fn fetch(workspace: &Workspace) -> bool {
    let mut complete = true;
    for client in CLIENTS {
        if let Err(error) = fetch_one(workspace, &client) {
            progress::say(&format!(
                "   ! the client {} can't be fetched, so its tests are skipped: {error:#}",
                client.name
            ));
            complete = false;
        }
    }
    complete
}

fn fetch_one(workspace: &Workspace, client: &Client) -> Result<()> {
    let destination = directory(workspace).join(client.name);
    let stamps = directory(workspace).join("stamps");
    let stamp = Stamp::new(&stamps, client.name, inputs(workspace, client)?);
    if stamp.is_current(&[&destination.join(client.program)]) {
        return Ok(());
    }
    stamp.clear()?;
    match fs::remove_dir_all(&destination) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", destination.display()));
        }
        _ => {}
    }
    let mut step = Step::begin(format!("client {}", client.name));
    match &client.source {
        Source::Debian { release, packages } => apt::fetch_and_unpack_of(
            release,
            &mut step,
            packages,
            &workspace.tools().join(format!("apt-{release}")),
            &destination,
            &workspace.log(),
        )?,
        Source::Python(requirements) => {
            python(workspace, &mut step, &destination, requirements)?;
        }
        Source::Node { lock, by } => {
            let by = directory(workspace).join(by);
            node(workspace, &mut step, &destination, lock, &by)?;
        }
    }
    let program = destination.join(client.program);
    if !program.exists() {
        anyhow::bail!("it brought no {}", program.display());
    }
    stamp.set()?;
    step.done(&format!("fetched to {}", workspace.display(&destination)));
    Ok(())
}

/// The directory of the files that pin versions.
fn pins(workspace: &Workspace) -> PathBuf {
    workspace.root().join("image-build/clients")
}

fn inputs(workspace: &Workspace, client: &Client) -> Result<Inputs> {
    let mut inputs = Inputs::new(client.name, PROCEDURE);
    match &client.source {
        Source::Debian { release, packages } => {
            inputs.text(release);
            packages.iter().for_each(|package| inputs.text(package));
        }
        Source::Python(requirements) => {
            // An environment works with the Python that made it only.
            let python = fs::canonicalize(PYTHON).with_context(|| format!("find {PYTHON}"))?;
            inputs.text(&python.to_string_lossy());
            for file in *requirements {
                inputs.path(&pins(workspace).join(file))?;
            }
        }
        Source::Node { lock, .. } => inputs.path(&pins(workspace).join(lock))?,
    }
    Ok(inputs)
}

/// The distribution's Python, not that of a version manager in `PATH`.
const PYTHON: &str = "/usr/bin/python3";

fn python(
    workspace: &Workspace,
    step: &mut Step,
    destination: &Path,
    requirements: &[&str],
) -> Result<()> {
    let name = destination.file_name().unwrap_or_default();
    let log = progress::log_file(
        &workspace.log(),
        &format!("fetch-{}", name.to_string_lossy()),
    );
    let mut environment = Command::new(PYTHON);
    environment.args(["-m", "venv"]).arg(destination);
    progress::run(step, &mut environment, &log)?;
    for file in requirements {
        let mut install = Command::new(destination.join("bin/python"));
        install
            .args(["-m", "pip", "install", "--quiet", "--no-cache-dir"])
            .args(["--disable-pip-version-check", "--no-input"])
            // Versions and hashes are those of the file, for packages to build with, too.
            .args(["--require-hashes", "--no-deps", "--no-build-isolation"])
            .arg("--requirement")
            .arg(pins(workspace).join(file));
        progress::run(step, &mut install, &log)?;
    }
    Ok(())
}

fn node(
    workspace: &Workspace,
    step: &mut Step,
    destination: &Path,
    lock: &str,
    by: &Path,
) -> Result<()> {
    let log = progress::log_file(&workspace.log(), "fetch-node");
    fs::create_dir_all(destination).with_context(|| format!("create {}", destination.display()))?;
    for file in ["package.json", "package-lock.json"] {
        let from = pins(workspace).join(lock).join(file);
        fs::copy(&from, destination.join(file))
            .with_context(|| format!("copy {}", from.display()))?;
    }
    let cache = tempfile::tempdir_in(destination).context("make a cache for npm")?;
    let mut install = Command::new(by.join("bin/npm"));
    install
        .args(["ci", "--ignore-scripts", "--omit=optional"])
        .args(["--no-audit", "--no-fund", "--no-update-notifier", "--cache"])
        .arg(cache.path())
        .current_dir(destination);
    progress::run(step, &mut install, &log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_pinned_by_a_hash() {
        let workspace = Workspace::locate().unwrap();
        for client in CLIENTS {
            let Source::Python(files) = client.source else {
                continue;
            };
            for file in files {
                let text = fs::read_to_string(pins(&workspace).join(file)).unwrap();
                let count = |part: &str| text.matches(part).count();
                assert!(
                    count("==") > 0 && count("--hash=sha256:") >= count("=="),
                    "{file}"
                );
                assert!(!text.contains("://"), "{file}");
            }
        }
        let lock = pins(&workspace).join("node/package-lock.json");
        let lock: serde_json::Value = serde_json::from_slice(&fs::read(lock).unwrap()).unwrap();
        for (name, package) in lock["packages"].as_object().unwrap() {
            assert!(
                name.is_empty() || package["integrity"].is_string(),
                "{name}"
            );
            assert!(package["resolved"].is_null(), "{name}");
        }
    }

    #[test]
    fn an_environment_is_made_before_what_it_installs() {
        for (at, client) in CLIENTS.iter().enumerate() {
            if let Source::Node { by, .. } = client.source {
                assert!(CLIENTS[..at].iter().any(|earlier| earlier.name == by));
            }
        }
    }
}

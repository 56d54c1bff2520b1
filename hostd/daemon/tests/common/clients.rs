//! Clients of the API beside the docker command of this machine: fetched by `cargo xtask`, which
//! names their directory in `KEELSON_CLIENTS` (default: `target/tools/clients`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Done, Host, run};

/// A file of a client; the test is skipped when it was not fetched.
#[track_caller]
pub fn file(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("KEELSON_CLIENTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/clients"),
        PathBuf::from,
    );
    let path = directory.join(name);
    if !path.exists() {
        let detail = format!("no {}: run `cargo xtask setup`", path.display());
        keelson_testing::skip(&format!("client {name}"), detail);
        return None;
    }
    Some(path)
}

/// A command with nothing in its environment but what leads it to this host, and in the host's
/// network namespace if it has one.
pub fn command(host: &Host, program: &Path) -> Command {
    let mut command = match host.own_net() {
        Some(net) => net.command(program),
        None => Command::new(program),
    };
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", host.path())
        .env("TMPDIR", host.path())
        .env("DOCKER_HOST", host.url());
    command
}

/// Runs a script of `tests/clients` with an interpreter.
#[track_caller]
pub fn script(mut interpreter: Command, name: &str, arguments: &[&str]) -> Done {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    interpreter.arg(scripts.join(name)).args(arguments);
    run(&mut interpreter, b"")
}

/// A Compose project in a directory of its own.
pub struct Project<'a> {
    host: &'a Host,
    program: PathBuf,
    /// Compose is a plugin of the docker command, not a program of its own.
    plugin: bool,
    directory: PathBuf,
}

impl<'a> Project<'a> {
    /// A project of `docker compose`.
    #[track_caller]
    pub fn new(host: &'a Host) -> Option<Self> {
        let plugin = file("compose/usr/libexec/docker/cli-plugins/docker-compose")?;
        let program = file("docker/usr/bin/docker")?;
        let plugins = host.path().join(".docker/cli-plugins");
        fs::create_dir_all(&plugins).unwrap();
        std::os::unix::fs::symlink(plugin, plugins.join("docker-compose")).unwrap();
        Some(Self::at(host, program, true))
    }

    /// A project of `docker-compose` 1.
    #[track_caller]
    pub fn former(host: &'a Host) -> Option<Self> {
        Some(Self::at(
            host,
            file("compose-former/bin/docker-compose")?,
            false,
        ))
    }

    fn at(host: &'a Host, program: PathBuf, plugin: bool) -> Self {
        let directory = host.path().join("project");
        fs::create_dir_all(&directory).unwrap();
        Self {
            host,
            program,
            plugin,
            directory,
        }
    }

    /// Writes a file beside the project's.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).unwrap();
    }

    /// Runs Compose in the project's directory.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Done {
        let mut command = command(self.host, &self.program);
        if self.plugin {
            command.arg("compose");
        } else {
            // It replaces no container by the image's document of a newer version, in which Docker
            // has left out a member.
            command.env("COMPOSE_API_VERSION", "1.44");
        }
        command.args(arguments).current_dir(&self.directory);
        run(&mut command, b"")
    }
}

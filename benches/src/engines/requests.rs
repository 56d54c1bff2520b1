//! Requests to engines by their command line clients.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Dialect, Engine};
use crate::{tools, usage};

/// A request to an engine. Names are those of images and containers.
#[derive(Debug, Clone)]
pub enum Request<'a> {
    /// Fetches an image.
    Pull(&'a str),
    /// Brings an image to its registry.
    Push(&'a str),
    /// Writes an image to a file.
    Save(&'a str, &'a Path),
    /// Reads images from a file.
    Load(&'a Path),
    /// Adds a name to an image.
    Tag(&'a str, &'a str),
    /// Removes an image.
    RemoveImage(&'a str),
    /// Runs a script in a container that stays.
    Run(&'a str, &'a str, &'a str),
    /// What a container has changed.
    Diff(&'a str),
    /// Makes an image of a container.
    Commit(&'a str, &'a str),
    /// Writes a container's files to a file.
    Export(&'a str, &'a Path),
    /// Removes a container.
    RemoveContainer(&'a str),
}

impl Engine {
    /// Whether it takes part in an operation: containerd's client is for pulls only.
    pub fn knows(&self, request: &Request<'_>) -> bool {
        self.dialect != Dialect::Containerd || matches!(request, Request::Pull(_))
    }

    /// Why it can't pull layers in zstd, if it can't.
    pub fn refuses_zstd(&self) -> Option<&'static str> {
        self.is_old().then_some("has no zstd before version 23")
    }

    /// Docker before version 23.
    fn is_old(&self) -> bool {
        let mut ask = self.client_command();
        ask.args(["version", "--format", "{{.Server.Version}}"]);
        let version = tools::version(&mut ask);
        let major = version.split('.').next().and_then(|word| word.parse().ok());
        self.name == "docker" && major.is_some_and(|major: u32| major < 23)
    }

    fn client_command(&self) -> Command {
        let mut words = self.client.iter();
        let mut command = Command::new(words.next().cloned().unwrap_or_default());
        command.args(words).env("TMPDIR", &self.directory);
        command
    }

    /// The client's command for a request.
    fn command(&self, request: &Request<'_>) -> Command {
        let mut command = self.client_command();
        let podman = self.dialect == Dialect::Podman;
        let registry: &[&str] = if podman { &["--tls-verify=false"] } else { &[] };
        if self.dialect == Dialect::Containerd {
            match request {
                Request::Pull(image) => command.args(["images", "pull", "--plain-http", image]),
                Request::RemoveImage(image) => command.args(["images", "rm", "--sync", image]),
                _ => &mut command,
            };
            return command;
        }
        match request {
            Request::Pull(image) => command.args(["pull", "-q"]).args(registry).arg(image),
            Request::Push(image) => command.args(["push", "-q"]).args(registry).arg(image),
            Request::Save(image, file) => command.args(["save", "-o"]).arg(file).arg(image),
            Request::Load(file) => command.args(["load", "-q", "-i"]).arg(file),
            Request::Tag(image, name) => command.args(["tag", image, name]),
            Request::RemoveImage(image) => command.args(["rmi", "-f", image]),
            Request::Run(name, image, script) => {
                command.args(["run", "--network=none", "--name", name]);
                if podman {
                    // It asks for more open files than a limited root may have.
                    command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]);
                }
                command.args([image, "/bin/busybox", "sh", "-c", script])
            }
            Request::Diff(name) => command.args(["diff", name]),
            Request::Commit(name, image) => {
                // Docker's says no more than the identifier anyway.
                let quiet: &[&str] = if podman { &["-q"] } else { &[] };
                command.arg("commit").args(quiet).args([name, image])
            }
            Request::Export(name, file) => command.args(["export", "-o"]).arg(file).arg(name),
            Request::RemoveContainer(name) => command.args(["rm", "-f", name]),
        };
        command
    }

    /// Carries out a request without measuring it.
    ///
    /// # Errors
    /// It can't be done.
    pub fn request(&self, request: &Request<'_>) -> Result<()> {
        self.measure(request).map(drop)
    }

    /// Carries out a request, and ignores failures, such as removing a missing object.
    pub fn try_request(&self, request: &Request<'_>) {
        let mut command = self.command(request);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(command) = self.group.contain(&mut command) {
            let _ = command.status();
        }
    }

    /// Carries out a request. Processor time is that of client, daemon and their children. Peak
    /// memory is the daemon's or, without a daemon, the client's.
    ///
    /// # Errors
    /// It can't be done.
    pub fn measure(&self, request: &Request<'_>) -> Result<usage::Cost> {
        let errors = self.directory.with_extension("errors");
        let mut command = self.command(request);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?);
        let daemon = self.pid().filter(|_| self.dialect != Dialect::Podman);
        if let Some(daemon) = daemon {
            fs::write(format!("/proc/{daemon}/clear_refs"), "5")?;
        }
        let before = self.group.processor_time()?;
        let (mut cost, code) = usage::run_any(self.group.contain(&mut command)?)?;
        let used = self.group.processor_time()?.since(before);
        if code != 0 {
            let errors = fs::read_to_string(&errors).unwrap_or_default();
            bail!("{request:?}: {}", errors.trim());
        }
        (cost.user, cost.system) = (used.user, used.system);
        if let Some(daemon) = daemon {
            cost.peak_memory = peak_memory(daemon)?;
        }
        Ok(cost)
    }
}

/// Most memory that a process held since its `clear_refs` was written to, in bytes.
fn peak_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("a process has no VmHWM")?;
    let number: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(number * 1024)
}

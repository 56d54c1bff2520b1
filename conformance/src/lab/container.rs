//! A container that a case has created.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Lab, same};
use crate::command::{self, Ended, eventually};

/// A container. It is deleted with its lab.
#[derive(Debug)]
pub(crate) struct Container<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) id: String,
}

impl Container<'_> {
    /// Calls a command of the runtime whose last argument is the container.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Ended> {
        let mut all = arguments.to_vec();
        all.push(&self.id);
        self.lab.call(&all)
    }

    pub(crate) fn start(&self) -> Result<()> {
        self.call(&["start"])?.output().context("start")?;
        Ok(())
    }

    /// The output of `state`.
    pub(crate) fn state(&self) -> Result<Value> {
        let text = self.call(&["state"])?.output().context("state")?;
        serde_json::from_str(&text).with_context(|| format!("state is no JSON: {text:?}"))
    }

    pub(crate) fn status(&self) -> Result<String> {
        let state = self.state()?;
        Ok(state["status"]
            .as_str()
            .with_context(|| format!("no status in {state}"))?
            .to_owned())
    }

    /// Requires a status.
    pub(crate) fn is(&self, status: &str) -> Result<()> {
        same("status", &self.status()?, status)
    }

    /// Waits for a status.
    pub(crate) fn becomes(&self, status: &str) -> Result<()> {
        eventually(&format!("status {status}"), || Ok(self.status()? == status))
    }

    /// The process number of the container's process on the host.
    pub(crate) fn pid(&self) -> Result<i32> {
        let state = self.state()?;
        let pid = state["pid"].as_i64().unwrap_or_default();
        ensure!(pid > 1, "pid in {state}");
        self.lab.witness();
        Ok(i32::try_from(pid)?)
    }

    /// A file of the container's process in the host's /proc.
    pub(crate) fn proc(&self, name: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/{name}", self.pid()?)))
    }

    /// The target of a namespace link of the container's process.
    pub(crate) fn namespace(&self, name: &str) -> Result<String> {
        let link = std::fs::read_link(self.proc(&format!("ns/{name}"))?)?;
        Ok(link.to_string_lossy().into_owned())
    }

    pub(crate) fn kill(&self, signal: &str) -> Result<()> {
        self.lab
            .call(&["kill", &self.id, signal])?
            .output()
            .with_context(|| format!("kill {signal}"))?;
        Ok(())
    }

    /// Kills the container and waits until it has stopped.
    pub(crate) fn stop(&self) -> Result<()> {
        self.kill("KILL")?;
        self.becomes("stopped")
    }

    pub(crate) fn delete(&self) -> Result<()> {
        self.call(&["delete"])?.output().context("delete")?;
        Ok(())
    }

    /// Executes an additional process. Options come before the container.
    pub(crate) fn exec(&self, options: &[&str], process: &[&str]) -> Result<Ended> {
        let mut all = vec!["exec"];
        all.extend(options);
        all.push(&self.id);
        all.extend(process);
        self.lab.call(&all)
    }

    /// Executes a shell script in the container, and returns its output.
    pub(crate) fn script(&self, options: &[&str], script: &str) -> Result<String> {
        self.exec(options, &["sh", "-c", script])?.output()
    }

    /// The output of the container's process.
    pub(crate) fn output(&self) -> Result<String> {
        let path = self.lab.path(&format!("{}.out", self.id));
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if !text.is_empty() {
            self.lab.witness();
        }
        Ok(text)
    }

    /// Waits until the container's process has written a text.
    pub(crate) fn says(&self, text: &str) -> Result<()> {
        eventually(&format!("output {text:?}"), || {
            Ok(self.output()?.contains(text))
        })
    }

    /// Waits for the end of the container's process, and returns its output.
    pub(crate) fn ends(&self) -> Result<String> {
        self.becomes("stopped")?;
        self.output()
    }

    /// Calls a command that needs other standard streams than [`Lab::call`]'s.
    pub(crate) fn with(
        &self,
        arguments: &[&str],
        set: impl FnOnce(&mut std::process::Command),
    ) -> Result<Ended> {
        let mut command = self.lab.command(arguments)?;
        set(&mut command);
        command::run(&mut command)
    }
}

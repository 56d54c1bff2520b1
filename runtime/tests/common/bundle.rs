//! The command line as callers use it, with a bundle for each test.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::RUNTIME;

/// A bundle and a place for state.
pub struct Bundle {
    pub directory: tempfile::TempDir,
    pub id: String,
}

impl Bundle {
    pub fn new(args: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().file_name().unwrap().to_string_lossy();
        let id = format!("cli-{}", name.trim_start_matches('.'));
        super::make_root(&directory.path().join("rootfs"));
        let mut config = super::config(args, &super::cgroup_path(&id));
        change(&mut config);
        std::fs::write(
            directory.path().join("config.json"),
            serde_json::to_vec(&config).unwrap(),
        )
        .unwrap();
        Self { directory, id }
    }

    /// Changes its configuration.
    pub fn change(&mut self, change: impl FnOnce(&mut Value)) {
        let path = self.directory.path().join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&*RUNTIME);
        command
            .arg("--root")
            .arg(self.directory.path().join("state"))
            .args(arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        message_of(&output.stderr)
    }

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.ok(&["state", &self.id])).unwrap();
        assert_eq!(state["id"], self.id.as_str());
        state["status"].as_str().unwrap().to_owned()
    }

    /// `create` with output to a file: a pipe would stay open as long as the container.
    pub fn create(&self, options: &[&str]) {
        let out = std::fs::File::create(self.directory.path().join("out")).unwrap();
        let mut arguments = vec!["create"];
        arguments.extend(options);
        arguments.push(&self.id);
        let status = self.command(&arguments).stdout(out).status().unwrap();
        assert!(status.success());
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("out")).unwrap()
    }

    pub fn assert_gone(&self) {
        assert!(self.fails(&["state", &self.id]).contains("does not exist"));
        let cgroup = super::cgroup_of(&self.id);
        assert!(!cgroup.exists());
        let state = self.directory.path().join("state");
        assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "--force", &self.id]);
    }
}

/// The messages of the log's lines, without their other members.
pub fn message_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(|line| {
        let quoted = line.split_once(" msg=").map(|(_, quoted)| quoted);
        let plain = quoted.and_then(|quoted| serde_json::from_str(quoted).ok());
        plain.unwrap_or_else(|| line.to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

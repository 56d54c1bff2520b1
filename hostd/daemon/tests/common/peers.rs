//! Other engines and tools, each on directories of its own: dockerd, podman, skopeo.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Done, run, wait_until};

fn directory(name: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(name)
        .tempdir_in("/var/tmp")
        .unwrap()
}

/// Runs skopeo; a loopback registry needs no TLS.
#[track_caller]
pub fn skopeo(args: &[&str]) -> Done {
    run(
        Command::new("skopeo").arg("--insecure-policy").args(args),
        b"",
    )
}

/// A dockerd that can load and save.
pub struct Dockerd {
    dir: TempDir,
    child: Child,
}

impl Dockerd {
    pub fn start() -> Self {
        let dir = directory("keelson-dockerd-");
        let path = |name: &str| dir.path().join(name);
        let log = File::create(path("log")).unwrap();
        let child = Command::new("dockerd")
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .args(["--storage-driver=vfs"])
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .arg("--pidfile")
            .arg(path("pid"))
            .arg(format!("--host=unix://{}", path("sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("no dockerd: install the package docker.io");
        let mut dockerd = Self { dir, child };
        wait_until("dockerd answers", || {
            let ended = dockerd.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", dockerd.log());
            dockerd.docker(&["version"]).code == 0
        });
        dockerd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub fn docker(&self, args: &[&str]) -> Done {
        let socket = self.dir.path().join("sock");
        let mut command = Command::new("docker");
        command
            .args(args)
            .env("HOME", self.dir.path())
            .env("DOCKER_HOST", format!("unix://{}", socket.display()));
        run(&mut command, b"")
    }

    /// The identifier of an image.
    pub fn id(&self, name: &str) -> String {
        self.docker(&["image", "inspect", "-f", "{{.Id}}", name])
            .ok()
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Podman with a store of its own.
pub struct Podman {
    dir: TempDir,
}

impl Podman {
    pub fn new() -> Self {
        let dir = directory("keelson-podman-");
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(dir.path().join("policy.json"), policy).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Done {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.path("root"))
            .arg("--runroot")
            .arg(self.path("run"))
            .arg("--tmpdir")
            .arg(self.path("tmp"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
            .arg("--runtime=runc")
            .args(args)
            .env("HOME", self.dir.path());
        run(&mut command, b"")
    }

    /// `--signature-policy` for commands that take one.
    pub fn policy(&self) -> String {
        format!("--signature-policy={}", self.path("policy.json").display())
    }

    /// The identifier of an image, as Docker writes it.
    pub fn id(&self, name: &str) -> String {
        let id = self.run(&["image", "inspect", "-f", "{{.Id}}", name]).ok();
        format!("sha256:{id}")
    }
}

/// The digest of a manifest in a directory that skopeo wrote (`dir:`).
pub fn manifest_digest(dir: &Path) -> String {
    use sha2::{Digest, Sha256};
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    format!("sha256:{}", hex::encode(Sha256::digest(&manifest)))
}

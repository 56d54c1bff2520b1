//! Other container engines, called with our runtime: clients, daemons and an image.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{DEADLINE, eventually};

/// The path of a program, if it is installed. Reports the skip if not.
pub fn installed(name: &str) -> Option<PathBuf> {
    let found = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        keelson_testing::skip(name, "it is not installed");
    }
    found
}

/// A script that exits with 5 when its standard streams are the container's first terminal. It
/// prints nothing: with any runtime, output that a container prints just before its end is
/// sometimes lost on the way to the client's terminal.
pub const IN_TERMINAL: &str =
    "test -t 0 && test -t 1 && test \"$(tty)\" = /dev/pts/0 && exit 5; exit 1";

/// A client that is always called with the same first arguments.
pub struct Client {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Client {
    pub fn new(program: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments
                .iter()
                .map(|argument| argument.as_ref().to_owned())
                .collect(),
            environment: Vec::new(),
        }
    }

    /// Sets a variable for the client.
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// A call that is killed if it takes too long.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(DEADLINE.as_secs().to_string())
            .arg(&self.program)
            .args(&self.arguments)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs the client to its end.
    pub fn call(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the client, which must succeed, and returns its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs the client, which must exit with a code, and returns its output.
    pub fn exits(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.call(arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs the client in a terminal of its own, and returns the terminal's output and the exit
    /// code.
    pub fn in_terminal(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let client = std::iter::once(self.program.as_os_str())
            .chain(self.arguments.iter().map(OsString::as_os_str));
        let words: Vec<String> = client
            .chain(arguments.iter().map(OsStr::new))
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
            .collect();
        // The time is limited outside the terminal: in it, `timeout` would move the client to a
        // background process group, which is stopped when it changes the terminal's settings.
        let output = Command::new("timeout")
            .args(["--kill-after=5", &DEADLINE.as_secs().to_string(), "script"])
            .args(["--quiet", "--return", "--command"])
            .arg(format!("exec {}", words.join(" ")))
            .arg("/dev/null")
            .env("SHELL", "/bin/sh")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (shown, output.status.code())
    }

    /// Waits until a call's output contains a text.
    pub fn says(&self, text: &str, arguments: &[&str]) {
        eventually(text, || {
            let output = self.call(arguments);
            String::from_utf8_lossy(&output.stdout).contains(text)
        });
    }
}

/// A daemon in a directory of its own. It is ended, and its traces removed, at the end.
pub struct Daemon {
    child: Child,
    pub directory: tempfile::TempDir,
    /// The cgroup of its containers, as the path in every hierarchy.
    cgroup: String,
}

impl Daemon {
    /// Starts a daemon; its output goes to `log` in the directory.
    pub fn start(directory: tempfile::TempDir, cgroup: &str, mut command: Command) -> Self {
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            directory,
            cgroup: cgroup.to_owned(),
        }
    }

    /// Waits until a client can talk to it.
    pub fn answers(&mut self, client: &Client, arguments: &[&str]) {
        let log = self.directory.path().join("log");
        let start = Instant::now();
        while !client.call(arguments).status.success() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < DEADLINE,
                "{ended:?}: {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < DEADLINE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        unmount_below(self.directory.path());
        remove_cgroup(&self.cgroup);
    }
}

/// Unmounts what an engine left mounted in its directories.
pub fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for place in mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(4))
    {
        if Path::new(place).starts_with(directory) {
            let _ = nix::mount::umount2(place, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Removes the empty directories that engines left of a cgroup, in all hierarchies.
pub fn remove_cgroup(path: &str) {
    fn remove(directory: &Path) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                remove(&entry.path());
            } else {
                // A file can be removed only where Podman wrongly assumed that a hierarchy is
                // mounted.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let _ = std::fs::remove_dir(directory);
    }
    let root = Path::new("/sys/fs/cgroup");
    remove(&root.join(path.trim_start_matches('/')));
    for hierarchy in std::fs::read_dir(root).into_iter().flatten().flatten() {
        remove(&hierarchy.path().join(path.trim_start_matches('/')));
    }
}

/// A name that no other test on this machine uses now.
pub fn unique(directory: &tempfile::TempDir) -> String {
    let name = directory.path().file_name().unwrap().to_string_lossy();
    format!("keelson-test-{}", name.trim_start_matches('.'))
}

/// An archive of a directory's contents.
pub fn archive(contents: &Path, file: &Path) {
    let status = Command::new("tar")
        .arg("--create")
        .arg("--file")
        .arg(file)
        .arg("--directory")
        .arg(contents)
        .arg(".")
        .status()
        .unwrap();
    assert!(status.success());
}

/// An archive of an OCI image with one layer, a root file system with busybox.
pub fn image(directory: &Path, name: &str) -> PathBuf {
    let (rootfs, layout) = (directory.join("image-root"), directory.join("image"));
    super::make_root(&rootfs);
    let blobs = layout.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    archive(&rootfs, &directory.join("layer.tar"));
    let layer = std::fs::read(directory.join("layer.tar")).unwrap();
    let store = |kind: &str, bytes: &[u8]| {
        let digest = hex::encode(Sha256::digest(bytes));
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        })
    };
    let layer = store("layer.v1.tar", &layer);
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = store("config.v1+json", config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest = store("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let file = directory.join("image.tar");
    archive(&layout, &file);
    file
}

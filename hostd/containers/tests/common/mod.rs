//! A machine in a temporary directory: image store, engine and a busybox image.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by test binaries that each use a part"
)]

pub mod options;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use hostd_containers::{
    AttachOptions, Attached, CreateRequest, Engine, LogQuery, Scope, WaitCondition, WaitResult,
};
use hostd_images::{ImageStore, ImportOptions};
use keelson_model::spec::{CapabilitySet, ContainerSpec, RootSpec};

pub const SCOPE: Scope = Scope::User;
/// Longest time that anything here may take. The machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Whether the test can run. Reports the skip if not.
pub fn is_root() -> bool {
    keelson_testing::is_root()
}

/// The directories of a machine. Everything that runs in them is ended with it.
pub struct Machine {
    directory: tempfile::TempDir,
    /// Identifier of the image `box`.
    image: String,
}

thread_local! {
    /// Identifier of the image of the machine that lives on this thread.
    static IMAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Machine {
    /// With an image `box` whose shell is busybox.
    pub fn new() -> Self {
        let mut machine = Self {
            directory: tempfile::tempdir().unwrap(),
            image: String::new(),
        };
        machine.image = machine.life(async |engine, images| {
            drop(engine);
            let options = ImportOptions {
                reference: Some("box".to_owned()),
                changes: vec![
                    "CMD [\"sh\"]".to_owned(),
                    "ENV FROM=image".to_owned(),
                    "VOLUME /absent".to_owned(),
                ],
                ..ImportOptions::default()
            };
            images.import(&*busybox_tar(), options).await.unwrap();
            images.resolve("box").unwrap().id.to_string()
        });
        machine
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The life of one hostd, which ends as if by SIGKILL: its tasks just stop.
    pub fn life<T>(&self, work: impl AsyncFnOnce(Engine, ImageStore) -> T) -> T {
        let image = self.image.clone();
        IMAGE.set(image.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start(move || IMAGE.set(image.clone()))
            .enable_all()
            .build()
            .unwrap();
        let result = runtime.block_on(async {
            let images = ImageStore::open(&self.root().join("engine"), &self.run()).unwrap();
            let engine = self.open(&images).await;
            work(engine, images).await
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
        result
    }

    async fn open(&self, images: &ImageStore) -> Engine {
        Engine::open(options::engine_in(self.directory.path(), images))
            .await
            .unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.life(async |engine, images| {
            for snapshot in engine.list(SCOPE) {
                let _ = engine.remove(SCOPE, &snapshot.id, true, true).await;
            }
            engine.shutdown().await;
            images.shutdown();
        });
    }
}

/// A root file system with busybox, as a tar archive.
fn busybox_tar() -> Vec<u8> {
    static TAR: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let mut cached = TAR.lock().unwrap();
    if cached.is_empty() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            header.set_mtime(1_700_000_000);
            if link.is_empty() {
                tar.append_data(&mut header, path, data).unwrap();
            } else {
                tar.append_link(&mut header, path, link).unwrap();
            }
        };
        use tar::EntryType::{Directory, Regular, Symlink};
        for directory in ["bin", "etc", "tmp", "data", "proc", "sys", "dev"] {
            header(directory, Directory, 0o755, &[], "");
        }
        let busybox = keelson_testing::busybox::bytes().unwrap();
        header("bin/busybox", Regular, 0o755, &busybox, "");
        for applet in [
            "sh", "echo", "cat", "sleep", "id", "env", "pwd", "ls", "true", "false", "touch",
            "mount", "hostname", "stat", "head", "seq", "stty", "kill", "mkdir", "grep",
        ] {
            header(&format!("bin/{applet}"), Symlink, 0o777, &[], "busybox");
        }
        header(
            "etc/passwd",
            Regular,
            0o644,
            b"root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:\n",
            "",
        );
        header(
            "etc/group",
            Regular,
            0o644,
            b"root:x:0:\nwww:x:34:\nlog:x:7:web\n",
            "",
        );
        header("etc/plain", Regular, 0o644, b"not a program\n", "");
        header("data/kept", Regular, 0o644, b"from the image\n", "");
        *cached = tar.into_inner().unwrap();
    }
    cached.clone()
}

/// The usual restrictions of a container.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A request for `sh -c script` without a network, on this thread's machine.
pub fn shell(script: &str) -> CreateRequest {
    let root = RootSpec::Image {
        id: IMAGE.with_borrow(Clone::clone),
        name: "box".to_owned(),
        read_only: false,
    };
    let mut spec = ContainerSpec::new(root, "sh");
    spec.process.args = vec!["-c".to_owned(), script.to_owned()];
    spec.process.env = vec!["FROM=image".to_owned()];
    spec.anonymous_volumes = vec!["/absent".into()];
    spec.security.capabilities = CapabilitySet::Only(USUAL.map(str::to_owned).into());
    spec.security.no_new_privileges = false;
    CreateRequest::new(spec)
}

/// A request for a command without arguments.
pub fn command(command: &str) -> CreateRequest {
    let mut request = shell("");
    command.clone_into(&mut request.spec.process.command);
    request.spec.process.args.clear();
    request
}

/// The results of a run.
pub struct Ran {
    pub id: String,
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub async fn create(engine: &Engine, request: CreateRequest) -> String {
    engine.create(SCOPE, None, request).await.unwrap().id
}

/// Creates, attaches, starts and waits.
pub async fn run(engine: &Engine, request: CreateRequest) -> Ran {
    let id = create(engine, request).await;
    start_and_collect(engine, id).await
}

pub async fn start_and_collect(engine: &Engine, id: String) -> Ran {
    let attached = engine.attach(SCOPE, &id, outputs()).await.unwrap();
    let ended = engine
        .wait(SCOPE, &id, WaitCondition::NextExit)
        .await
        .unwrap();
    engine.start(SCOPE, &id).await.unwrap();
    let (out, err) = collect(attached).await;
    let code = within(ended).await.exit_code;
    Ran { id, code, out, err }
}

pub fn outputs() -> AttachOptions {
    AttachOptions {
        stdout: true,
        stderr: true,
        stream: true,
        ..AttachOptions::default()
    }
}

/// All output until the end of the stream.
pub async fn collect(mut attached: Attached) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(frame) = within(attached.output.recv()).await {
        if frame.stream == 1 {
            &mut out
        } else {
            &mut err
        }
        .extend_from_slice(&frame.bytes);
    }
    (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

pub async fn log_text(engine: &Engine, id: &str, query: LogQuery) -> String {
    let mut logs = engine.logs(SCOPE, id, query).await.unwrap();
    let mut text = Vec::new();
    while let Some(batch) = within(logs.records.recv()).await {
        for frame in batch.unwrap().frames() {
            text.extend_from_slice(&frame.bytes);
        }
    }
    String::from_utf8(text).unwrap()
}

pub fn whole_log() -> LogQuery {
    LogQuery {
        stdout: true,
        stderr: true,
        ..LogQuery::default()
    }
}

/// Waits for something that must happen.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

/// The end of the container, now or later.
pub async fn end_of(engine: &Engine, id: &str) -> WaitResult {
    within(
        engine
            .wait(SCOPE, id, WaitCondition::NotRunning)
            .await
            .unwrap(),
    )
    .await
}

/// Waits until the container has said something that contains `text`.
pub async fn until_logged(engine: &Engine, id: &str, text: &str) {
    let query = LogQuery {
        follow: true,
        ..whole_log()
    };
    let mut logs = engine.logs(SCOPE, id, query).await.unwrap();
    let mut seen = String::new();
    while !seen.contains(text) {
        let batch = within(logs.records.recv()).await.expect("more output");
        for frame in batch.unwrap().frames() {
            seen.push_str(std::str::from_utf8(&frame.bytes).unwrap());
        }
    }
}

/// Sends a signal to the parent of a container's first process, its shim.
pub fn signal_parent(pid: i32, signal: rustix::process::Signal) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let parent = after_name.split_whitespace().nth(1).unwrap();
    let parent = rustix::process::Pid::from_raw(parent.parse().unwrap()).unwrap();
    rustix::process::kill_process(parent, signal).unwrap();
}

/// The processes whose command line contains a text.
pub fn processes_with(text: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .count()
}

pub fn exists(path: impl AsRef<Path>) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

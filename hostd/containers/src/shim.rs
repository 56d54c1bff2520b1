//! The client's side of the protocol between hostd and shims ([`keelson_model::shim`]).

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keelson_model::shim::{self, Exit, FailReason, Hello, MAX_FRAME, Request, Response};
use keelson_sys::{mount_attr, spawn};
use rustix::process::WaitOptions;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use crate::EngineError;

/// How long a shim may take to make a container. Generous: a machine may be busy or emulated.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a shim may take to end its container.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a shim may take to answer anything but a wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The program of shims, and where they run.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// A read-only copy of its mount, where it lies on a writable one: executed otherwise, it would
    /// have to make one and execute itself again.
    protected: Option<OwnedFd>,
    /// The folder of the cgroup of all shims, so that they are not stopped together with this
    /// process; made when it does not exist.
    cgroup: Option<PathBuf>,
    environment: Vec<CString>,
    collector: Collector,
}

impl Program {
    /// As it is now: what is put in its place later is for another hostd. Within a tokio runtime.
    pub(crate) fn new(path: PathBuf, cgroup: Option<PathBuf>) -> Self {
        let protected = match mount_attr::is_readonly(&path) {
            Ok(true) => None,
            _ => mount_attr::readonly_copy(&path)
                .inspect_err(|error| {
                    tracing::debug!(path = %path.display(), %error, "no read-only copy");
                })
                .ok(),
        };
        let environment = std::env::vars_os().filter_map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            CString::new(entry.into_encoded_bytes()).ok()
        });
        Self {
            path,
            protected,
            cgroup,
            environment: environment.collect(),
            collector: Collector::start(),
        }
    }

    /// Executes it with arguments, output and standard error.
    fn execute(
        &self,
        arguments: &[&OsStr],
        output: BorrowedFd<'_>,
        errors: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
        let mut words = vec![string(self.path.as_os_str())?];
        for argument in arguments {
            words.push(string(argument)?);
        }
        let path = match &self.protected {
            Some(file) => string(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())?,
            None => string(self.path.as_os_str())?,
        };
        let null = File::open("/dev/null")?;
        let cgroup = self.cgroup.as_deref().map(open_cgroup).transpose()?;
        let (pid, _) = spawn::spawn(&spawn::Program {
            path: &path,
            arguments: &words,
            environment: &self.environment,
            streams: [null.as_fd(), output, errors],
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
        })?;
        self.collector.add(pid);
        Ok(())
    }
}

fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path)?;
            File::open(path).map(OwnedFd::from)
        }
        other => other.map(OwnedFd::from),
    }
}

/// Collects shims that have ended. They may also outlive this process.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<BTreeSet<i32>>>);

impl Collector {
    /// Collects in the background whenever a child of this process's has ended.
    fn start() -> Self {
        let collector = Self::default();
        let background = collector.clone();
        tokio::spawn(async move {
            let mut ended = match signal(SignalKind::child()) {
                Ok(ended) => ended,
                Err(error) => return tracing::error!(%error, "shims are not collected"),
            };
            while ended.recv().await.is_some() {
                background.collect();
            }
        });
        collector
    }

    fn add(&self, pid: i32) {
        self.with(|children| children.insert(pid));
        // It may have ended before it was known.
        self.collect();
    }

    fn collect(&self) {
        self.with(|children| {
            children.retain(|pid| {
                let child = rustix::process::Pid::from_raw(*pid);
                // An error means that it is no child.
                matches!(
                    rustix::process::waitpid(child, WaitOptions::NOHANG),
                    Ok(None)
                )
            });
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The shim of one container, by its directory.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    id: String,
    dir: PathBuf,
}

impl Shim {
    pub(crate) fn new(id: &str, dir: &Path) -> Self {
        Self {
            id: id.to_owned(),
            dir: dir.to_owned(),
        }
    }

    fn error(&self, operation: &'static str, reason: impl ToString) -> EngineError {
        EngineError::Shim {
            id: self.id.clone(),
            operation,
            reason: reason.to_string(),
        }
    }

    /// Starts the shim and waits until it made the container.
    pub(crate) async fn spawn(&self, program: &Program) -> Result<(), EngineError> {
        let (receiver, sender) = io::pipe().map_err(|error| self.error("pipe", error))?;
        let errors = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.dir.join("shim.err"))
            .map_err(|error| self.error("open shim.err", error))?;
        // The ready descriptor is passed as standard output: then no descriptor has to lose its
        // close-on-exec flag, which would leak it into processes started at the same time.
        let arguments = [
            OsStr::new("shim"),
            OsStr::new("--stay"),
            OsStr::new("--ready-fd"),
            OsStr::new("1"),
            OsStr::new("--dir"),
            self.dir.as_os_str(),
        ];
        program
            .execute(&arguments, sender.as_fd(), errors.as_fd())
            .map_err(|error| {
                self.error("start shim", format!("{}: {error}", program.path.display()))
            })?;
        drop(sender);
        let hello = tokio::time::timeout(CREATE_TIMEOUT, self.hello(receiver)).await;
        match hello {
            Ok(Ok(Hello::Created { .. })) => Ok(()),
            Ok(Ok(Hello::Failed { message, reason })) => Err(start_failed(message, reason)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.error("start shim", "no answer in time")),
        }
    }

    /// Kills the container and waits for the shim's end; a shim that does not run is no error.
    pub(crate) async fn end(&self) {
        let Ok(mut wait) = self.connect().await else {
            return;
        };
        let kill = Request::Kill {
            signal: crate::Signal::KILL.number(),
            all: true,
        };
        let ending = async {
            wait.send(&Request::Wait { exec: None }).await?;
            // Fails when it is ending already.
            let killed = self.command("kill", &kill).await;
            wait.receive().await.and(killed)
        };
        match tokio::time::timeout(END_TIMEOUT, ending).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(id = self.id, %error, "shim ended by itself"),
            Err(_) => tracing::warn!(id = self.id, "shim does not end"),
        }
    }

    async fn hello(&self, receiver: io::PipeReader) -> Result<Hello, EngineError> {
        let receiver = pipe::Receiver::from_owned_fd(receiver.into())
            .map_err(|error| self.error("read ready pipe", error))?;
        let mut line = Vec::new();
        BufReader::new(receiver.take(u64::from(MAX_FRAME)))
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| self.error("read ready pipe", error))?;
        if line.is_empty() {
            let errors = std::fs::read_to_string(self.dir.join("shim.err")).unwrap_or_default();
            let reason = format!("ended without an answer: {}", errors.trim());
            return Err(self.error("start shim", reason));
        }
        serde_json::from_slice(&line).map_err(|error| self.error("read ready pipe", error))
    }

    /// Connects. The socket's path may be longer than an address can be, so it is reached
    /// through a descriptor of its folder.
    pub(crate) async fn connect(&self) -> Result<Connection, EngineError> {
        self.try_connect()
            .await
            .map_err(|error| self.error("connect", error))
    }

    /// Like [`Shim::connect`]; `None` when there is no shim any more.
    pub(crate) async fn connect_if_alive(&self) -> Result<Option<Connection>, EngineError> {
        match self.try_connect().await {
            Ok(connection) => Ok(Some(connection)),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.error("connect", error)),
        }
    }

    async fn try_connect(&self) -> io::Result<Connection> {
        let socket = async {
            let folder = File::options()
                .read(true)
                .custom_flags(rustix::fs::OFlags::PATH.bits().cast_signed())
                .open(&self.dir)?;
            let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), shim::SOCKET_FILE);
            UnixStream::connect(path).await
        };
        Ok(Connection {
            shim: self.clone(),
            stream: socket.await?,
        })
    }

    /// One request on a connection of its own.
    pub(crate) async fn request(&self, request: &Request) -> Result<Response, EngineError> {
        self.connect().await?.request(request).await
    }

    /// A request that is answered by [`Response::Done`].
    pub(crate) async fn command(
        &self,
        operation: &'static str,
        request: &Request,
    ) -> Result<(), EngineError> {
        match self.request(request).await? {
            Response::Done => Ok(()),
            Response::Failed { message, .. } => Err(self.error(operation, message)),
            other => Err(self.error(operation, format!("unexpected answer {other:?}"))),
        }
    }

    /// The record that the shim left when it ended; `None` when it left none.
    pub(crate) fn exit_record(&self) -> Result<Option<Exit>, EngineError> {
        let path = self.dir.join(shim::EXIT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| self.error("read exit record", error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::io("read", &path)(error)),
        }
    }
}

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    shim: Shim,
    stream: UnixStream,
}

impl Connection {
    /// Sends a request without reading its answer.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), EngineError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| self.shim.error("encode request", error))?;
        let length = u32::try_from(body.len())
            .ok()
            .filter(|length| *length <= MAX_FRAME)
            .ok_or_else(|| {
                self.shim
                    .error("encode request", "the request is too large")
            })?;
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend_from_slice(&body);
        self.stream
            .write_all(&frame)
            .await
            .map_err(|error| self.shim.error("send request", error))
    }

    /// Reads an answer, however long it takes. `None`: the shim has closed the connection.
    pub(crate) async fn receive(&mut self) -> Result<Option<Response>, EngineError> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length).await {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(self.shim.error("read answer", error)),
        }
        let length = u32::from_le_bytes(length);
        if length > MAX_FRAME {
            return Err(self
                .shim
                .error("read answer", format!("frame of {length} bytes")));
        }
        let mut body = vec![0; length as usize];
        self.stream
            .read_exact(&mut body)
            .await
            .map_err(|error| self.shim.error("read answer", error))?;
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| self.shim.error("read answer", error))
    }

    /// A request and its answer, within a time.
    pub(crate) async fn request(&mut self, request: &Request) -> Result<Response, EngineError> {
        let exchange = async {
            self.send(request).await?;
            self.receive().await
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(self.shim.error("read answer", "the connection was closed")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.shim.error("read answer", "no answer in time")),
        }
    }

    /// A request whose answer depends on the container: it may be frozen meanwhile.
    pub(crate) async fn request_unhurried(
        &mut self,
        request: &Request,
    ) -> Result<Response, EngineError> {
        self.send(request).await?;
        self.receive()
            .await?
            .ok_or_else(|| self.shim.error("read answer", "the connection was closed"))
    }

    /// Lets the container's command be executed.
    pub(crate) async fn start(&mut self) -> Result<i32, EngineError> {
        match self.request(&Request::Start).await? {
            Response::Started { pid } => Ok(pid),
            Response::Failed { message, reason } => Err(start_failed(message, reason)),
            other => Err(self
                .shim
                .error("start", format!("unexpected answer {other:?}"))),
        }
    }

    /// Turns the connection into the container's streams.
    pub(crate) async fn attach(mut self, request: &Request) -> Result<UnixStream, EngineError> {
        match self.request(request).await? {
            Response::Done => Ok(self.stream),
            Response::Failed { message, .. } => Err(self.shim.error("attach", message)),
            other => Err(self
                .shim
                .error("attach", format!("unexpected answer {other:?}"))),
        }
    }
}

/// Why something was not executed, also where only the words tell: a working directory that is not
/// there, or that this user may not enter, for one. As Docker judges it.
pub(crate) fn judge(message: &str, reason: FailReason) -> FailReason {
    let lower = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match reason {
        FailReason::Internal if has(&["permission denied", "is a directory"]) => {
            FailReason::NotExecutable
        }
        FailReason::Internal
            if has(&[
                "executable file not found",
                "no such file or directory",
                "not a directory",
            ]) =>
        {
            FailReason::NotFound
        }
        reason => reason,
    }
}

/// The exit code of a command that was not executed.
pub(crate) const fn exit_code(reason: FailReason) -> i32 {
    match reason {
        FailReason::NotFound => 127,
        FailReason::NotExecutable => 126,
        FailReason::Internal => 128,
    }
}

/// The words by which the docker command line chooses its exit code 126 or 127.
fn start_failed(message: String, reason: FailReason) -> EngineError {
    let reason = judge(&message, reason);
    let lower = message.to_ascii_lowercase();
    let hint = match reason {
        FailReason::NotFound
            if !lower.contains("executable file not found")
                && !lower.contains("no such file or directory")
                && !lower.contains("not a directory") =>
        {
            ": no such file or directory"
        }
        FailReason::NotExecutable
            if !["permission denied", "a directory", "exec format error"]
                .iter()
                .any(|said| lower.contains(said)) =>
        {
            ": permission denied"
        }
        // What was tried is a mount of one kind of file over the other.
        FailReason::NotFound if lower.contains("not a directory") && lower.contains("mount") => {
            ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
        }
        _ => "",
    };
    EngineError::Start {
        message: format!("{message}{hint}"),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_said_of_a_failed_start_is_so() {
        let said = |message: &str, reason| match start_failed(message.to_owned(), reason) {
            EngineError::Start { message, reason } => (message, exit_code(reason)),
            other => panic!("{other}"),
        };
        for as_it_is in [
            "exec: \"/x\": exec format error",
            "exec: \"/x\": permission denied",
            "exec: \"/x\": is a directory: permission denied",
            "chdir to \"/etc/passwd\": Not a directory",
        ] {
            let expected = (as_it_is.to_owned(), 126);
            assert_eq!(said(as_it_is, FailReason::NotExecutable), expected);
        }
        // The command line knows no other words for its exit code 126.
        let (message, code) = said("exec: \"/x\": text file busy", FailReason::NotExecutable);
        assert_eq!(
            (message.as_str(), code),
            ("exec: \"/x\": text file busy: permission denied", 126)
        );
        let (message, code) = said("exec: \"x\": missing", FailReason::NotFound);
        assert_eq!(
            (message.as_str(), code),
            ("exec: \"x\": missing: no such file or directory", 127)
        );
    }

    #[tokio::test]
    async fn a_socket_below_a_long_path_is_reached() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("d".repeat(120));
        std::fs::create_dir(&dir).unwrap();
        let short = base.path().join("s");
        std::os::unix::fs::symlink(&dir, &short).unwrap();
        let listener = UnixListener::bind(short.join(shim::SOCKET_FILE)).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).await.unwrap();
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            stream.read_exact(&mut body).await.unwrap();
            let request: Request = serde_json::from_slice(&body).unwrap();
            let answer = br#"{"result":"done"}"#;
            stream
                .write_all(&(answer.len() as u32).to_le_bytes())
                .await
                .unwrap();
            stream.write_all(answer).await.unwrap();
            request
        });
        let shim = Shim::new("x", &dir);
        shim.command("pause", &Request::Pause).await.unwrap();
        assert_eq!(server.await.unwrap(), Request::Pause);
        // The listener is gone now.
        assert!(shim.command("pause", &Request::Pause).await.is_err());
        assert!(shim.connect_if_alive().await.unwrap().is_none());
        assert_eq!(shim.exit_record().unwrap(), None);
        std::fs::write(dir.join(shim::EXIT_FILE), "{").unwrap();
        assert!(shim.exit_record().is_err(), "unreadable is not absent");
    }

    #[tokio::test]
    async fn oversized_and_garbled_answers_are_errors() {
        for answer in [&u32::MAX.to_le_bytes()[..], b"\x02\0\0\0{}", b"\x05\0\0\0{"] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(answer).await.unwrap();
            drop(far);
            let mut connection = Connection {
                shim: Shim::new("x", Path::new("/nonexistent")),
                stream: near,
            };
            assert!(connection.receive().await.is_err(), "{answer:?}");
        }
    }

    #[test]
    fn messages_carry_the_words_that_clients_match() {
        let error = start_failed("exec \"x\"".to_owned(), FailReason::NotFound);
        assert!(error.to_string().contains("no such file or directory"));
        for (text, code) in [
            ("chdir to \"/missing\": No such file or directory", 127),
            ("chdir to \"/root\": Permission denied", 126),
            ("mount /a: Not a directory", 127),
            ("clone: out of memory", 128),
        ] {
            assert_eq!(exit_code(judge(text, FailReason::Internal)), code, "{text}");
        }
        let error = start_failed("mount /a: Not a directory".to_owned(), FailReason::Internal);
        assert!(error.to_string().contains("vice-versa"));
        let text = "exec: \"x\": executable file not found in $PATH".to_owned();
        let error = start_failed(text.clone(), FailReason::NotFound);
        assert!(error.to_string().ends_with(&text));
    }
}

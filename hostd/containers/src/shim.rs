//! The client's side of the protocol between hostd and shims ([`keelson_shim_protocol`]).

mod connection;
mod failure;
mod program;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_shim_protocol::{EXIT_FILE, Exit, Hello, MAX_FRAME, Request, Response, SOCKET_FILE};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

pub(crate) use connection::Connection;
pub(crate) use program::Program;

use crate::EngineError;
use failure::start_failed;

/// How long a shim may take to create a container. The limit is generous because a machine may be
/// busy or emulated.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a shim may take to end its container.
const END_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// The container's identifier.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn error(&self, operation: &'static str, reason: impl ToString) -> EngineError {
        EngineError::Shim {
            id: self.id.clone(),
            operation,
            reason: reason.to_string(),
        }
    }

    /// Starts the shim and waits until it has created the container. Returns the container's first
    /// process.
    pub(crate) async fn spawn(&self, program: &Program) -> Result<i32, EngineError> {
        let (receiver, sender) = io::pipe().map_err(|error| self.error("pipe", error))?;
        let errors = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.dir.join("shim.err"))
            .map_err(|error| self.error("open shim.err", error))?;
        // The ready descriptor is passed as standard output. So no descriptor loses its
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
                self.error(
                    "start shim",
                    format!("{}: {error}", program.path().display()),
                )
            })?;
        drop(sender);
        let hello = tokio::time::timeout(CREATE_TIMEOUT, self.hello(receiver)).await;
        match hello {
            Ok(Ok(Hello::Created { pid, .. })) => Ok(pid),
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
            // This fails if it is already ending.
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
    /// through a descriptor of its directory.
    pub(crate) async fn connect(&self) -> Result<Connection, EngineError> {
        self.try_connect()
            .await
            .map_err(|error| self.error("connect", error))
    }

    /// Like [`Shim::connect`]; `None` if the shim is gone.
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
            let directory = File::options()
                .read(true)
                .custom_flags(rustix::fs::OFlags::PATH.bits().cast_signed())
                .open(&self.dir)?;
            let path = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), SOCKET_FILE);
            UnixStream::connect(path).await
        };
        Ok(Connection::new(self.clone(), socket.await?))
    }

    /// One request on a separate connection.
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

    /// The record that the shim left at its end; `None` if there is none.
    pub(crate) fn exit_record(&self) -> Result<Option<Exit>, EngineError> {
        let path = self.dir.join(EXIT_FILE);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| self.error("read exit record", error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(EngineError::io("read", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_below_a_long_path_is_reached() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("d".repeat(120));
        std::fs::create_dir(&dir).unwrap();
        let short = base.path().join("s");
        std::os::unix::fs::symlink(&dir, &short).unwrap();
        let listener = UnixListener::bind(short.join(SOCKET_FILE)).unwrap();
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
        std::fs::write(dir.join(EXIT_FILE), "{").unwrap();
        assert!(shim.exit_record().is_err(), "unreadable is not absent");
    }
}

//! A cycle by our shim, as hostd does it (protocol: `keelson_shim_protocol`).

use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use keelson_shim_protocol::{
    Decoder, EXIT_FILE, Hello, LogFiles, Request, Response, Rootfs, SOCKET_FILE, SPEC_FILE,
    ShimSpec, encode,
};

use super::Outcome;
use crate::usage;

const LOG: &str = "log";
const LOG_INDEX: &str = "log.idx";

/// A shim whose container waits for its start.
#[derive(Debug)]
pub struct Shim {
    /// The shim's process.
    pub pid: i32,
    socket: UnixStream,
    waiting: UnixStream,
}

/// Writes the other files that a shim needs into the bundle's directory.
///
/// # Errors
/// The directory can't be written.
pub fn prepare(bundle: &Path, root: &Path, id: &str) -> Result<()> {
    let spec = ShimSpec {
        version: 1,
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        rootfs: Rootfs::Directory {
            path: root.to_owned(),
        },
        open_stdin: false,
        stdin_once: false,
        log: LogFiles {
            path: bundle.join(LOG),
            max_size: 1 << 20,
            max_files: 1,
        },
        shim_cgroup: None,
        runtime: None,
    };
    std::fs::write(bundle.join(SPEC_FILE), serde_json::to_vec(&spec)?)?;
    Ok(())
}

impl Shim {
    /// Makes a container of a prepared bundle.
    ///
    /// # Errors
    /// The shim reports a failure.
    pub fn create(program: &Path, bundle: &Path) -> Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(program);
        let number = pass(&writer)?;
        command
            .args(["shim", "--stay", "--ready-fd", &number.to_string()])
            .arg("--dir")
            .arg(bundle)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("execute {}", program.display()))?;
        drop(writer);
        let hello = hello(reader)?;
        let Hello::Created { shim_pid, .. } = hello else {
            bail!("the shim answers {hello:?}");
        };
        let connect = || UnixStream::connect(bundle.join(SOCKET_FILE));
        Ok(Self {
            pid: shim_pid,
            socket: connect()?,
            waiting: connect()?,
        })
    }

    /// Starts the container.
    ///
    /// # Errors
    /// The shim reports a failure.
    pub fn start(&mut self) -> Result<()> {
        // Before the start: the shim ends with a container that nobody waits for.
        send(&mut self.waiting, &Request::Wait { exec: None })?;
        send(&mut self.socket, &Request::Start)?;
        match receive(&mut self.socket)? {
            Response::Started { .. } => Ok(()),
            other => bail!("the shim answers {other:?}"),
        }
    }

    /// Kills the container and waits until the shim has ended, too.
    ///
    /// # Errors
    /// The shim is gone.
    pub fn end(mut self) -> Result<()> {
        send(
            &mut self.socket,
            &Request::Kill {
                signal: 9,
                all: false,
            },
        )?;
        receive(&mut self.waiting)?;
        drop((self.socket, self.waiting));
        usage::reap(self.pid)?;
        Ok(())
    }
}

fn send(socket: &mut UnixStream, request: &Request) -> Result<()> {
    let mut frame = Vec::new();
    encode(request, &mut frame)?;
    socket.write_all(&frame)?;
    Ok(())
}

fn receive(socket: &mut UnixStream) -> Result<Response> {
    let mut decoder = Decoder::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(response) = decoder.take() {
            return response.context("the shim's answer");
        }
        let wanted = decoder.missing().min(buffer.len());
        let read = socket.read(&mut buffer[..wanted])?;
        if read == 0 {
            decoder.finish()?;
            bail!("the shim closed the connection");
        }
        decoder.feed(&buffer[..read]);
    }
}

/// Lets children inherit a descriptor.
fn pass(writer: &std::io::PipeWriter) -> Result<i32> {
    rustix::io::fcntl_setfd(writer, rustix::io::FdFlags::empty())?;
    Ok(writer.as_raw_fd())
}

fn hello(reader: PipeReader) -> Result<Hello> {
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line)?;
    serde_json::from_str(&line).context("the shim's first words")
}

/// create, start, wait; the shim cleans up by itself.
pub(super) fn cycle(program: &Path, bundle: &Path) -> Result<Outcome> {
    // Of an earlier cycle; every container of hostd's has a directory of its own.
    for name in [EXIT_FILE, LOG, LOG_INDEX] {
        let _ = std::fs::remove_file(bundle.join(name));
    }
    let begin = Instant::now();
    let mut shim = Shim::create(program, bundle)?;
    let create = begin.elapsed();
    shim.start()?;
    let answer = receive(&mut shim.waiting)?;
    let total = begin.elapsed();
    if !matches!(&answer, Response::Exited { .. }) {
        bail!("the shim answers {answer:?}");
    }
    drop((shim.socket, shim.waiting));
    let (used, _) = usage::reap(shim.pid)?;
    Ok(Outcome::new(create, total, used))
}

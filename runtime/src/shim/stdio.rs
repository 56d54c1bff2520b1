//! The shim's side of the container's standard streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use keelson_log::Stream;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use super::recorder::Recorder;
use crate::failure::{Failure, Step};
use crate::sandbox::devices::TERMINAL_HOLDS;

/// How many bytes are read at once. The buffer is not cleared before, so only bytes that were read
/// cost memory.
const CHUNK: usize = 64 * 1024;
/// While the container does not read, no more input than this is accepted from clients.
const MAX_PENDING: usize = 64 * 1024;

/// The shim's ends.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// The sources of the container's output, by stream.
    pub(crate) outputs: [Option<OwnedFd>; 2],
    /// The destination of its input.
    pub(crate) input: Option<OwnedFd>,
    /// Whether both are ends of a terminal.
    pub(crate) terminal: bool,
    /// Input that the container did not read yet.
    pub(crate) pending: Vec<u8>,
    /// Close the input when nothing is pending any more.
    pub(crate) closing: bool,
}

/// Makes pipes. The second value has the container's ends.
pub(crate) fn pipes(open_stdin: bool) -> Result<(Streams, [OwnedFd; 3]), Failure> {
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).step(|| "make a pipe");
    let (stdin, input) = if open_stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .step(|| "open /dev/null")?;
        (null, None)
    };
    let (out_read, out_write) = pipe()?;
    let (error_read, error_write) = pipe()?;
    // Only the shim's ends are non-blocking: the container expects blocking ones.
    for end in [Some(&out_read), Some(&error_read), input.as_ref()]
        .into_iter()
        .flatten()
    {
        set_nonblocking(end.as_fd())?;
    }
    let streams = Streams {
        outputs: [Some(out_read), Some(error_read)],
        input,
        ..Streams::default()
    };
    Ok((streams, [stdin, out_write, error_write]))
}

/// Takes over the master end of a terminal.
pub(crate) fn terminal(master: OwnedFd, open_stdin: bool) -> Result<Streams, Failure> {
    set_nonblocking(master.as_fd())?;
    let input = master.try_clone().step(|| "duplicate the terminal")?;
    Ok(Streams {
        outputs: [Some(master), None],
        input: open_stdin.then_some(input),
        terminal: true,
        ..Streams::default()
    })
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::io::ioctl_fionbio(fd, true).step(|| "make a stream non-blocking")
}

/// The result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Something was read.
    Some,
    /// There is nothing now.
    None,
    /// The stream has ended.
    End,
}

impl Streams {
    /// Reads once from an output and records it.
    pub(crate) fn record(&self, index: usize, log: &mut Recorder, buffer: &mut Vec<u8>) -> Output {
        let stream = if index == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        let output = self.read(index, buffer);
        if output == Output::Some {
            log.append(stream, buffer, super::now());
        }
        output
    }

    /// Records the output that was written until now, and no more: another process that has the
    /// stream open may write without end.
    pub(crate) fn record_rest(&self, index: usize, log: &mut Recorder, buffer: &mut Vec<u8>) {
        let output = self.outputs.get(index).and_then(Option::as_ref);
        let mut left = match output {
            // The kernel does not say how much there is.
            Some(_) if self.terminal => TERMINAL_HOLDS,
            Some(fd) => rustix::io::ioctl_fionread(fd).unwrap_or(0) as usize,
            None => 0,
        };
        while left > 0 && self.record(index, log, buffer) == Output::Some {
            left = left.saturating_sub(buffer.len());
        }
    }

    /// Reads once from an output into the buffer, and replaces its contents.
    pub(crate) fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Output {
        let Some(fd) = self.outputs.get(index).and_then(Option::as_ref) else {
            return Output::End;
        };
        buffer.clear();
        buffer.reserve(CHUNK);
        loop {
            return match rustix::io::read(fd, rustix::buffer::spare_capacity(buffer)) {
                Ok(0) => Output::End,
                Ok(_) => Output::Some,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Output::None,
                // A terminal returns EIO if nobody has its other end open.
                Err(_) => Output::End,
            };
        }
    }

    /// Whether clients may send more input.
    pub(crate) fn takes_input(&self) -> bool {
        self.pending.len() < MAX_PENDING && !self.closing
    }

    /// Accepts input for the container.
    pub(crate) fn push_input(&mut self, bytes: &[u8]) {
        if self.input.is_some() && !self.closing {
            self.pending.extend_from_slice(bytes);
            self.write_input();
        }
    }

    /// Closes the container's input after it has read everything. The input of a terminal can't be
    /// closed.
    pub(crate) fn end_input(&mut self) {
        if !self.terminal {
            self.closing = true;
            self.write_input();
        }
    }

    /// Writes pending input as far as the container reads it.
    pub(crate) fn write_input(&mut self) {
        while let Some(fd) = &self.input {
            if self.pending.is_empty() {
                if self.closing {
                    self.input = None;
                }
                // An idle shim releases the memory.
                self.pending = Vec::new();
                return;
            }
            match rustix::io::write(fd, &self.pending) {
                Ok(length) => {
                    self.pending.drain(..length.min(self.pending.len()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody will read it.
                Err(_) => {
                    self.input = None;
                    self.pending = Vec::new();
                }
            }
        }
    }
}

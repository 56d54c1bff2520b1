//! A pipe for bytes from asynchronous code to a thread, and between threads, with bounded memory.
//! Pieces return to the sender and are filled again: new memory would cost a system call and a page
//! fault for every 4 KiB.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// The size of a piece in bytes.
pub const PIECE: usize = 256 << 10;
/// How many pieces are on their way.
const DEPTH: usize = 8;

/// The receiving end: a blocking reader.
#[derive(Debug)]
pub struct PipeReader {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

/// The sending end. A reader whose sender goes away without [`Sender::end`] gets an error, so that
/// an aborted stream is never taken for a complete one.
#[derive(Debug)]
pub struct PipeSender {
    pieces: mpsc::Sender<io::Result<Vec<u8>>>,
    used: Receiver<Vec<u8>>,
}

/// A new pipe.
pub fn pipe() -> (PipeSender, PipeReader) {
    let (sender, pieces) = mpsc::channel(DEPTH);
    let (used, returned) = sync_channel(DEPTH + 2);
    let reader = PipeReader {
        pieces,
        used,
        piece: Vec::new(),
        at: 0,
        ended: false,
    };
    let sender = PipeSender {
        pieces: sender,
        used: returned,
    };
    (sender, reader)
}

impl PipeSender {
    /// An empty piece with room for [`PIECE`] bytes.
    pub fn piece(&self) -> Vec<u8> {
        match self.used.try_recv() {
            Ok(mut piece) => {
                piece.clear();
                piece
            }
            Err(_) => Vec::with_capacity(PIECE),
        }
    }

    /// Sends a piece, and waits for room. False if the reader is gone.
    pub fn send(&self, piece: Vec<u8>) -> bool {
        piece.is_empty() || self.pieces.blocking_send(Ok(piece)).is_ok()
    }

    /// Marks the stream as complete.
    pub fn end(self) {
        let _ = self.pieces.blocking_send(Ok(Vec::new()));
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.piece.len() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Ok(piece)) => {
                    self.ended = piece.is_empty();
                    let used = std::mem::replace(&mut self.piece, piece);
                    self.at = 0;
                    if used.capacity() >= PIECE {
                        // A sender that makes its own pieces does not take them back.
                        let _ = self.used.try_send(used);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the sender went away",
                    ));
                }
            }
        }
        Ok(self.piece.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.at.saturating_add(amount).min(self.piece.len());
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// Copies an asynchronous stream into a pipe until it ends or the reader is gone. If the returned
/// future is dropped (the client went away), the reader gets an error.
pub async fn feed<R: AsyncRead + Unpin + Send>(mut from: R, to: PipeSender) {
    let PipeSender {
        pieces: sender,
        used,
    } = to;
    loop {
        let mut piece = used
            .try_recv()
            .unwrap_or_else(|_| Vec::with_capacity(PIECE));
        piece.clear();
        let mut failed = None;
        // Small reads (from a socket) are collected, because every piece costs a switch of threads.
        while piece.len() < PIECE / 2 {
            match from.read_buf(&mut piece).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let last = piece.is_empty() || failed.is_some();
        let message = failed.map_or(Ok(piece), Err);
        if sender.send(message).await.is_err() || last {
            break;
        }
    }
}

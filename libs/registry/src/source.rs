//! The source of a blob that is sent.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Bytes of a piece on its way from the source to the connection.
const PIECE: u64 = 256 << 10;
/// How many pieces are read ahead.
const DEPTH: usize = 2;

/// The data to send.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, which must not change during the upload.
    File(PathBuf),
}

impl BlobSource {
    /// The bytes of a part of the blob, piece by piece.
    fn part(&self, at: u64, length: u64) -> mpsc::Receiver<io::Result<Bytes>> {
        let (sender, pieces) = mpsc::channel(DEPTH);
        match self.clone() {
            Self::Bytes(bytes) => {
                let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let part = bytes.slice(clamp(at)..clamp(at.saturating_add(length)));
                // There is room for one.
                let _ = sender.try_send(Ok(part));
            }
            Self::File(path) => {
                // A slow registry decides how long this takes, so it is not one of the shared
                // threads.
                let failed = sender.clone();
                let read = move || {
                    if let Err(error) = read_part(&path, at, length, &sender) {
                        // No task waits for it when the upload has ended.
                        let _ = sender.blocking_send(Err(error));
                    }
                };
                let thread = std::thread::Builder::new().name("blob".to_owned());
                if let Err(error) = thread.spawn(read) {
                    // There is room for one.
                    let _ = failed.try_send(Err(error));
                }
            }
        }
        pieces
    }
}

fn read_part(
    path: &Path,
    at: u64,
    length: u64,
    to: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut left = length;
    while left > 0 {
        let mut piece = Vec::new();
        let wanted = left.min(PIECE);
        let got = (&file).take(wanted).read_to_end(&mut piece)? as u64;
        if got < wanted {
            return Err(io::Error::other("it became shorter"));
        }
        left -= got;
        if to.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A part of a blob as the body of a request.
pub(crate) struct Part {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Part {
    /// `sent` counts the bytes that were handed to the connection.
    pub(crate) fn new(source: &BlobSource, at: u64, length: u64, sent: Arc<AtomicU64>) -> Self {
        Self {
            pieces: source.part(at, length),
            left: length,
            sent,
        }
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.pieces.poll_recv(context)) {
            Some(piece) => piece?,
            None => return Poll::Ready(Some(Err(io::Error::other("it became shorter")))),
        };
        let length = piece.len() as u64;
        self.left = self.left.saturating_sub(length);
        self.sent.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

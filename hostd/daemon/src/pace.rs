//! Closes a connection whose client reads nothing for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use keelson_http::places::Shortage;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How often the time is checked since which a client has read nothing.
const TICK: Duration = Duration::from_secs(1);

/// A stream whose writes fail when the other side reads nothing for too long. It is directly on the
/// socket, below TLS, because only there a finished write means that the kernel has the bytes.
#[derive(Debug)]
pub(crate) struct Paced<S> {
    stream: S,
    shortage: Shortage,
    still: Option<Still>,
}

/// The other side reads nothing.
#[derive(Debug)]
struct Still {
    since: Instant,
    tick: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, shortage: Shortage) -> Self {
        Self {
            stream,
            shortage,
            still: None,
        }
    }

    /// The socket.
    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.still = None;
            return written;
        }
        let still = self.still.get_or_insert_with(|| Still {
            since: Instant::now(),
            tick: Box::pin(tokio::time::sleep(TICK)),
        });
        while still.tick.as_mut().poll(context).is_ready() {
            if still.since.elapsed() >= self.shortage.patience() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client reads nothing",
                )));
            }
            still
                .tick
                .as_mut()
                .reset(tokio::time::Instant::now() + TICK);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A socket has nothing to flush, so this shows nothing about the other side.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_closed_when_places_are_short() {
        let shortage = Shortage::default();
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut paced = Paced::new(near, shortage.clone());
        let writing = tokio::spawn(async move { paced.write_all(&[0; 64 << 10]).await });
        // A client that reads a little from time to time stays connected.
        for _ in 0..3 {
            tokio::time::sleep(TICK).await;
            far.read_exact(&mut [0; 100]).await.unwrap();
        }
        assert!(!writing.is_finished());
        shortage.note();
        let before = Instant::now();
        let error = writing.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= Duration::from_secs(8));
    }
}

//! Imports an archive from a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use keelson_registry::{Client, Download, DownloadError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

use crate::error::ImageError;
use crate::import;
use crate::pipe;
use crate::registry::{tell, tell_bytes};
use crate::store::Store;
use crate::threads;
use crate::types::{ImageId, ImportOptions, Progress, Step};

/// How many pieces wait between the connection and the pipe.
const DEPTH: usize = 4;
/// Progress is reported each time that this many bytes were read.
const STEP: u64 = 512 << 10;

impl From<DownloadError> for ImageError {
    fn from(error: DownloadError) -> Self {
        Self::Registry {
            kind: error.kind(),
            message: error.to_string(),
        }
    }
}

/// Makes an image from the archive at an address. Closing `progress` cancels it.
pub(crate) async fn import(
    store: &Arc<Store>,
    client: &Client,
    address: &str,
    options: &ImportOptions,
    progress: &mpsc::Sender<Progress>,
) -> Result<ImageId, ImageError> {
    // Checked before anything is fetched.
    let mut checked = import::check(options)?;
    let mut download = client.download(address, store.layers.limits.bytes).await?;
    download.address().clone_into(&mut checked.source);
    tell(
        progress,
        "",
        Step::DownloadingFrom(download.address().to_owned()),
    )
    .await;
    let (sender, reader) = pipe::pipe();
    let job = {
        let store = Arc::clone(store);
        threads::begin("import", move || import::import(&store, reader, checked))
    };
    let (pieces, received) = mpsc::channel(DEPTH);
    let body = Pieces {
        received,
        piece: Bytes::new(),
    };
    let fetched = tokio::select! {
        (fetched, ()) = async {
            tokio::join!(forward(&mut download, pieces, progress), pipe::feed(body, sender))
        } => fetched,
        () = progress.closed() => Err(ImageError::Interrupted("the client went away".to_owned())),
    };
    let imported = job.end().await;
    fetched.and(imported)
}

/// Passes the file on until it ends or its reader is gone.
async fn forward(
    download: &mut Download,
    pieces: mpsc::Sender<io::Result<Bytes>>,
    progress: &mpsc::Sender<Progress>,
) -> Result<(), ImageError> {
    let mut told = 0;
    loop {
        match download.next().await {
            Ok(Some(piece)) => {
                if pieces.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                // An incomplete file must not be mistaken for the whole.
                let _ = pieces.send(Err(io::Error::other(error.to_string()))).await;
                return Err(error.into());
            }
        }
        if let Some(total) = download.total()
            && (download.taken() - told >= STEP || download.taken() == total)
        {
            told = download.taken();
            tell_bytes(progress, "", Step::Importing, told, total);
        }
    }
}

/// The file as a byte stream.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl AsyncRead for Pieces {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.piece.is_empty() {
            match this.received.poll_recv(context) {
                Poll::Ready(Some(Ok(piece))) => this.piece = piece,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        let count = this.piece.len().min(buffer.remaining());
        buffer.put_slice(this.piece.get(..count).unwrap_or_default());
        this.piece.advance(count);
        Poll::Ready(Ok(()))
    }
}

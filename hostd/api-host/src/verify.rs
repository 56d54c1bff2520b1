//! `POST /host/v1/images/verify`: the check of stored images, told line by line.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::unfold;
use hostd_images::{ImageStore, VerifyLine};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use keelson_model::error::ErrorKind;
use keelson_model::verify::VerifyRequest;
use tokio::sync::{Semaphore, mpsc};

use crate::api::{Answer, Failure, read_json};

/// Lines between the check and the client; the check waits for a client that does not read.
const DEPTH: usize = 64;
/// Checks at once: each keeps the disk and the processors busy, and ends when its client wills.
const CHECKS: usize = 2;

/// The checks that may go on at once.
pub(crate) fn checks() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(CHECKS))
}

/// Starts the check. An image that is not there is an error before the first line; a client that
/// goes away ends the check.
pub(crate) async fn answer(
    images: &ImageStore,
    checks: &Arc<Semaphore>,
    request: Request<Incoming>,
) -> Answer {
    let wanted: VerifyRequest = read_json(request.into_body()).await?;
    let place = Arc::clone(checks).try_acquire_owned().map_err(|_| {
        Failure(
            ErrorKind::Unavailable,
            format!("{CHECKS} checks are going on already: try again when one has ended"),
        )
    })?;
    let (sender, mut lines) = mpsc::channel(DEPTH);
    let store = images.clone();
    let check = tokio::spawn(async move {
        let checked = store.verify(wanted.images, sender).await;
        drop(place);
        checked
    });
    let Some(first) = lines.recv().await else {
        return Err(match check.await {
            Ok(Err(error)) => Failure(error.kind(), error.to_string()),
            _ => Failure(ErrorKind::Internal, "the check ended early".to_owned()),
        });
    };
    let rest = unfold(lines, |mut lines| async {
        Some((lines.recv().await?, lines))
    });
    let lines = futures::stream::iter([first]).chain(rest);
    let frames = lines.map(|line| json_line(&line).map(Frame::data));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    Ok(response)
}

fn json_line(line: &VerifyLine) -> io::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}

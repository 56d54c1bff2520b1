//! `POST /host/v1/images/verify`: checks stored images and reports line by line.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::unfold;
use http::Request;
use hyper::body::Incoming;
use keelson_http::{Failure, reply};
use keelson_model::error::ErrorKind;
use tokio::sync::mpsc;

use crate::state::{Answer, CHECKS, HostApi, read_json};
use crate::wire;

/// Most lines that wait for the client. The check pauses when the client does not read.
const DEPTH: usize = 64;

/// Starts the check. A missing image is an error before the first line. The check ends when the
/// client disconnects.
pub(crate) async fn answer(api: &HostApi, request: Request<Incoming>) -> Answer {
    let wanted: wire::VerifyRequest = read_json(request).await?;
    let permit = Arc::clone(&api.checks).try_acquire_owned().map_err(|_| {
        Failure::new(
            ErrorKind::Unavailable,
            format!("{CHECKS} checks run already: try again when one has ended"),
        )
    })?;
    let (sender, mut lines) = mpsc::channel(DEPTH);
    let store = api.sources.images.clone();
    let check = tokio::spawn(async move {
        let checked = store.verify(wanted.images, sender).await;
        drop(permit);
        checked
    });
    let Some(first) = lines.recv().await else {
        return Err(match check.await {
            Ok(Err(error)) => Failure::new(error.kind(), error.to_string()),
            _ => Failure::new(ErrorKind::Internal, "the check ended early".to_owned()),
        });
    };
    let rest = unfold(lines, |mut lines| async {
        Some((lines.recv().await?, lines))
    });
    let lines = futures::stream::iter([first]).chain(rest);
    let lines = lines.map(|line| json_line(&wire::VerifyLine::from(line)));
    Ok(reply::try_stream("application/x-ndjson", lines))
}

fn json_line(line: &wire::VerifyLine) -> io::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}

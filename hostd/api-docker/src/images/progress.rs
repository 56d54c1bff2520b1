//! Answers that report the progress of a pull, push or load.

use std::borrow::Cow;
use std::future::Future;

use bytes::Bytes;
use futures::{StreamExt, stream};
use hostd_images::{Progress, Step};
use http::Response;
use keelson_model::error::ErrorKind;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::reply::{self, Body, json_line};

/// Most steps that wait for a slow client.
const STEPS: usize = 64;
/// Characters of a bar.
const BAR: u64 = 50;

/// What a task reports.
enum Told {
    Progress(Progress),
    Ended(Result<Vec<Value>, ApiError>),
}

/// How to report a failure before the first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EarlyFailure {
    /// By an HTTP status.
    Status,
    /// As the only step of an answer with status 200.
    Step,
}

/// Answers with the steps of a task. The task ends when the client stops reading.
///
/// # Errors
/// The error of the task, when it fails before its first step and `early` is a status.
pub(crate) async fn stream_steps<F, T>(
    early: EarlyFailure,
    work: F,
) -> Result<Response<Body>, ApiError>
where
    F: FnOnce(mpsc::Sender<Progress>) -> T,
    T: Future<Output = Result<Vec<Value>, ApiError>> + Send + 'static,
{
    let (sender, progress) = mpsc::channel(STEPS);
    let task = tokio::spawn(work(sender));
    let ended = async move {
        Told::Ended(match task.await {
            Ok(result) => result,
            Err(error) => Err(ApiError::new(
                ErrorKind::Internal,
                format!("a background task failed: {error}"),
            )),
        })
    };
    let steps = stream::unfold(progress, |mut progress| async move {
        progress.recv().await.map(|p| (Told::Progress(p), progress))
    });
    let mut steps = Box::pin(steps.chain(stream::once(ended)));
    let first = match steps.next().await {
        Some(Told::Ended(Err(error))) if early == EarlyFailure::Status => return Err(error),
        Some(step) => step,
        None => return Err(ApiError::new(ErrorKind::Internal, "the task ended early")),
    };
    let lines = stream::iter([first]).chain(steps).map(lines);
    Ok(reply::stream("application/json", lines))
}

fn lines(step: Told) -> Bytes {
    match step {
        Told::Progress(progress) => json_line(&progress_line(&progress)),
        Told::Ended(Ok(values)) => values.iter().flat_map(json_line).collect(),
        Told::Ended(Err(error)) => {
            let message = error.to_string();
            json_line(&json!({"errorDetail": {"message": message}, "error": message}))
        }
    }
}

/// A step in Docker's form. A step of one layer has an identifier and details, one of the whole has
/// none.
fn progress_line(progress: &Progress) -> Value {
    let status = words(&progress.step);
    if progress.id.is_empty() && progress.total.is_none() {
        return json!({"status": status});
    }
    if matches!(progress.step, Step::PullingFrom(_)) {
        return json!({"status": status, "id": progress.id});
    }
    let Some(total) = progress.total else {
        return json!({"status": status, "progressDetail": {}, "id": progress.id});
    };
    let mut line = json!({
        "status": status,
        "progressDetail": {"current": progress.current, "total": total},
        "progress": bar(progress.current, total),
    });
    if !progress.id.is_empty() {
        line["id"] = json!(progress.id);
    }
    line
}

/// What happens, in Docker's words.
fn words(step: &Step) -> Cow<'static, str> {
    match step {
        Step::PullingFrom(path) => format!("Pulling from {path}").into(),
        Step::AlreadyExists => "Already exists".into(),
        Step::PullingLayer => "Pulling fs layer".into(),
        Step::Waiting => "Waiting".into(),
        Step::Downloading => "Downloading".into(),
        Step::Downloaded => "Download complete".into(),
        Step::PullComplete => "Pull complete".into(),
        Step::Digest(digest) => format!("Digest: {digest}").into(),
        Step::Pulled { reference, updated } => {
            let news = match updated {
                true => "Downloaded newer image for",
                false => "Image is up to date for",
            };
            format!("Status: {news} {reference}").into()
        }
        Step::PushingTo(name) => format!("The push refers to repository [{name}]").into(),
        Step::Preparing => "Preparing".into(),
        Step::LayerExists => "Layer already exists".into(),
        Step::MountedFrom(name) => format!("Mounted from {name}").into(),
        Step::Pushing => "Pushing".into(),
        Step::Pushed => "Pushed".into(),
        Step::TagPushed { tag, digest, size } => {
            format!("{tag}: digest: {digest} size: {size}").into()
        }
        Step::Loading => "Loading layer".into(),
        Step::DownloadingFrom(address) => format!("Downloading from {address}").into(),
        Step::Importing => "Importing".into(),
    }
}

/// The progress bar, for clients that draw none themselves.
fn bar(current: u64, total: u64) -> String {
    let numbers = format!("{:>8}", human_size(current));
    if total == 0 {
        return numbers;
    }
    let done = (u128::from(current.min(total)) * u128::from(BAR) / u128::from(total)) as usize;
    let left = BAR as usize - done;
    format!(
        "[{}>{}] {numbers}/{}",
        "=".repeat(done),
        " ".repeat(left),
        human_size(total)
    )
}

/// Four digits and a decimal unit: `31.07MB`.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"");
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    let decimals = match value {
        _ if value >= 100.0 => 1,
        _ if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_dockers_form() {
        let told = |id: &str, step, total| {
            progress_line(&Progress {
                id: id.to_owned(),
                step,
                current: 5,
                total,
            })
            .to_string()
        };
        assert_eq!(
            told("", Step::DownloadingFrom("x".to_owned()), None),
            r#"{"status":"Downloading from x"}"#
        );
        assert_eq!(
            told("latest", Step::PullingFrom("a".to_owned()), None),
            r#"{"id":"latest","status":"Pulling from a"}"#
        );
        let line = told("0123", Step::Downloading, Some(9));
        assert!(line.contains(r#""progressDetail":{"current":5,"total":9}"#));
        let line = told("0123", Step::PullComplete, None);
        assert!(line.contains(r#""progressDetail":{}"#));
    }

    #[test]
    fn bars_are_dockers() {
        assert_eq!(
            bar(16_780_000, 31_070_000),
            "[===========================>                       ]  16.78MB/31.07MB"
        );
        assert_eq!(bar(5, 0), "      5B");
        assert!(bar(9, 9).starts_with(&format!("[{}>]       9B/9B", "=".repeat(50))));
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_112_576, "1.113MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size(u64::MAX), "18.45EB");
    }
}

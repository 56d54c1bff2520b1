//! The handlers of the machine's services.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::unfold;
use futures::{StreamExt, stream};
use hostd_containers::{EngineError, LogPart, LogQuery, Logs, Stream};
use hostd_host_services::ServicesError;
use http::{Request, StatusCode, Uri};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_config::switch_service;
use keelson_http::{Failure, reply};
use keelson_model::error::ErrorKind;

use crate::state::{Answer, HostApi, LOG_READERS};
use crate::wire;

/// What all paths of one service begin with.
const PATH: &str = "/host/v1/services/";

fn failed(error: ServicesError) -> Failure {
    Failure::new(error.kind(), error.to_string())
}

/// The service that a path names: `/host/v1/services/NAME` or `/host/v1/services/NAME/WORD`.
fn named(uri: &Uri) -> String {
    let rest = uri.path().strip_prefix(PATH).unwrap_or_default();
    rest.split('/').next().unwrap_or_default().to_owned()
}

fn shown(status: keelson_model::service::ServiceStatus) -> http::Response<reply::Body> {
    reply::json(StatusCode::OK, &wire::Service::from(status))
}

/// `GET /host/v1/services`.
pub(crate) async fn list(api: &HostApi, _: Request<Incoming>) -> Answer {
    let services = api.sources.services.list();
    let services: Vec<wire::Service> = services.into_iter().map(Into::into).collect();
    Ok(reply::json(StatusCode::OK, &services))
}

/// `GET /host/v1/services/{service}`.
pub(crate) async fn one(api: &HostApi, request: Request<Incoming>) -> Answer {
    let name = named(request.uri());
    Ok(shown(api.sources.services.one(&name).map_err(failed)?))
}

/// `POST /host/v1/services/{service}/start`.
pub(crate) async fn start(api: &HostApi, request: Request<Incoming>) -> Answer {
    let name = named(request.uri());
    let status = api.sources.services.start(&name).await.map_err(failed)?;
    tracing::info!(service = name, "a client started a service");
    Ok(shown(status))
}

/// `POST /host/v1/services/{service}/stop`.
pub(crate) async fn stop(api: &HostApi, request: Request<Incoming>) -> Answer {
    let name = named(request.uri());
    tracing::info!(service = name, "a client stops a service");
    let services = api.sources.services.clone();
    let work = async move { services.stop(&name).await };
    Ok(shown(whole(work).await?))
}

/// `POST /host/v1/services/{service}/restart`.
pub(crate) async fn restart(api: &HostApi, request: Request<Incoming>) -> Answer {
    let name = named(request.uri());
    tracing::info!(service = name, "a client restarts a service");
    let services = api.sources.services.clone();
    let work = async move { services.restart(&name).await };
    Ok(shown(whole(work).await?))
}

/// Goes on when the client disconnects: it may come through the very service that is stopped.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, ServicesError>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::spawn(work).await {
        Ok(done) => done.map_err(failed),
        Err(died) => Err(Failure::new(ErrorKind::Internal, died.to_string())),
    }
}

/// `POST /host/v1/services/{service}/enable`.
pub(crate) async fn enable(api: &HostApi, request: Request<Incoming>) -> Answer {
    switch(api, named(request.uri()), true).await
}

/// `POST /host/v1/services/{service}/disable`.
pub(crate) async fn disable(api: &HostApi, request: Request<Incoming>) -> Answer {
    switch(api, named(request.uri()), false).await
}

async fn switch(api: &HostApi, name: String, enabled: bool) -> Answer {
    tracing::info!(service = name, enabled, "a client switches a service");
    let switched = name.clone();
    let spread = api.sources.configuration.change(
        move |sources| switch_service(sources, &switched, enabled),
        |configuration, applied| {
            Box::pin(async move {
                configuration
                    .spread(&applied.changes, &applied.loaded)
                    .await
            })
        },
    );
    spread.await?;
    Ok(shown(api.sources.services.one(&name).map_err(failed)?))
}

/// `GET /host/v1/services/{service}/logs`.
pub(crate) async fn logs(api: &HostApi, request: Request<Incoming>) -> Answer {
    let name = named(request.uri());
    let query = log_query(request.uri().query().unwrap_or_default())?;
    let permit = Arc::clone(&api.log_readers).try_acquire_owned();
    let permit = permit.map_err(|_| {
        Failure::new(
            ErrorKind::Unavailable,
            format!("{LOG_READERS} clients read logs of services already: try again later"),
        )
    })?;
    let logs = api.sources.services.logs(&name, query).await;
    let lines = unfold(
        (logs.map_err(failed)?, permit),
        |(mut logs, permit)| async {
            let part = next(&mut logs).await?;
            Some((part, (logs, permit)))
        },
    );
    let lines = lines.flat_map(|part| match part {
        Ok(part) => stream::iter(part.frames().map(|frame| line(&frame)).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(std::io::Error::other(error))]),
    });
    Ok(reply::try_stream("application/x-ndjson", lines))
}

async fn next(logs: &mut Logs) -> Option<Result<LogPart, EngineError>> {
    logs.records.recv().await
}

/// `follow`, `tail` and `since`.
fn log_query(text: &str) -> Result<LogQuery, Failure> {
    let mut query = LogQuery {
        follow: false,
        stdout: true,
        stderr: true,
        since: None,
        until: None,
        timestamps: true,
        tail: None,
        prefix: String::new(),
        header: None,
        joined: false,
    };
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let wrong = |right: &str| Failure::invalid(format!("{name} {value:?} is wrong: {right}"));
        match &*name {
            "follow" => {
                query.follow = match &*value {
                    "" | "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(wrong("use true or false")),
                };
            }
            "tail" => {
                let number = value.parse();
                query.tail = Some(number.map_err(|_| wrong("use a number of lines"))?);
            }
            "since" => {
                let second = value.parse::<i64>().ok();
                let time = match second {
                    Some(second) => Timestamp::from_second(second).ok(),
                    None => value.parse::<Timestamp>().ok(),
                };
                let time = time.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
                query.since = Some(time.ok_or_else(|| {
                    wrong("use seconds since 1970, or a time such as 2026-11-30T12:00:00Z")
                })?);
            }
            _ => {
                let text = format!("there is no parameter {name:?}: use follow, tail, since");
                return Err(Failure::invalid(text));
            }
        }
    }
    Ok(query)
}

fn line(frame: &hostd_containers::Frame) -> std::io::Result<Bytes> {
    let text = String::from_utf8_lossy(&frame.bytes);
    let (time, text) = text.split_once(' ').unwrap_or(("", &text));
    let line = wire::ServiceLogLine {
        time: time.to_owned(),
        stream: match frame.stream {
            stream if stream == Stream::Stderr as u8 => wire::LogStream::Stderr,
            _ => wire::LogStream::Stdout,
        },
        text: text.strip_suffix('\n').unwrap_or(text).to_owned(),
    };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_service() {
        for path in ["/host/v1/services/bus", "/host/v1/services/bus/start?x=/y"] {
            assert_eq!(named(&path.parse().unwrap()), "bus");
        }
    }

    #[test]
    fn queries_are_checked() {
        let query = log_query("follow&tail=5&since=1970-01-01T00%3A00:01Z").unwrap();
        assert!(query.follow);
        assert_eq!((query.tail, query.since), (Some(5), Some(1_000_000_000)));
        assert_eq!(log_query("since=2").unwrap().since, Some(2_000_000_000));
        for wrong in [
            "tail=x",
            "follow=maybe",
            "since=then",
            "since=-1",
            "colour=1",
        ] {
            assert!(log_query(wrong).is_err(), "{wrong}");
        }
    }
}

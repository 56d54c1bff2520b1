//! `GET /containers/{id}/stats`.

mod shape;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use hostd_containers::{ContainerStats, EngineError, StatsWatch};
use http::{Response, StatusCode};

use crate::error::ApiError;
use crate::places::Kind;
use crate::query::Query;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call};

/// The kind of answer that the client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// A stream of about one document a second.
    Stream,
    /// One, which also has the figures of a moment before.
    WithBefore,
    /// One document at once.
    AtOnce,
}

impl Manner {
    fn of(query: &Query, version: ApiVersion) -> Result<Self, ApiError> {
        let stream = query.all("stream").next().is_none() || query.flag("stream");
        let one_shot = version >= ApiVersion::new(1, 41) && query.flag("one-shot");
        match (stream, one_shot) {
            (true, true) => Err(ApiError::invalid(
                "cannot have stream=true and one-shot=true",
            )),
            (true, false) => Ok(Self::Stream),
            (false, false) => Ok(Self::WithBefore),
            (false, true) => Ok(Self::AtOnce),
        }
    }
}

/// A stream of measurements, and the last one that the client got.
struct Stream<P> {
    watch: StatsWatch,
    before: Option<Arc<ContainerStats>>,
    _place: P,
}

impl<P> Stream<P> {
    async fn next(&mut self) -> Option<Bytes> {
        let now = self.watch.next().await?;
        let line = reply::json_line(&shape::document(&now, self.before.as_deref()));
        self.before = Some(now);
        Some(line)
    }
}

pub(crate) async fn stats(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    // Docker searches the container first.
    let container = api.containers().inspect(&call.name)?;
    let manner = Manner::of(&call.query, call.version)?;
    let runs = container.state.status.has_process();
    if manner == Manner::AtOnce || (manner == Manner::WithBefore && !runs) {
        let now = api.containers().stats(&call.name).await?;
        return Ok(document(&now, None));
    }
    let place = api.place(Kind::Watch, call.role).await?;
    let mut watch = api.containers().watch_stats(&call.name).await?;
    if manner == Manner::WithBefore {
        let before = watch.next().await;
        let Some(now) = watch.next().await else {
            // Removed meanwhile.
            return Err(EngineError::NoSuchContainer(call.name).into());
        };
        return Ok(document(&now, before.as_deref()));
    }
    let stream = Stream {
        watch,
        before: None,
        _place: place,
    };
    let lines = stream::unfold(stream, |mut stream| async move {
        let line = stream.next().await?;
        Some((line, stream))
    });
    Ok(reply::stream("application/json", lines))
}

fn document(now: &ContainerStats, before: Option<&ContainerStats>) -> Response<Body> {
    reply::json(StatusCode::OK, &shape::document(now, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_kind_of_answer() {
        let manner = |query: &str, minor| {
            let query = Query::parse(Some(query)).unwrap();
            Manner::of(&query, ApiVersion::new(1, minor))
        };
        assert_eq!(manner("", 51).unwrap(), Manner::Stream);
        assert_eq!(manner("stream=1", 51).unwrap(), Manner::Stream);
        assert_eq!(manner("stream=false", 51).unwrap(), Manner::WithBefore);
        assert_eq!(manner("stream=0&one-shot=1", 51).unwrap(), Manner::AtOnce);
        let error = manner("one-shot=1", 51).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot have stream=true and one-shot=true"
        );
        // Older clients don't know `one-shot`.
        assert_eq!(manner("one-shot=1", 40).unwrap(), Manner::Stream);
        assert_eq!(
            manner("stream=0&one-shot=1", 40).unwrap(),
            Manner::WithBefore
        );
    }
}

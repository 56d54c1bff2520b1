//! `/containers/{id}/archive`: what `docker cp` uses.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt};
use hostd_containers::{ExtractOptions, PathStat};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::{Api, Call};

/// Where clients find out what is at the path.
const STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");

/// The kernel's types of objects, and what Go's `FileMode` has for them.
const TYPES: [(u32, u32); 6] = [
    (0o040_000, 1 << 31),
    (0o120_000, 1 << 27),
    (0o060_000, 1 << 26),
    (0o020_000, 1 << 26 | 1 << 21),
    (0o010_000, 1 << 25),
    (0o140_000, 1 << 24),
];
/// The kernel's further bits (set-user-ID, set-group-ID, sticky), and Go's.
const FURTHER: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// A mode in the numbers of Go's `FileMode`.
fn go_mode(mode: u32) -> u32 {
    let kind = TYPES
        .iter()
        .find(|(kernel, _)| mode & 0o170_000 == *kernel)
        .map_or(0, |(_, go)| *go);
    let further = FURTHER.iter().filter(|(kernel, _)| mode & kernel != 0);
    further.fold(mode & 0o777 | kind, |all, (_, go)| all | go)
}

fn path(call: &Call) -> Result<&str, ApiError> {
    let path = call.query.get("path");
    path.ok_or_else(|| ApiError::invalid("bad parameter: path cannot be empty"))
}

fn header(stat: &PathStat) -> Result<HeaderValue, ApiError> {
    let value = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": stat.modified.to_string(),
        "linkTarget": stat.link_target,
    });
    HeaderValue::try_from(STANDARD.encode(value.to_string()))
        .map_err(|_| ApiError::invalid("the path's properties are no header"))
}

/// `HEAD`: what is at a path.
pub(crate) async fn stat(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let path = path(&call)?;
    let _place = api.place(Kind::Survey, call.role).await?;
    let stat = api.containers().path_stat(&call.name, path).await?;
    let mut answer = reply::empty(StatusCode::OK);
    answer.headers_mut().insert(STAT, header(&stat)?);
    Ok(answer)
}

/// `GET`: what is at a path, as an archive.
pub(crate) async fn get(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let path = path(&call)?;
    let place = api.place(Kind::Export, call.role).await?;
    let archive = api
        .containers()
        .path_archive(&call.name, path, Box::new(place))
        .await?;
    let stat = header(&archive.stat)?;
    let pieces = archive
        .pieces
        .map(|piece| piece.map_err(io::Error::other))
        .inspect_err(|error| tracing::warn!(%error, "files were not copied to the end"));
    let mut answer = reply::try_stream("application/x-tar", pieces);
    answer.headers_mut().insert(STAT, stat);
    Ok(answer)
}

/// `PUT`: extracts an archive into a directory.
pub(crate) async fn put(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let checked = path(&call).map(str::to_owned);
    let options = ExtractOptions {
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        own_by_user: call.query.flag("copyUIDGID"),
    };
    let place = match &checked {
        Ok(_) => api.place(Kind::Upload, call.role).await,
        Err(error) => Err(error.clone()),
    };
    let mut archive = api.upload(call.request.into_body());
    let extracted = match (place, checked) {
        (Ok(place), Ok(path)) => {
            let held = Box::new(place);
            let containers = api.containers();
            containers
                .path_extract(&call.name, &path, options, &mut archive, held)
                .await
                .map_err(ApiError::from)
        }
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    // A client that still sends would lose the answer.
    reply::drain(archive);
    extracted?;
    let mut answer = reply::empty(StatusCode::OK);
    answer
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_go() {
        for (kernel, go) in [
            (0o100_644, 0o644),
            (0o040_755, 1 << 31 | 0o755),
            (0o041_777, 1 << 31 | 1 << 20 | 0o777),
            (0o120_777, 1 << 27 | 0o777),
            (0o104_755, 1 << 23 | 0o755),
            (0o102_755, 1 << 22 | 0o755),
            (0o020_666, 1 << 26 | 1 << 21 | 0o666),
            (0o060_660, 1 << 26 | 0o660),
            (0o010_600, 1 << 25 | 0o600),
            (0o140_777, 1 << 24 | 0o777),
        ] {
            assert_eq!(go_mode(kernel), go, "{kernel:o}");
        }
    }
}

//! `GET /images/search`.

use http::{Response, StatusCode};
use keelson_model::error::ErrorKind;
use serde_json::{Value, json};

use super::remote::credentials;
use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::{Api, Call};

const DEFAULT_LIMIT: u32 = 25;
const MAX_LIMIT: u32 = 100;

pub(crate) async fn search(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let filters = call
        .query
        .filters(&["is-automated", "is-official", "stars"])?;
    let limit = match call.query.number::<i64>("limit")?.unwrap_or(0) {
        0 => DEFAULT_LIMIT,
        limit => u32::try_from(limit)
            .ok()
            .filter(|limit| *limit <= MAX_LIMIT)
            .ok_or_else(|| {
                ApiError::invalid(format!(
                    "limit {limit} is outside the range of [1, {MAX_LIMIT}]"
                ))
            })?,
    };
    let automated = filters.flag("is-automated")?;
    let official = filters.flag("is-official")?;
    let mut stars = 0;
    for value in filters.values("stars") {
        let wrong = |_| ApiError::invalid(format!("invalid filter 'stars={value}'"));
        stars = stars.max(value.parse::<i64>().map_err(wrong)?);
    }
    let (domain, term) = split(call.query.get("term").unwrap_or_default())?;
    let credentials = credentials(call.request.headers());
    // No automated images exist any more.
    if automated == Some(true) {
        return Ok(reply::json(StatusCode::OK, &json!([])));
    }
    let _place = api.place(Kind::Transfer, call.role).await?;
    let found = api
        .0
        .images
        .search(domain, term, limit, credentials)
        .await
        .map_err(|error| ApiError::new(kind(error.kind()), error.to_string()))?;
    let list: Vec<Value> = found
        .into_iter()
        .filter(|result| official.is_none_or(|wanted| result.is_official == wanted))
        .filter(|result| result.star_count >= stars)
        .map(|result| {
            json!({
                "name": result.name,
                "description": result.description,
                "star_count": result.star_count,
                "is_official": result.is_official,
                "is_automated": false,
            })
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &list))
}

/// The failure of a registry that has no search. Its answer says nothing about an image here.
fn kind(kind: ErrorKind) -> ErrorKind {
    match kind {
        ErrorKind::NotFound => ErrorKind::Unavailable,
        other => other,
    }
}

/// The registry and the words: `host[:port]/words`, or words for Docker Hub.
fn split(term: &str) -> Result<(&str, &str), ApiError> {
    if term.is_empty() {
        return Err(ApiError::invalid("query parameter term is missing"));
    }
    if term.contains("://") {
        return Err(ApiError::invalid(format!(
            "invalid repository name: repository name ({term}) should not have a scheme"
        )));
    }
    match term.split_once('/') {
        Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => {
            match matches!(host, "docker.io" | "index.docker.io") {
                true => Ok(("docker.io", official(words))),
                false => Ok((host, words)),
            }
        }
        _ => Ok(("docker.io", official(term))),
    }
}

/// Official images are found by their short names.
fn official(words: &str) -> &str {
    words.strip_prefix("library/").unwrap_or(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_name_their_registry() {
        for (term, wanted) in [
            ("busybox", ("docker.io", "busybox")),
            ("team/app", ("docker.io", "team/app")),
            ("library/busybox", ("docker.io", "busybox")),
            ("docker.io/library/busybox", ("docker.io", "busybox")),
            ("localhost:5000/a/b", ("localhost:5000", "a/b")),
            ("quay.io/a", ("quay.io", "a")),
        ] {
            assert_eq!(split(term).unwrap(), wanted);
        }
        assert!(split("").is_err());
        assert!(split("https://quay.io/a").is_err());
    }
}

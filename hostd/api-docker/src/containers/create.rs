//! `POST /containers/create`.

use hostd_containers::{CreateRequest, RootSource, Scope};
use http::{Response, StatusCode};
use keelson_model::container::CreateBody;
use keelson_model::error::ErrorKind;
use serde_json::json;

use crate::error::ApiError;
use crate::info::go_architecture;
use crate::reply::{self, Body};
use crate::{Api, Call};

pub(crate) async fn create(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let name = call
        .query
        .get("name")
        .map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    let platform = call.query.get("platform").map(str::to_owned);
    let body: CreateBody = reply::read_json(call.request.into_body())
        .await?
        .ok_or_else(|| {
            ApiError::invalid("config cannot be empty in order to create a container")
        })?;
    if body.config.image.is_empty() {
        return Err(ApiError::invalid(
            "config.Image cannot be empty in order to create a container",
        ));
    }
    if let Some(platform) = platform
        && !is_own_platform(&platform)
    {
        return Err(ApiError::new(
            ErrorKind::NotFound,
            format!(
                "image with reference {} was found but does not provide the specified platform ({platform})",
                body.config.image
            ),
        ));
    }
    let request = CreateRequest {
        config: body.config,
        host_config: body.host_config,
        networking: body.networking_config,
        root: RootSource::Image,
    };
    let created = api.0.engine.create(Scope::User, name, request).await?;
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({"Id": created.id, "Warnings": created.warnings}),
    ))
}

/// Whether `os[/architecture[/variant]]`, or its JSON form of newer clients, is this machine's.
pub(crate) fn is_own_platform(platform: &str) -> bool {
    let text = match serde_json::from_str::<serde_json::Value>(platform) {
        Ok(value) => {
            let part = |name: &str| value.get(name).and_then(|v| v.as_str()).unwrap_or_default();
            match part("architecture") {
                "" => part("os").to_owned(),
                architecture => format!("{}/{architecture}", part("os")),
            }
        }
        Err(_) => platform.to_owned(),
    };
    let mut parts = text.split('/');
    let os = parts.next().unwrap_or_default();
    let architecture = parts.next();
    os.eq_ignore_ascii_case("linux")
        && architecture.is_none_or(|a| a == go_architecture() || a == std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_compared() {
        assert!(is_own_platform("linux"));
        assert!(is_own_platform(&format!("linux/{}", go_architecture())));
        assert!(is_own_platform(&format!(
            r#"{{"os":"linux","architecture":"{}"}}"#,
            go_architecture()
        )));
        assert!(!is_own_platform("linux/s390x"));
        assert!(!is_own_platform("windows/amd64"));
    }
}

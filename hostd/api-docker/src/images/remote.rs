//! Registries: pull, push, login, and the image that a name stands for.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hostd_images::{Credentials, Progress, PullOptions, RegistryError, Step};
use http::{HeaderMap, Response, StatusCode};
use keelson_model::error::ErrorKind;
use keelson_model::json;
use keelson_oci::reference::Reference;
use keelson_registry::HostRule;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::platform::Platform;
use super::progress::{EarlyFailure, stream_steps};
use crate::error::ApiError;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::version::ApiVersion;
use crate::{Api, Call, MAX_DOCUMENT};

/// Longest `X-Registry-Auth`, in bytes.
const MAX_AUTH: usize = 64 << 10;

/// Docker's `AuthConfig`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    /// `user:password` in base64, from old clients.
    auth: String,
    serveraddress: String,
    identitytoken: String,
    registrytoken: String,
}

impl AuthConfig {
    /// `None`: anonymous.
    fn credentials(self) -> Result<Option<Credentials>, ApiError> {
        let (mut username, mut password) = (self.username, self.password);
        if username.is_empty() && !self.auth.is_empty() {
            let wrong = || ApiError::invalid("the member auth of the credentials is not valid");
            let text = STANDARD.decode(&self.auth).map_err(|_| wrong())?;
            let text = String::from_utf8(text).map_err(|_| wrong())?;
            let (user, secret) = text.split_once(':').ok_or_else(wrong)?;
            (username, password) = (user.to_owned(), secret.to_owned());
        }
        let credentials = Credentials {
            username,
            password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        };
        Ok((credentials != Credentials::default()).then_some(credentials))
    }
}

/// Reads `X-Registry-Auth`. As with Docker, a client that sends a wrong header is anonymous. The registry
/// decides whether that is enough.
pub(crate) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    read_credentials(headers).unwrap_or_else(|error| {
        tracing::warn!(%error, "the registry is asked without credentials");
        None
    })
}

/// Reads JSON in base64, with either alphabet, with or without padding.
fn read_credentials(headers: &HeaderMap) -> Result<Option<Credentials>, ApiError> {
    let Some(value) = headers.get("x-registry-auth") else {
        return Ok(None);
    };
    let wrong = || ApiError::invalid("header X-Registry-Auth is not JSON in base64url");
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > MAX_AUTH {
        return Err(wrong());
    }
    let mut text = text
        .trim_end_matches('=')
        .replace('+', "-")
        .replace('/', "_");
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    let document = URL_SAFE.decode(text).map_err(|_| wrong())?;
    if document.is_empty() {
        return Ok(None);
    }
    // The decoder's own message could repeat a secret.
    let config: AuthConfig = json::from_slice(&document).map_err(|_| wrong())?;
    config.credentials()
}

/// A step of the whole.
async fn tell(sender: &mpsc::Sender<Progress>, step: Step) {
    // Fails only when the client has left.
    let _ = sender
        .send(Progress {
            id: String::new(),
            step,
            current: 0,
            total: None,
        })
        .await;
}

/// `POST /images/create?fromImage=`.
pub(crate) async fn pull(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    let unsupported = ["repo", "message", "changes"];
    if let Some(name) = unsupported
        .iter()
        .find(|name| call.query.get(name).is_some())
    {
        return Err(ApiError::invalid(format!(
            "query parameter {name} is for imports, not for pulls"
        )));
    }
    let credentials = credentials(call.request.headers());
    let name = call.query.reference("fromImage").unwrap_or_default();
    let reference: Reference = name.parse().map_err(invalid_reference)?;
    let whole = reference.tag().is_none() && reference.digest().is_none();
    let platform = call.query.get("platform").map(str::to_owned);
    let images = api.0.images.clone();
    let place = api.place(Kind::Transfer, call.role).await?;
    stream_steps(EarlyFailure::Status, move |sender| async move {
        let _held = place;
        let names = match whole {
            // Without a tag, all tags are meant.
            true => images.remote_tags(&name, credentials.clone()).await?,
            false => vec![name],
        };
        let mut updated = false;
        for name in names {
            let options = PullOptions {
                platform: platform.clone(),
                credentials: credentials.clone(),
            };
            let pulled = images.pull(&name, options, sender.clone()).await?;
            updated |= pulled.updated;
            tell(&sender, Step::Digest(pulled.digest)).await;
        }
        let reference = reference.familiar();
        tell(&sender, Step::Pulled { reference, updated }).await;
        Ok(Vec::new())
    })
    .await
}

/// `POST /images/{name}/push`.
pub(crate) async fn push(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let credentials = credentials(call.request.headers());
    let name = match call.query.get("tag") {
        Some(tag) => format!("{}:{tag}", call.name),
        None => call.name.clone(),
    };
    let reference: Reference = name.parse().map_err(invalid_reference)?;
    if reference.digest().is_some() {
        return Err(ApiError::invalid("cannot push a digest reference"));
    }
    if call.version >= ApiVersion::new(1, 46)
        && let Some(platform) = Platform::of_query(&call.query, "platform")?
    {
        platform.check(&*api.0.images.resolve(&name)?, &name)?;
    }
    let images = api.0.images.clone();
    let place = api.place(Kind::Transfer, call.role).await?;
    stream_steps(EarlyFailure::Status, move |sender| async move {
        let _held = place;
        let pushed = images.push(&name, credentials, sender).await?;
        Ok(pushed
            .into_iter()
            .map(|pushed| {
                json!({"progressDetail": {}, "aux": {
                    "Tag": pushed.tag, "Digest": pushed.digest.to_string(), "Size": pushed.size,
                }})
            })
            .collect())
    })
    .await
}

/// `GET /distribution/{name}/json`.
pub(crate) async fn distribution(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let credentials = credentials(call.request.headers());
    let _place = api.place(Kind::Transfer, call.role).await?;
    let found = match api.0.images.distribution(&call.name, credentials).await {
        Ok(found) => found,
        // Registries answer the same for a forbidden and a missing image. Docker answers 401.
        Err(error) if error.kind() == ErrorKind::Forbidden => {
            return Ok(reply::json(
                StatusCode::UNAUTHORIZED,
                &json!({"message": error.to_string()}),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    let platforms: Vec<Value> = found
        .platforms
        .iter()
        .map(|platform| {
            let mut value = json!({"architecture": platform.architecture, "os": platform.os});
            if let (Some(variant), Some(members)) = (&platform.variant, value.as_object_mut()) {
                members.insert("variant".to_owned(), json!(variant));
            }
            value
        })
        .collect();
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "Descriptor": {
                "mediaType": found.media_type,
                "digest": found.digest.to_string(),
                "size": found.size,
            },
            "Platforms": platforms,
        }),
    ))
}

/// `POST /auth`.
pub(crate) async fn login(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let _place = api.place(Kind::Transfer, call.role).await?;
    let config: AuthConfig = reply::read_json(call.request, MAX_DOCUMENT)
        .await?
        .unwrap_or_default();
    let domain = registry_domain(&config.serveraddress)?;
    let credentials = config
        .credentials()?
        .ok_or_else(|| ApiError::invalid("user name and password are missing"))?;
    match api.0.images.login(&domain, credentials).await {
        Ok(()) => Ok(reply::json(
            StatusCode::OK,
            &json!({"Status": "Login Succeeded", "IdentityToken": ""}),
        )),
        // Docker answers 401 when the token server refuses, and 500 when the registry itself does.
        Err(error @ RegistryError::Denied { .. }) => Ok(reply::json(
            StatusCode::UNAUTHORIZED,
            &json!({"message": format!("unauthorized: incorrect username or password: {error}")}),
        )),
        Err(error @ RegistryError::Login { .. }) => Ok(reply::json(
            StatusCode::INTERNAL_SERVER_ERROR,
            &json!({"message": error.to_string()}),
        )),
        Err(error) => Err(ApiError::new(error.kind(), error.to_string())),
    }
}

/// The registry of an address such as `https://index.docker.io/v1/`, `host:5000` or nothing.
fn registry_domain(address: &str) -> Result<String, ApiError> {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"))
        .unwrap_or(address);
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host == "docker.io" || host.ends_with(".docker.io") {
        return Ok("docker.io".to_owned());
    }
    let wrong = || ApiError::invalid(format!("serveraddress {address:?} names no registry"));
    // Text that can't be part of an image's name is no registry.
    let reference: Reference = format!("{host}/x").parse().map_err(|_| wrong())?;
    match reference.domain() == host {
        true => Ok(host.to_owned()),
        // Only here a host without a dot is a registry.
        false if host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            Ok(host.to_owned())
        }
        false => Err(wrong()),
    }
}

/// The part of `GET /info` about registries.
pub(crate) fn registry_config(api: &Api) -> Value {
    let options = api.0.images.registry_options();
    let mirrors: Vec<String> = options.mirrors.iter().map(ToString::to_string).collect();
    let mut prefixes = vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()];
    let mut indexes = serde_json::Map::new();
    let index = |name: &str, mirrors: &[String], secure: bool, official: bool| json!({"Name": name, "Mirrors": mirrors, "Secure": secure, "Official": official});
    indexes.insert(
        "docker.io".to_owned(),
        index("docker.io", &mirrors, true, true),
    );
    for rule in &options.insecure {
        match rule {
            HostRule::Prefix(address, length) => prefixes.push(format!("{address}/{length}")),
            HostRule::Host(name) => {
                indexes.insert(name.clone(), index(name, &[], false, false));
            }
        }
    }
    json!({"InsecureRegistryCIDRs": prefixes, "IndexConfigs": indexes, "Mirrors": mirrors})
}

fn invalid_reference(error: keelson_oci::reference::ReferenceError) -> ApiError {
    ApiError::invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Option<Credentials>, ApiError> {
        let mut headers = HeaderMap::new();
        let Ok(value) = HeaderValue::from_str(text) else {
            return Ok(None);
        };
        headers.insert("x-registry-auth", value);
        let read = read_credentials(&headers);
        let wanted = read.as_ref().ok().cloned().flatten();
        assert_eq!(credentials(&headers), wanted);
        read
    }

    #[test]
    fn credentials_are_read_from_the_header() {
        let document = r#"{"username":"u?","password":"p>>?","email":"x"}"#;
        let wanted = Credentials {
            username: "u?".to_owned(),
            password: "p>>?".to_owned(),
            ..Credentials::default()
        };
        let standard = STANDARD.encode(document);
        let url = URL_SAFE.encode(document);
        for text in [
            standard.as_str(),
            url.as_str(),
            standard.trim_end_matches('='),
            url.trim_end_matches('='),
        ] {
            assert_eq!(of(text).unwrap(), Some(wanted.clone()), "{text}");
        }
        let nulls = r#"{"Username":"u?","password":"p>>?","email":null,"auth":null,
            "serveraddress":null,"identitytoken":null,"registrytoken":null,"other":[]}"#;
        assert_eq!(of(&URL_SAFE.encode(nulls)).unwrap(), Some(wanted.clone()));
        let old = URL_SAFE.encode(format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("u?:p>>?")));
        assert_eq!(of(&old).unwrap(), Some(wanted));
        for none in ["", "e30=", "bnVsbA=="] {
            assert_eq!(of(none).unwrap(), None, "{none}");
        }
        for wrong in ["!", "YWJj", "IiI="] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn registries_are_found_in_addresses() {
        for (address, domain) in [
            ("", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("https://quay.io/v2/", "quay.io"),
            ("registry", "registry"),
        ] {
            assert_eq!(registry_domain(address).unwrap(), domain);
        }
        for wrong in ["a b", "https://u:p@host/", "a_b"] {
            assert!(registry_domain(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived(text in "[ -~]{0,60}") {
            let _ = of(&text);
            let _ = registry_domain(&text);
        }
    }
}

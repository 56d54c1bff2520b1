//! Authorization for one repository: challenges, tokens and their renewal.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri, header};
use hyper::body::Incoming;
use keelson_model::json::{self, Json, lenient};
use serde::Deserialize;

use crate::asked::Asked;
use crate::auth::{Challenge, Credentials};
use crate::client::Ask;
use crate::error::RegistryError;
use crate::repository::{MAX_DOCUMENT, Repository, RepositoryAccess};
use crate::session::AuthState;
use crate::uri::{authority, encode, with_query};

/// How long a token without a lifetime is used: a minute, minus a margin.
const TOKEN_LIFE: Duration = Duration::from_secs(50);
/// The shortest lifetime that a token service may state, in seconds (Docker token specification).
const LEAST_LIFE: f64 = 60.0;
const MARGIN: Duration = Duration::from_secs(10);

/// The authorization for the next request.
enum Known {
    /// Send this, or nothing.
    Value(Option<String>),
    /// Fetch a token there first.
    Fetch {
        realm: String,
        service: Option<String>,
    },
}

/// A token service's answer. Both names of the token mean the same, and an empty one is none.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default, deserialize_with = "lenient")]
    token: String,
    #[serde(default, deserialize_with = "lenient")]
    access_token: String,
    /// Seconds. Some services write them as a string.
    #[serde(default)]
    expires_in: Option<Json>,
}

/// Reads the answer of a token service: the token, and how long to use it.
pub(crate) fn parse_token(bytes: &[u8]) -> Result<(String, Duration), &'static str> {
    let answer: TokenAnswer = json::from_slice(bytes).map_err(|_| "the answer is not a token")?;
    let token = [answer.token, answer.access_token]
        .into_iter()
        .find(|token| !token.is_empty() && HeaderValue::from_str(token).is_ok())
        .ok_or("the answer has no token (token or access_token)")?;
    let seconds = match answer.expires_in {
        Some(Json::Number(number)) => number.as_f64(),
        Some(Json::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    // Less than a minute is ignored: the first use would already be too late.
    let life = match seconds {
        Some(seconds) if seconds >= LEAST_LIFE => {
            Duration::from_secs_f64(seconds.min(3600.0)).saturating_sub(MARGIN)
        }
        _ => TOKEN_LIFE,
    };
    Ok((token, life))
}

impl Repository {
    fn state(&self) -> MutexGuard<'_, AuthState> {
        let state = self.session.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_challenged(&self) -> bool {
        self.state().challenge.is_some()
    }

    /// Stores the challenge of an answer. The token that was sent is invalid and dropped. Another
    /// token, which a parallel request may have fetched since, stays.
    pub(crate) fn learn(&self, response: &Response<Incoming>, sent: Option<&HeaderValue>) {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let all: Vec<&str> = headers.iter().filter_map(|h| h.to_str().ok()).collect();
        let mut state = self.state();
        if let Some(challenge) = Challenge::parse(&all.join(", ")) {
            state.challenge = Some(challenge);
        }
        let sent = sent.map(HeaderValue::as_bytes);
        if state
            .token
            .as_ref()
            .is_some_and(|(token, _)| sent == Some(token.as_bytes()))
        {
            state.token = None;
        }
    }

    fn known(&self) -> Known {
        if let Some(credentials) = &self.credentials
            && !credentials.registry_token.is_empty()
        {
            return Known::Value(Some(format!("Bearer {}", credentials.registry_token)));
        }
        let state = self.state();
        match (&state.challenge, &state.token) {
            (None, _) => Known::Value(None),
            (Some(Challenge::Basic), _) => {
                Known::Value(self.credentials.as_ref().and_then(Credentials::basic))
            }
            (Some(Challenge::Bearer { .. }), Some((token, until))) if Instant::now() < *until => {
                Known::Value(Some(token.clone()))
            }
            (Some(Challenge::Bearer { realm, service }), _) => Known::Fetch {
                realm: realm.clone(),
                service: service.clone(),
            },
        }
    }

    /// The value for `Authorization`, if the registry wants one.
    async fn authorization(&self) -> Result<Option<String>, RegistryError> {
        if let Known::Value(value) = self.known() {
            return Ok(value);
        }
        let _fetching = self.session.fetching.lock().await;
        // Another request may have fetched it meanwhile.
        let (realm, service) = match self.known() {
            Known::Value(value) => return Ok(value),
            Known::Fetch { realm, service } => (realm, service),
        };
        let (token, life) = self.token(&realm, service.as_deref()).await?;
        let value = format!("Bearer {token}");
        self.state().token = Some((value.clone(), Instant::now() + life));
        Ok(Some(value))
    }

    fn scopes(&self) -> Vec<String> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let actions = match self.access {
            RepositoryAccess::Pull => "pull",
            RepositoryAccess::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.path);
        let others = self
            .sources
            .iter()
            .map(|path| format!("repository:{path}:pull"));
        std::iter::once(own).chain(others).collect()
    }

    /// Fetches a token.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
    ) -> Result<(String, Duration), RegistryError> {
        let what = Asked::Token;
        let wrong = |reason: &str| RegistryError::Protocol {
            host: self.host().to_owned(),
            what: what.clone(),
            reason: reason.to_owned(),
        };
        let uri: Uri = realm
            .parse()
            .map_err(|_| wrong("its token service has no valid address"))?;
        // Credentials are sent there, so it must be at least as safe as the registry itself.
        let plain = uri.scheme_str() == Some("http")
            && self.base.scheme_str() == Some("http")
            && self.client.options.may_be_plain(authority(&uri));
        if uri.scheme_str() != Some("https") && !plain {
            return Err(wrong("its token service does not use HTTPS"));
        }
        let options = &self.client.options;
        if !options.may_lead(self.host(), authority(&uri)) {
            return Err(wrong("it names this machine itself as its token service"));
        }
        let scopes = self.scopes();
        let identity = self
            .credentials
            .as_ref()
            .filter(|credentials| !credentials.identity_token.is_empty());
        let ask = if let Some(credentials) = identity {
            let scopes = scopes.join(" ");
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", "keelson"),
                ("refresh_token", &credentials.identity_token),
                ("scope", &scopes),
            ];
            form.extend(service.map(|service| ("service", service)));
            let form: Vec<String> = form
                .into_iter()
                .map(|(name, value)| format!("{name}={}", encode(value)))
                .collect();
            let mut ask = Ask::new(Method::POST, uri, what.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            ask.body = Bytes::from(form.join("&"));
            ask
        } else {
            let mut query: Vec<(&str, &str)> = Vec::new();
            query.extend(service.map(|service| ("service", service)));
            query.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let basic = self.credentials.as_ref().and_then(Credentials::basic);
            let user = self.credentials.as_ref().map(|c| c.username.as_str());
            query.extend(basic.as_ref().and(user).map(|user| ("account", user)));
            let uri = with_query(&uri, &query).ok_or_else(|| wrong("its address is too long"))?;
            let ask = Ask::new(Method::GET, uri, what.clone());
            match basic {
                Some(basic) => ask.header(header::AUTHORIZATION, &basic),
                None => ask,
            }
        };
        let response = self.client.send(&ask).await?;
        if !response.status().is_success() {
            return Err(self.client.refusal(response, &ask).await);
        }
        let bytes = self.client.read(response, MAX_DOCUMENT, &ask).await?;
        parse_token(&bytes).map_err(wrong)
    }

    /// Adds the authorization if a request goes to the registry itself.
    pub(crate) async fn authorize(&self, ask: &mut Ask) -> Result<(), RegistryError> {
        ask.headers.remove(header::AUTHORIZATION);
        let own = authority(&ask.uri) == authority(&self.base)
            && ask.uri.scheme_str() == self.base.scheme_str();
        if own
            && let Some(value) = self.authorization().await?
            && let Ok(mut value) = HeaderValue::from_str(&value)
        {
            value.set_sensitive(true);
            ask.headers.insert(header::AUTHORIZATION, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_services_write_them() {
        for text in [
            r#"{"token":"good"}"#,
            r#"{"token":"","access_token":"good"}"#,
            r#"{"token":null,"access_token":"good"}"#,
            r#"{"token":"good","access_token":""}"#,
            r#"{"token":5,"access_token":"good"}"#,
            r#"{"token":"not\na header","Access_Token":"good"}"#,
            r#"{"TOKEN":"good","token":null,"issued_at":7,"scope":["x"],"refresh_token":{}}"#,
        ] {
            assert_eq!(parse_token(text.as_bytes()).unwrap().0, "good", "{text}");
        }
        for text in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"token":""}"#,
            r#"{"token":null}"#,
        ] {
            assert!(parse_token(text.as_bytes()).is_err(), "{text}");
        }
        for (life, seconds) in [
            ("300", 290),
            ("\"300\"", 290),
            ("300.5", 290),
            ("1e9", 3590),
            ("0", 50),
            ("-1", 50),
            ("null", 50),
            ("\"\"", 50),
            ("[]", 50),
            ("59", 50),
        ] {
            let text = format!(r#"{{"token":"t","expires_in":{life}}}"#);
            let (_, read) = parse_token(text.as_bytes()).unwrap();
            assert_eq!(read.as_secs(), seconds, "{life}");
        }
    }
}

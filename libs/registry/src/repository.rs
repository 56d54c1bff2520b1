//! One repository of one registry: authentication, redirects, manifests and tags.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri, header};
use hyper::body::Incoming;
use keelson_oci::digest::Digest;
use keelson_oci::manifest::MAX_MANIFEST_SIZE;
use serde::Deserialize;

use crate::auth::{Challenge, Credentials};
use crate::client::{Ask, Attempt, Client, unreachable};
use crate::connect::ConnectError;
use crate::error::RegistryError;
use crate::options::Endpoint;
use crate::uri::{authority, encode, join, with_query};

/// Where Docker Hub's registry really answers.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Redirects that are followed, one after another.
const MAX_REDIRECTS: u32 = 5;
/// Largest answer of a token service or page of tags, in bytes.
const MAX_DOCUMENT: u64 = 1 << 20;
/// Pages of tags that are read.
const MAX_PAGES: usize = 200;
/// How long a token is used that does not say how long it lives: a minute, with a margin.
const TOKEN_LIFE: Duration = Duration::from_secs(50);

/// Media types of manifests that are asked for.
const ACCEPT: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

/// What is to be done in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A manifest as it came, checked against the digest that was asked for, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Byte for byte.
    pub bytes: Vec<u8>,
    /// Digest of the bytes.
    pub digest: Digest,
    /// What the registry says that it is.
    pub media_type: String,
}

/// A repository of a registry.
#[derive(Debug)]
pub struct Repository {
    pub(crate) client: Client,
    /// `https://registry.example/`.
    base: Uri,
    /// `library/busybox`.
    path: String,
    access: Access,
    credentials: Option<Credentials>,
    /// Other repositories of the same registry that are read from.
    sources: Vec<String>,
    state: Mutex<AuthState>,
}

#[derive(Debug, Default)]
struct AuthState {
    challenge: Option<Challenge>,
    token: Option<(String, Instant)>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Repository {
    /// Contacts the registry of a reference (`docker.io`, `host[:port]`). HTTPS is spoken; plain
    /// HTTP only with loopback and hosts that are configured as insecure, when they do not speak
    /// TLS.
    pub async fn open(
        client: &Client,
        domain: &str,
        path: &str,
        access: Access,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        let name = if domain == "docker.io" {
            DOCKER_HUB
        } else {
            domain
        };
        let mut repository = Self::new(client, true, name, path, access, credentials)?;
        match repository.probe().await {
            Ok(()) => Ok(repository),
            // Not when there is TLS whose certificate is wrong.
            Err(Attempt::Connect(
                ConnectError::NotTls | ConnectError::Refused | ConnectError::Failed(_),
            )) if client.options.may_be_plain(name) => {
                repository.base = base(false, name)?;
                let probed = repository.probe().await;
                probed.map_err(|error| unreachable(&repository.base, error))?;
                Ok(repository)
            }
            Err(Attempt::Connect(ConnectError::NotTls)) => Err(RegistryError::Unreachable {
                host: name.to_owned(),
                reason: "it does not speak TLS; to use plain HTTP, configure it as an insecure \
                         registry"
                    .to_owned(),
            }),
            Err(error) => Err(unreachable(&repository.base, error)),
        }
    }

    /// Contacts a mirror.
    pub async fn open_mirror(
        client: &Client,
        mirror: &Endpoint,
        path: &str,
    ) -> Result<Self, RegistryError> {
        let name = &mirror.authority;
        let repository = Self::new(client, mirror.tls, name, path, Access::Pull, None)?;
        let probed = repository.probe().await;
        probed.map_err(|error| unreachable(&repository.base, error))?;
        Ok(repository)
    }

    fn new(
        client: &Client,
        tls: bool,
        name: &str,
        path: &str,
        access: Access,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            client: client.clone(),
            base: base(tls, name)?,
            path: path.to_owned(),
            access,
            credentials,
            sources: Vec::new(),
            state: Mutex::default(),
        })
    }

    /// Asks for the right to read from other repositories of this registry, too.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<String>) -> Self {
        self.sources = sources;
        self
    }

    /// Host and port of the registry.
    pub fn host(&self) -> &str {
        authority(&self.base)
    }

    /// The first contact: tells whether it is a registry, and what it wants to know.
    async fn probe(&self) -> Result<(), Attempt> {
        let uri = format!("{}v2/", self.base);
        let uri: Uri = uri
            .parse()
            .map_err(|_| Attempt::Answer("it has no valid address".to_owned()))?;
        let ask = Ask::new(Method::GET, uri, "its version");
        let response = self.client.try_send(&ask).await?;
        match response.status().as_u16() {
            200 | 401 | 403 => {
                self.learn(&response);
                Ok(())
            }
            404 => Err(Attempt::Answer(
                "it is not a container registry (no /v2/)".to_owned(),
            )),
            status => Err(Attempt::Answer(format!("it answers {status}"))),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, AuthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the challenge of an answer.
    fn learn(&self, response: &Response<Incoming>) {
        let headers = response.headers().get_all(header::WWW_AUTHENTICATE);
        let all: Vec<&str> = headers.iter().filter_map(|h| h.to_str().ok()).collect();
        if let Some(challenge) = Challenge::parse(&all.join(", ")) {
            let mut state = self.state();
            state.challenge = Some(challenge);
            state.token = None;
        }
    }

    /// Checks the credentials (`docker login`).
    pub async fn login(&self) -> Result<(), RegistryError> {
        let ask = Ask::new(Method::GET, self.uri("v2/")?, "login");
        let response = self.request(ask.clone()).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.client.refusal(response, &ask).await),
        }
    }

    /// The value for `Authorization`, if any is wanted.
    async fn authorization(&self) -> Result<Option<String>, RegistryError> {
        if let Some(credentials) = &self.credentials
            && !credentials.registry_token.is_empty()
        {
            return Ok(Some(format!("Bearer {}", credentials.registry_token)));
        }
        let (realm, service) = {
            let state = self.state();
            match &state.challenge {
                None => return Ok(None),
                Some(Challenge::Basic) => {
                    return Ok(self.credentials.as_ref().and_then(Credentials::basic));
                }
                Some(Challenge::Bearer { realm, service }) => {
                    if let Some((token, until)) = &state.token
                        && Instant::now() < *until
                    {
                        return Ok(Some(format!("Bearer {token}")));
                    }
                    (realm.clone(), service.clone())
                }
            }
        };
        let (token, life) = self.token(&realm, service.as_deref()).await?;
        let header = format!("Bearer {token}");
        self.state().token = Some((token, Instant::now() + life));
        Ok(Some(header))
    }

    fn scopes(&self) -> Vec<String> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
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
        let what = "a token";
        let wrong = |reason: &str| RegistryError::Protocol {
            host: self.host().to_owned(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = realm
            .parse()
            .map_err(|_| wrong("its token service has no valid address"))?;
        // Credentials go there: as safe as the registry itself, at least.
        let plain = uri.scheme_str() == Some("http")
            && self.base.scheme_str() == Some("http")
            && self.client.options.may_be_plain(authority(&uri));
        if uri.scheme_str() != Some("https") && !plain {
            return Err(wrong("its token service does not use HTTPS"));
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
            let mut ask = Ask::new(Method::POST, uri, what)
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
            let ask = Ask::new(Method::GET, uri, what);
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
        let answer: TokenAnswer =
            serde_json::from_slice(&bytes).map_err(|_| wrong("the answer is not a token"))?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty() && HeaderValue::from_str(token).is_ok())
            .ok_or_else(|| wrong("the answer has no token"))?;
        let life = answer.expires_in.map_or(TOKEN_LIFE, |seconds| {
            Duration::from_secs(seconds.min(3600).saturating_sub(10))
        });
        Ok((token, life))
    }

    /// `https://registry/v2/library/busybox/<rest>`.
    pub(crate) fn resource(&self, rest: &str) -> Result<Uri, RegistryError> {
        self.uri(&format!("v2/{}/{rest}", self.path))
    }

    fn uri(&self, rest: &str) -> Result<Uri, RegistryError> {
        format!("{}{rest}", self.base)
            .parse()
            .map_err(|_| RegistryError::Setup(format!("{rest:?} makes no valid address")))
    }

    /// Adds the authorization when a request goes to the registry itself.
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

    /// Sends a request with authorization and follows redirects of GET and HEAD.
    pub(crate) async fn request(&self, mut ask: Ask) -> Result<Response<Incoming>, RegistryError> {
        let mut redirects = 0;
        let mut renewed = false;
        loop {
            self.authorize(&mut ask).await?;
            let response = self.client.send(&ask).await?;
            match response.status().as_u16() {
                401 if !renewed && redirects == 0 => {
                    // The token has expired, or the challenge came only now.
                    renewed = true;
                    self.learn(&response);
                    if self.state().challenge.is_none() {
                        return Ok(response);
                    }
                }
                301 | 302 | 303 | 307 | 308
                    if ask.method == Method::GET || ask.method == Method::HEAD =>
                {
                    redirects += 1;
                    ask.uri = self.redirect(&ask, &response, redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Where a redirect leads to, when it may be followed.
    fn redirect(
        &self,
        ask: &Ask,
        response: &Response<Incoming>,
        count: u32,
    ) -> Result<Uri, RegistryError> {
        let wrong = |reason: String| RegistryError::Protocol {
            host: self.host().to_owned(),
            what: ask.what.clone(),
            reason,
        };
        if count > MAX_REDIRECTS {
            return Err(wrong(format!("more than {MAX_REDIRECTS} redirects")));
        }
        let target = location(&ask.uri, response)
            .ok_or_else(|| wrong("a redirect without a valid address".to_owned()))?;
        let plain = target.scheme_str() == Some("http");
        if plain && ask.uri.scheme_str() == Some("https") {
            return Err(wrong(format!(
                "it redirects from HTTPS to plain HTTP ({})",
                authority(&target)
            )));
        }
        if plain && !self.client.options.may_be_plain(authority(&target)) {
            return Err(wrong(format!(
                "it redirects to plain HTTP ({}), which is only for insecure registries",
                authority(&target)
            )));
        }
        Ok(target)
    }

    /// Fetches a manifest or index by tag or digest.
    pub async fn manifest(
        &self,
        reference: &str,
        expected: Option<Digest>,
    ) -> Result<Manifest, RegistryError> {
        let what = format!("manifest {reference}");
        let uri = self.resource(&format!("manifests/{reference}"))?;
        let mut ask = Ask::new(Method::GET, uri, &what);
        for media_type in ACCEPT {
            ask = ask.header(header::ACCEPT, media_type);
        }
        let mut tried = 0;
        let (bytes, media_type, claimed) = loop {
            tried += 1;
            let response = self.request(ask.clone()).await?;
            if !response.status().is_success() {
                return Err(self.client.refusal(response, &ask).await);
            }
            let text = |name: &str| {
                let value = response.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let media_type = text("content-type").unwrap_or_default();
            let claimed = text("docker-content-digest");
            match self.client.read(response, MAX_MANIFEST_SIZE, &ask).await {
                Ok(bytes) => break (bytes, media_type, claimed),
                Err(RegistryError::Unreachable { .. })
                    if tried < self.client.options.patience.attempts =>
                {
                    self.client.pause(tried, None).await;
                }
                Err(error) => return Err(error),
            }
        };
        let digest = Digest::of(&bytes);
        // A digest of the reference counts; the registry's own claim shows damage on the way.
        let expected = expected.or_else(|| claimed?.parse().ok()).unwrap_or(digest);
        if digest != expected {
            return Err(RegistryError::Digest {
                host: self.host().to_owned(),
                what,
                expected,
                found: digest,
            });
        }
        let media_type = media_type.split(';').next().unwrap_or_default();
        Ok(Manifest {
            bytes,
            digest,
            media_type: media_type.trim().to_owned(),
        })
    }

    /// Whether the registry has a manifest with this digest.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let uri = self.resource(&format!("manifests/{digest}"))?;
        let mut ask = Ask::new(Method::HEAD, uri, format!("manifest {digest}"));
        for media_type in ACCEPT {
            ask = ask.header(header::ACCEPT, media_type);
        }
        self.exists(ask).await
    }

    /// Whether the answer to a HEAD request says that the object is there.
    pub(crate) async fn exists(&self, ask: Ask) -> Result<bool, RegistryError> {
        let response = self.request(ask.clone()).await?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.client.refusal(response, &ask).await),
        }
    }

    /// Stores a manifest under a tag or its digest.
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let uri = self.resource(&format!("manifests/{reference}"))?;
        let mut ask = Ask::new(Method::PUT, uri, format!("upload of manifest {reference}"))
            .header(header::CONTENT_TYPE, media_type);
        ask.body = Bytes::copy_from_slice(bytes);
        let response = self.request(ask.clone()).await?;
        if !response.status().is_success() {
            return Err(self.client.refusal(response, &ask).await);
        }
        let claimed = response
            .headers()
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        match claimed {
            Some(found) if found != digest => Err(RegistryError::Digest {
                host: self.host().to_owned(),
                what: ask.what,
                expected: digest,
                found,
            }),
            _ => Ok(digest),
        }
    }

    /// All tags.
    pub async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut uri = self.resource("tags/list?n=1000")?;
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let ask = Ask::new(Method::GET, uri.clone(), "list of tags");
            let response = self.request(ask.clone()).await?;
            if !response.status().is_success() {
                return Err(self.client.refusal(response, &ask).await);
            }
            let next = response
                .headers()
                .get(header::LINK)
                .and_then(|link| next_page(link.to_str().ok()?))
                .and_then(|target| join(&uri, &target))
                .filter(|next| authority(next) == authority(&self.base));
            let bytes = self.client.read(response, MAX_DOCUMENT, &ask).await?;
            let page: Tags =
                serde_json::from_slice(&bytes).map_err(|_| RegistryError::Protocol {
                    host: self.host().to_owned(),
                    what: ask.what,
                    reason: "the answer is not a list of tags".to_owned(),
                })?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => uri = next,
                None => break,
            }
        }
        Ok(tags)
    }
}

fn base(tls: bool, name: &str) -> Result<Uri, RegistryError> {
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{name}/")
        .parse()
        .map_err(|_| RegistryError::Setup(format!("{name:?} is not a valid registry")))
}

/// The address in a `Location` header.
pub(crate) fn location(base: &Uri, response: &Response<Incoming>) -> Option<Uri> {
    let value = response.headers().get(header::LOCATION)?.to_str().ok()?;
    join(base, value)
}

/// The target of the link with relation `next` (RFC 8288).
fn next_page(header: &str) -> Option<String> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters.split(';').any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=next" || parameter == "rel=\"next\""
        });
        next.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (header, target) in [
            (
                "</v2/a/tags/list?n=1&last=x>; rel=\"next\"",
                Some("/v2/a/tags/list?n=1&last=x"),
            ),
            ("</p>; rel=prev, </n>;x=y; REL=next", Some("/n")),
            ("</p>; rel=prev", None),
            ("/n; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_page(header).as_deref(), target, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_link_is_survived(text in any::<String>()) {
            let _ = next_page(&text);
        }
    }
}

//! One repository of one registry: first contact, requests, redirects.

use http::{Method, Response, StatusCode, Uri, header};
use hyper::body::Incoming;

use crate::asked::Asked;
use crate::auth::Credentials;
use crate::client::{Ask, Attempt, Client, unreachable};
use crate::connect::ConnectError;
use crate::error::RegistryError;
use crate::options::Mirror;
use crate::session::Session;
use crate::uri::{authority, join};

/// The real address of Docker Hub's registry.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// How many redirects are followed one after another.
const MAX_REDIRECTS: u32 = 5;
/// Largest answer of a token service or page of tags, in bytes.
pub(crate) const MAX_DOCUMENT: u64 = 1 << 20;

/// The access that a repository is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepositoryAccess {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository of a registry.
#[derive(Debug)]
pub struct Repository {
    pub(crate) client: Client,
    /// `https://registry.example/`.
    pub(crate) base: Uri,
    /// `library/busybox`.
    pub(crate) path: String,
    pub(crate) access: RepositoryAccess,
    pub(crate) credentials: Option<Credentials>,
    /// Other repositories of the same registry that are read from.
    pub(crate) sources: Vec<String>,
    pub(crate) session: Session,
}

impl Repository {
    /// Contacts the registry of a reference (`docker.io`, `host[:port]`). HTTPS is used; plain HTTP
    /// only for loopback and hosts configured as insecure, if they do not support TLS. Without
    /// credentials, those of the configured files are used.
    pub async fn open(
        client: &Client,
        domain: &str,
        path: &str,
        access: RepositoryAccess,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        let name = if domain == "docker.io" {
            DOCKER_HUB
        } else {
            domain
        };
        let credentials = match credentials {
            None => client.stored_credentials(domain, path).await?,
            given => given,
        };
        let mut repository = Self::new(client, true, name, path, access, credentials)?;
        match repository.probe().await {
            Ok(()) => Ok(repository),
            // Not if there is TLS with a wrong certificate.
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

    /// Contacts a mirror. It gets credentials only if the configured files have some for it.
    pub async fn open_mirror(
        client: &Client,
        mirror: &Mirror,
        path: &str,
    ) -> Result<Self, RegistryError> {
        let name = &mirror.authority;
        let credentials = match mirror.tls || client.options.may_see_secrets(name) {
            true => client.stored_credentials(name, path).await?,
            false => None,
        };
        let repository = Self::new(
            client,
            mirror.tls,
            name,
            path,
            RepositoryAccess::Pull,
            credentials,
        )?;
        let probed = repository.probe().await;
        probed.map_err(|error| unreachable(&repository.base, error))?;
        Ok(repository)
    }

    fn new(
        client: &Client,
        tls: bool,
        name: &str,
        path: &str,
        access: RepositoryAccess,
        credentials: Option<Credentials>,
    ) -> Result<Self, RegistryError> {
        Ok(Self {
            client: client.clone(),
            base: base(tls, name)?,
            path: path.to_owned(),
            access,
            credentials,
            sources: Vec::new(),
            session: Session::default(),
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

    /// The first contact: finds out whether it is a registry, and which credentials it wants.
    async fn probe(&self) -> Result<(), Attempt> {
        let uri = format!("{}v2/", self.base);
        let uri: Uri = uri
            .parse()
            .map_err(|_| Attempt::Answer("it has no valid address".to_owned()))?;
        let ask = Ask::new(Method::GET, uri, Asked::Version);
        let response = self.client.try_send(&ask).await?;
        match response.status().as_u16() {
            200 | 401 | 403 => {
                self.learn(&response, None);
                Ok(())
            }
            404 => Err(Attempt::Answer(
                "it is not a container registry (no /v2/)".to_owned(),
            )),
            status => Err(Attempt::Answer(format!("it answers {status}"))),
        }
    }

    /// Checks the credentials (`docker login`).
    pub async fn login(&self) -> Result<(), RegistryError> {
        let ask = Ask::new(Method::GET, self.uri("v2/")?, Asked::Login);
        let response = self.request(ask.clone()).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                Err(RegistryError::Login {
                    address: ask.uri.to_string(),
                    status: status.to_string(),
                })
            }
            _ => Err(self.client.refusal(response, &ask).await),
        }
    }

    /// `https://registry/v2/library/busybox/<rest>`.
    pub(crate) fn resource(&self, rest: &str) -> Result<Uri, RegistryError> {
        self.uri(&format!("v2/{}/{rest}", self.path))
    }

    pub(crate) fn uri(&self, rest: &str) -> Result<Uri, RegistryError> {
        format!("{}{rest}", self.base)
            .parse()
            .map_err(|_| RegistryError::Setup(format!("{rest:?} makes no valid address")))
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
                    self.learn(&response, ask.headers.get(header::AUTHORIZATION));
                    if !self.is_challenged() {
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

    /// The target of a redirect, if it may be followed.
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
        if !self
            .client
            .options
            .may_lead(self.host(), authority(&target))
        {
            return Err(wrong(format!(
                "it redirects to this machine itself ({})",
                authority(&target)
            )));
        }
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

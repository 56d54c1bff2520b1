//! A client of the host API: one connection per request.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::error::CtlError;

/// Longest line of an answer, in bytes.
const MAX_LINE: usize = 1 << 20;

/// A machine's API.
pub(crate) struct Client {
    url: String,
    target: Target,
}

enum Target {
    Unix(String),
    Tls {
        /// `host:port`.
        address: String,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    },
}

impl Client {
    /// A client of the machine at `url`.
    pub(crate) fn new(url: &str, certificates: Option<&Path>) -> Result<Self, CtlError> {
        let wrong = || CtlError::Address {
            url: url.to_owned(),
        };
        let target = if let Some(path) = url.strip_prefix("unix://") {
            Target::Unix(path.to_owned())
        } else {
            let address = url
                .strip_prefix("tcp://")
                .map(|rest| rest.trim_end_matches('/'))
                .ok_or_else(wrong)?;
            let (host, _port) = address.rsplit_once(':').ok_or_else(wrong)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Target::Tls {
                address: address.to_owned(),
                name: ServerName::try_from(host.to_owned()).map_err(|_| wrong())?,
                config: tls(certificates.ok_or(CtlError::NoCertificates)?)?,
            }
        };
        Ok(Self {
            url: url.to_owned(),
            target,
        })
    }

    /// `GET`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CtlError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// `POST` without a body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, CtlError> {
        self.request(Method::POST, path, Bytes::new()).await
    }

    /// Sends a JSON body.
    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, CtlError> {
        let body = serde_json::to_vec(body).map_err(CtlError::Answer)?;
        self.request(method, path, body.into()).await
    }

    /// Sends a JSON body and passes each line of the response to `take` as it arrives.
    pub(crate) async fn lines<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        mut take: impl FnMut(T),
    ) -> Result<(), CtlError> {
        let body = serde_json::to_vec(body).map_err(CtlError::Answer)?;
        let answer = self.begin(method, path, body.into()).await?.into_body();
        self.each_line(answer, |line| {
            take(line);
            true
        })
        .await
    }

    /// `GET`: passes each line of the response to `take` as it arrives, until that returns false.
    pub(crate) async fn read_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        take: impl FnMut(T) -> bool,
    ) -> Result<(), CtlError> {
        let answer = self.begin(Method::GET, path, Bytes::new()).await?;
        self.each_line(answer.into_body(), take).await
    }

    async fn each_line<T: DeserializeOwned>(
        &self,
        mut answer: Incoming,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), CtlError> {
        let mut kept = Vec::new();
        while let Some(frame) = answer.frame().await {
            let frame = frame.map_err(|e| self.unreachable(&e))?;
            kept.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
            let mut rest = kept.as_slice();
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (line, after) = rest.split_at(end + 1);
                if !take(serde_json::from_slice(line).map_err(CtlError::Answer)?) {
                    return Ok(());
                }
                rest = after;
            }
            kept = rest.to_vec();
            if kept.len() > MAX_LINE {
                return Err(CtlError::Incomplete);
            }
        }
        match kept.is_empty() {
            true => Ok(()),
            false => Err(CtlError::Incomplete),
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, CtlError> {
        let answer = self.begin(method, path, body).await?;
        serde_json::from_slice(&self.whole(answer).await?).map_err(CtlError::Answer)
    }

    /// Sends a request. Returns the head of a successful answer, before its body.
    async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, CtlError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "hostd")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| self.unreachable(&e))?;
        let answer = match &self.target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|e| self.unreachable(&e))?;
                self.exchange(stream, request).await?
            }
            Target::Tls {
                address,
                name,
                config,
            } => {
                let stream = TcpStream::connect(address)
                    .await
                    .map_err(|e| self.unreachable(&e))?;
                let stream = TlsConnector::from(config.clone())
                    .connect(name.clone(), stream)
                    .await
                    .map_err(|e| self.unreachable(&e))?;
                self.exchange(stream, request).await?
            }
        };
        let status = answer.status();
        if !status.is_success() {
            let body = self.whole(answer).await?;
            return Err(CtlError::Refused {
                status: status.as_u16(),
                message: message(&body).unwrap_or_else(|| format!("the machine answered {status}")),
            });
        }
        Ok(answer)
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes, CtlError> {
        let body = answer.into_body().collect().await;
        Ok(body.map_err(|e| self.unreachable(&e))?.to_bytes())
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CtlError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(&e))?;
        // Ends with the answer. The request returns its errors as well.
        tokio::spawn(connection);
        sender
            .send_request(request)
            .await
            .map_err(|e| self.unreachable(&e))
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> CtlError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        CtlError::Connect {
            url: self.url.clone(),
            reason,
        }
    }
}

/// The text of `{"message": …}`.
fn message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(value.get("message")?.as_str()?.to_owned())
}

/// TLS with the three files that Docker clients use.
fn tls(dir: &Path) -> Result<Arc<ClientConfig>, CtlError> {
    let fail = |file: &str| {
        let path = dir.join(file);
        move |error: &dyn std::fmt::Debug| CtlError::Certificate {
            path,
            reason: format!("can't be used: {error:?}"),
        }
    };
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).map_err(|e| fail("ca.pem")(&e))?;
    let certificate =
        CertificateDer::from_pem_file(dir.join("cert.pem")).map_err(|e| fail("cert.pem")(&e))?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).map_err(|e| fail("key.pem")(&e))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|e| fail("ca.pem")(&e))?;
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| fail("cert.pem")(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|e| fail("cert.pem")(&e))?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert!(Client::new("unix:///run/docker.sock", None).is_ok());
        for wrong in ["http://a:1", "tcp://nowhere", "docker.sock"] {
            assert!(
                matches!(Client::new(wrong, None), Err(CtlError::Address { .. })),
                "{wrong}"
            );
        }
        assert!(matches!(
            Client::new("tcp://a:2376", None),
            Err(CtlError::NoCertificates)
        ));
    }

    #[test]
    fn messages_are_found() {
        assert_eq!(message(br#"{"message":"no"}"#).as_deref(), Some("no"));
        assert_eq!(message(b"no"), None);
    }
}

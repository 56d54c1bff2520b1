//! API calls over mutual TLS, blocking.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::http::{HttpError, HttpResponse};
use super::provision::Credentials;

/// The client's identity, and whom it trusts.
#[derive(Debug, Clone, Copy)]
pub enum Identity<'a> {
    /// The client certificate of these credentials.
    Certificate(&'a Credentials),
    /// No client certificate; the authority of these credentials is trusted.
    Anonymous(&'a Credentials),
}

fn config(identity: Identity<'_>) -> Result<ClientConfig, HttpError> {
    let (Identity::Certificate(credentials) | Identity::Anonymous(credentials)) = identity;
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |e: rustls_pki_types::pem::Error| HttpError::Credentials(format!("{path}: {e}"))
    };
    let certificates = |name: &str| {
        let path = credentials.dir.join(name);
        CertificateDer::pem_file_iter(&path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(fail(&path))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca.pem")? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match identity {
        Identity::Anonymous(_) => Ok(builder.with_no_client_auth()),
        Identity::Certificate(_) => {
            let path = credentials.dir.join("key.pem");
            let key = PrivateKeyDer::from_pem_file(&path).map_err(fail(&path))?;
            Ok(builder.with_client_auth_cert(certificates("cert.pem")?, key)?)
        }
    }
}

/// Sends one request to 127.0.0.1:`port` and returns the whole answer. `limit` bounds every
/// single wait for the network, not the sum.
///
/// # Errors
/// No connection, a refused certificate on either side, or something that is not HTTP.
pub fn request(
    identity: Identity<'_>,
    port: u16,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
    limit: Duration,
) -> Result<HttpResponse, HttpError> {
    let config = Arc::new(config(identity)?);
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let tls = ClientConnection::new(config, name)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let tcp = TcpStream::connect_timeout(&address, limit)?;
    tcp.set_read_timeout(Some(limit))?;
    tcp.set_write_timeout(Some(limit))?;
    let mut stream = StreamOwned::new(tls, tcp);
    let content = body.map(ToString::to_string).unwrap_or_default();
    let kind = match body {
        Some(_) => "Content-Type: application/json\r\n",
        None => "",
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: keelson\r\nConnection: close\r\n{kind}\
         Content-Length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(content.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The server closed without a TLS closing message. The length shows whether data is
        // missing.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => {}
        result => drop(result?),
    }
    HttpResponse::parse(&answer)
}

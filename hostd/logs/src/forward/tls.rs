//! Whom to trust, and what to show. The files are read at each connection, so that new certificates
//! need no restart.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_model::host::ForwardConfig;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

/// Where distributions keep their authorities.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogTlsError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: pem::Error },
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    #[error("read {}: {source}", path.display())]
    Bundle { path: PathBuf, source: io::Error },
    #[error("no authorities are known: name a file with `ca`")]
    NoAuthorities,
    #[error("certificate and key can't be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Reads the files that the configuration names.
pub(super) fn client(config: &ForwardConfig) -> Result<Arc<ClientConfig>, LogTlsError> {
    let mut roots = RootCertStore::empty();
    match &config.ca {
        Some(path) => {
            roots.add_parsable_certificates(certificates(path)?);
            if roots.is_empty() {
                return Err(LogTlsError::Empty(path.clone()));
            }
        }
        None => system(&mut roots)?,
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let client = match (&config.certificate, &config.key) {
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(read(key))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, LogTlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(read(path))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(read(path))?;
    match found.is_empty() {
        true => Err(LogTlsError::Empty(path.to_owned())),
        false => Ok(found),
    }
}

fn read(path: &Path) -> impl FnOnce(pem::Error) -> LogTlsError {
    let path = path.to_owned();
    move |source| LogTlsError::Read { path, source }
}

fn system(roots: &mut RootCertStore) -> Result<(), LogTlsError> {
    for path in BUNDLES.map(Path::new) {
        match std::fs::read(path) {
            Ok(text) => {
                roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                let path = path.to_owned();
                return Err(LogTlsError::Bundle { path, source });
            }
        }
    }
    match roots.is_empty() {
        true => Err(LogTlsError::NoAuthorities),
        false => Ok(()),
    }
}

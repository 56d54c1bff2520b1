//! TLS for registries: with the system's certificate authorities, with those of a single registry,
//! or without any check for registries configured as insecure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::options::RegistryOptions;

/// Why TLS can't be configured on this side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("cannot read {}: {source}", path.display())]
    Bundle { path: PathBuf, source: io::Error },
    #[error("cannot use {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot use {}: {source}", path.display())]
    Pem {
        path: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("client certificate for {authority}: {source}")]
    Client {
        authority: String,
        source: rustls::Error,
    },
    #[error("certificate authority: {0}")]
    Authority(#[source] rustls::Error),
    #[error(transparent)]
    Verifier(#[from] VerifierBuilderError),
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// Makes the TLS configuration of each registry.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// The system's authorities, read at the first use.
    roots: OnceLock<Arc<RootCertStore>>,
    /// The configuration for registries without their own files. It keeps sessions.
    usual: OnceLock<Arc<ClientConfig>>,
}

impl Trust {
    /// The configuration for one registry. Reads files, which may have changed since the last call.
    pub(crate) fn config(
        &self,
        options: &RegistryOptions,
        authority: &str,
    ) -> Result<Arc<ClientConfig>, TrustError> {
        let directory = own_directory(options, authority);
        let insecure = options.is_insecure(authority);
        if directory.is_none() && !insecure {
            if let Some(config) = self.usual.get() {
                return Ok(Arc::clone(config));
            }
            let verifier = self.verifier(options, &[])?;
            let config = Arc::new(builder(verifier)?.with_no_client_auth());
            return Ok(Arc::clone(self.usual.get_or_init(|| config)));
        }
        let files = match &directory {
            Some(directory) => OwnFiles::read(directory)?,
            None => OwnFiles::default(),
        };
        let verifier: Arc<dyn ServerCertVerifier> = if insecure {
            Arc::new(Fixed {
                provider: Arc::new(ring::default_provider()),
                trusted: true,
            })
        } else {
            self.verifier(options, &files.authorities)?
        };
        let builder = builder(verifier)?;
        let config = match files.client {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TrustError::Client {
                    authority: authority.to_owned(),
                    source,
                })?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        options: &RegistryOptions,
        own: &[CertificateDer<'static>],
    ) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
        let system = match self.roots.get() {
            Some(roots) => roots,
            None => {
                let roots = Arc::new(system_roots(&options.bundles)?);
                self.roots.get_or_init(|| roots)
            }
        };
        let roots = if own.is_empty() {
            Arc::clone(system)
        } else {
            let mut roots = RootCertStore::clone(system);
            for certificate in own {
                roots
                    .add(certificate.clone())
                    .map_err(TrustError::Authority)?;
            }
            Arc::new(roots)
        };
        if roots.is_empty() {
            // It is not known yet whether the registry supports TLS.
            tracing::warn!("no certificate authorities are known; install ca-certificates");
            let provider = Arc::new(ring::default_provider());
            return Ok(Arc::new(Fixed {
                provider,
                trusted: false,
            }));
        }
        WebPkiServerVerifier::builder_with_provider(roots, Arc::new(ring::default_provider()))
            .build()
            .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
            .map_err(TrustError::from)
    }
}

fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TrustError> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier),
    )
}

/// The first bundle that exists. Certificates that cannot be parsed are left out.
fn system_roots(bundles: &[PathBuf]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for path in bundles {
        match std::fs::read(path) {
            Ok(text) => {
                let found = CertificateDer::pem_slice_iter(&text).flatten();
                let (_, ignored) = roots.add_parsable_certificates(found);
                if ignored > 0 {
                    tracing::debug!(path = %path.display(), ignored, "unusable authorities");
                }
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                let path = path.clone();
                return Err(TrustError::Bundle { path, source });
            }
        }
    }
    Ok(roots)
}

/// The registry's own directory.
fn own_directory(options: &RegistryOptions, authority: &str) -> Option<PathBuf> {
    // The name becomes a path: it must be one component.
    if authority.contains('/') || authority.starts_with('.') {
        return None;
    }
    options
        .certificates
        .iter()
        .map(|directory| directory.join(authority))
        .find(|directory| directory.is_dir())
}

/// The contents of a registry's directory.
#[derive(Default)]
struct OwnFiles {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl OwnFiles {
    fn read(directory: &Path) -> Result<Self, TrustError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source| TrustError::Pem { path, source }
        };
        let mut paths = std::fs::read_dir(directory)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(|source| TrustError::Directory {
                path: directory.to_owned(),
                source,
            })?;
        paths.sort();
        let mut files = Self::default();
        for path in paths {
            let certificates = || -> Result<Vec<CertificateDer<'static>>, TrustError> {
                CertificateDer::pem_file_iter(&path)
                    .and_then(Iterator::collect)
                    .map_err(unusable(&path))
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => files.authorities.extend(certificates()?),
                Some("cert") if files.client.is_none() => {
                    let chain = certificates()?;
                    let key_path = path.with_extension("key");
                    let key =
                        PrivateKeyDer::from_pem_file(&key_path).map_err(unusable(&key_path))?;
                    files.client = Some((chain, key));
                }
                _ => {}
            }
        }
        Ok(files)
    }
}

/// Accepts any certificate, for registries that the operator named as insecure; or none, if no
/// authorities are known.
#[derive(Debug)]
struct Fixed {
    provider: Arc<CryptoProvider>,
    trusted: bool,
}

impl ServerCertVerifier for Fixed {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.trusted {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

//! The machine's certificate authority, its server certificate and client certificates.
//!
//! One directory holds `ca.pem`, `ca-key.pem`, `server-cert.pem` and `server-key.pem`. Only root can
//! read the keys, which are ECDSA on P-256.
//!
//! A crash at any point leaves a directory that the next start completes: every file is replaced
//! atomically, a key is written before its certificate, and a missing or outdated certificate is
//! made again from its key.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use keelson_model::host_api::{ClientCertificate, IssuedCertificate, Role};
use keelson_store::{Durability, Era, file};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::addresses::ServerNames;
use crate::clients::{self, Clients};
use crate::pki_error::PkiError;
use crate::verifier::Unrevoked;

/// Days for which the authority's certificate is valid.
const CA_DAYS: i64 = 20 * 365;
/// Days for which a server's certificate is valid. Some clients refuse more than 398.
const SERVER_DAYS: i64 = 397;
/// Days for which a client's certificate is valid.
const CLIENT_DAYS: i64 = 397;
/// The server's certificate is renewed this many days before it expires.
const RENEW_DAYS: i64 = 30;

/// The keys of a machine.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca_der: CertificateDer<'static>,
    ca_key: KeyPair,
    clients: Arc<Clients>,
}

impl Pki {
    /// Opens the directory of the keys. Makes the authority when there is none yet.
    ///
    /// # Errors
    /// The directory can't be written, or it holds a key or certificate that is not usable. A
    /// damaged authority is never replaced: every client would have to be set up again.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        Self::open_in(dir, Era::Blessed)
    }

    /// Like [`Self::open`]. `era` is the trial when the running release may still be rolled back.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_in(dir: &Path, era: Era) -> Result<Self, PkiError> {
        prepare_directory(dir)?;
        let key_path = dir.join("ca-key.pem");
        let cert_path = dir.join("ca.pem");
        let ca_key = match read(&key_path)? {
            Some(text) => KeyPair::from_pem(&text).map_err(|e| PkiError::damaged(&key_path, e))?,
            None if cert_path.exists() => {
                return Err(PkiError::damaged(
                    dir,
                    "ca.pem is there but its key ca-key.pem is not",
                ));
            }
            None => new_key(&key_path)?,
        };
        let ca_pem = match read(&cert_path)? {
            Some(text) => text,
            None => {
                let text = ca_certificate(&ca_key)?;
                file::write(&cert_path, text.as_bytes(), 0o644, Durability::Flushed)?;
                text
            }
        };
        let ca_der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|e| PkiError::damaged(&cert_path, format!("{e:?}")))?;
        let (_, parsed) =
            X509Certificate::from_der(&ca_der).map_err(|e| PkiError::damaged(&cert_path, e))?;
        if *parsed.public_key().subject_public_key.data != *ca_key.public_key_raw() {
            return Err(PkiError::damaged(&cert_path, "it belongs to another key"));
        }
        Ok(Self {
            clients: Arc::new(Clients::open(dir, era)?),
            dir: dir.to_owned(),
            ca_pem,
            ca_der,
            ca_key,
        })
    }

    /// The authority's certificate, PEM.
    pub fn ca(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 fingerprint of the authority's certificate: `AB:CD:…`.
    pub fn fingerprint(&self) -> String {
        clients::fingerprint(&self.ca_der)
    }

    /// The client certificates.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Makes the server's certificate when there is none, when it lacks a name or address, or when
    /// it expires soon. Returns whether one was made.
    ///
    /// # Errors
    /// The certificate can't be made or written.
    pub fn ensure_server(&self, names: &ServerNames, now: Timestamp) -> Result<bool, PkiError> {
        let path = self.dir.join("server-cert.pem");
        let key_path = self.dir.join("server-key.pem");
        let key = match read(&key_path)?.map(|text| KeyPair::from_pem(&text)) {
            Some(Ok(key)) => key,
            // Clients trust the authority, not this key: replacing it changes nothing for them.
            Some(Err(error)) => {
                tracing::warn!(path = %key_path.display(), %error, "the server's key is damaged; a new one is made");
                new_key(&key_path)?
            }
            None => new_key(&key_path)?,
        };
        let usable = read(&path)?
            .and_then(|text| CertificateDer::from_pem_slice(text.as_bytes()).ok())
            .is_some_and(|der| self.server_fits(&der, &key, names, now));
        if usable {
            return Ok(false);
        }
        let mut params = params("Keelson server", None, SERVER_DAYS, now)?;
        if let Some(name) = names.names.iter().find(|name| *name != "localhost") {
            params
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        params.subject_alt_names = alternative_names(names)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&key, &self.issuer()?)
            .map_err(PkiError::make("the server's certificate"))?;
        file::write(
            &path,
            certificate.pem().as_bytes(),
            0o644,
            Durability::Flushed,
        )?;
        Ok(true)
    }

    fn server_fits(
        &self,
        der: &CertificateDer<'_>,
        key: &KeyPair,
        wanted: &ServerNames,
        now: Timestamp,
    ) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return false;
        };
        let seconds = now.as_second();
        let validity = certificate.validity();
        let in_time = validity.not_before.timestamp() <= seconds
            && validity.not_after.timestamp() > seconds + RENEW_DAYS * 86400;
        *certificate.public_key().subject_public_key.data == *key.public_key_raw()
            && in_time
            && names_of(&certificate) == *wanted
            && self.is_issuer_of(&certificate)
    }

    /// Compares the key identifiers. That is enough: the directory is ours, so the question is
    /// whether the certificate is outdated, not whether it is trusted.
    fn is_issuer_of(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok((_, ca)) = X509Certificate::from_der(&self.ca_der) else {
            return false;
        };
        let subject = ca
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        let authority = certificate
            .extensions()
            .iter()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            });
        subject.is_some() && subject == authority
    }

    /// Signs a client's request. Only the key in the request is used.
    ///
    /// # Errors
    /// `InvalidInput`: the request or the name is not usable.
    pub fn issue(
        &self,
        csr: &str,
        name: &str,
        role: Role,
        now: Timestamp,
    ) -> Result<IssuedCertificate, PkiError> {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(PkiError::Request(format!(
                "name {name:?} must have 1 to 64 characters and no control characters"
            )));
        }
        let mut request = CertificateSigningRequestParams::from_pem(csr)
            .map_err(|e| PkiError::Request(e.to_string()))?;
        request.params = params(name, Some(role), CLIENT_DAYS, now)?;
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = request
            .signed_by(&self.issuer()?)
            .map_err(PkiError::make("a client's certificate"))?;
        self.clients
            .add(remembered(certificate.der(), name, role, now)?, now)?;
        Ok(IssuedCertificate {
            ca: self.ca_pem.clone(),
            certificate: certificate.pem(),
        })
    }

    fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, PkiError> {
        Issuer::from_ca_cert_der(&self.ca_der, &self.ca_key)
            .map_err(PkiError::make("an issuer of the authority"))
    }

    /// The configuration of the TLS server: the server's certificate from the disk, and a verifier
    /// that admits only clients with a certificate of this authority.
    ///
    /// # Errors
    /// The server's files are not usable. Call [`Self::ensure_server`] first.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, PkiError> {
        let cert_path = self.dir.join("server-cert.pem");
        let key_path = self.dir.join("server-key.pem");
        let certificate = CertificateDer::from_pem_file(&cert_path)
            .map_err(|e| PkiError::damaged(&cert_path, format!("{e:?}")))?;
        let key = PrivateKeyDer::from_pem_file(&key_path)
            .map_err(|e| PkiError::damaged(&key_path, format!("{e:?}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(self.ca_der.clone())
            .map_err(|e| PkiError::damaged(&self.dir.join("ca.pem"), e))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| PkiError::damaged(&self.dir.join("ca.pem"), e))?;
        let verifier = Arc::new(Unrevoked {
            chain: verifier,
            clients: Arc::clone(&self.clients),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| PkiError::damaged(&cert_path, e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .map_err(|e| PkiError::damaged(&cert_path, e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Makes the directory. Only its owner may enter it, because it holds keys.
fn prepare_directory(dir: &Path) -> Result<(), PkiError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| PkiError::Read {
            path: dir.to_owned(),
            source,
        })?;
    file::sweep(dir)?;
    Ok(())
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn new_key(path: &Path) -> Result<KeyPair, PkiError> {
    let key =
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(PkiError::make("a key"))?;
    file::write(
        path,
        key.serialize_pem().as_bytes(),
        0o600,
        Durability::Flushed,
    )?;
    Ok(key)
}

fn ca_certificate(key: &KeyPair) -> Result<String, PkiError> {
    let fail = PkiError::make("the authority's certificate");
    let mut params = params("Keelson machine CA", None, CA_DAYS, Timestamp::now())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(params.self_signed(key).map_err(fail)?.pem())
}

/// What all our certificates have in common. They are valid from yesterday on, because clocks
/// differ.
fn params(
    name: &str,
    role: Option<Role>,
    days: i64,
    now: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let day = |offset: i64| {
        let date = now
            .checked_add((offset * 24).hours())
            .unwrap_or(now)
            .to_zoned(TimeZone::UTC)
            .date();
        rcgen::date_time_ymd(
            date.year().into(),
            u8::try_from(date.month()).unwrap_or(1),
            u8::try_from(date.day()).unwrap_or(1),
        )
    };
    let mut params = CertificateParams::default();
    params.not_before = day(-1);
    params.not_after = day(days);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(role) = role {
        params
            .distinguished_name
            .push(DnType::OrganizationName, role.as_str());
    }
    // RFC 5280 4.1.2.2: positive, unique; the top bit is cleared to keep it positive.
    let mut serial = random()?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Random bytes for a serial number. Without enough of them no certificate is made: two certificates
/// with the same serial number could not be distinguished.
fn random() -> Result<[u8; 16], PkiError> {
    let mut bytes = [0_u8; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    check_random(filled.map_err(io::Error::from), bytes)
}

fn check_random(filled: io::Result<usize>, bytes: [u8; 16]) -> Result<[u8; 16], PkiError> {
    let reason = match filled {
        Ok(16) => return Ok(bytes),
        Ok(count) => format!("the kernel returned {count} of 16 random bytes"),
        Err(error) => format!("no random numbers: {error}"),
    };
    Err(PkiError::Make {
        what: "a serial number",
        reason,
    })
}

/// The entry for a client's certificate in the list.
fn remembered(
    der: &CertificateDer<'_>,
    name: &str,
    role: Role,
    now: Timestamp,
) -> Result<ClientCertificate, PkiError> {
    let wrong = |reason: String| PkiError::Make {
        what: "a client's certificate",
        reason,
    };
    let (_, parsed) = X509Certificate::from_der(der).map_err(|error| wrong(error.to_string()))?;
    let expires = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|error| wrong(error.to_string()))?;
    Ok(ClientCertificate {
        fingerprint: clients::fingerprint(der),
        serial: clients::serial_text(parsed.raw_serial()),
        name: name.to_owned(),
        role: Some(role),
        issued: Some(now.to_string()),
        expires: Some(expires.to_string()),
        revoked: None,
    })
}

fn alternative_names(names: &ServerNames) -> Result<Vec<SanType>, PkiError> {
    let mut out = Vec::new();
    for name in &names.names {
        let name = name
            .as_str()
            .try_into()
            .map_err(PkiError::make("the server's names"))?;
        out.push(SanType::DnsName(name));
    }
    out.extend(names.addresses.iter().copied().map(SanType::IpAddress));
    Ok(out)
}

/// The alternative names that a certificate carries.
fn names_of(certificate: &X509Certificate<'_>) -> ServerNames {
    let mut found = ServerNames::default();
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return found;
    };
    for name in &extension.value.general_names {
        match name {
            GeneralName::DNSName(name) => {
                found.names.insert((*name).to_owned());
            }
            GeneralName::IPAddress(bytes) => {
                let address = <[u8; 4]>::try_from(*bytes)
                    .map(IpAddr::from)
                    .or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
                found.addresses.extend(address);
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;

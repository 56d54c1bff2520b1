//! The client certificates that this machine has issued, and which of them are revoked.
//!
//! The list is one file beside the authority's keys. It is written before a certificate is handed out
//! and before a revocation is answered. Without a readable list there is no API over TCP, because
//! revoked certificates could not be recognised.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use keelson_model::host_api::{ClientCertificate, RevocationRequest};
use keelson_store::document::{self, Document};
use keelson_store::{Durability, Era, Rest, StoreError};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki_error::PkiError;

/// The file's name.
const FILE: &str = "clients.json";
/// Most certificates in the list. Expired ones are removed.
const MOST: usize = 4096;

#[derive(Debug, Default, Serialize, Deserialize)]
struct List {
    certificates: Vec<ClientCertificate>,
    /// Members that a newer release wrote.
    #[serde(flatten)]
    rest: Rest,
}

impl Document for List {
    const VERSION: u32 = 1;
}

/// The client certificates.
#[derive(Debug)]
pub struct Clients {
    path: PathBuf,
    era: Era,
    list: Mutex<Vec<ClientCertificate>>,
    rest: Rest,
    revoked: watch::Sender<Arc<Revoked>>,
}

/// The revoked certificates, for the look-up at every handshake.
#[derive(Debug, Default)]
struct Revoked {
    fingerprints: HashSet<String>,
    serials: HashSet<String>,
}

impl Revoked {
    fn of(list: &[ClientCertificate]) -> Arc<Self> {
        let mut revoked = Self::default();
        for entry in list.iter().filter(|entry| entry.revoked.is_some()) {
            revoked.fingerprints.insert(entry.fingerprint.clone());
            // Serial numbers of one authority are unique.
            revoked.serials.insert(entry.serial.clone());
        }
        revoked.fingerprints.remove("");
        revoked.serials.remove("");
        Arc::new(revoked)
    }

    fn has(&self, identity: &Identity) -> bool {
        self.fingerprints.contains(&identity.fingerprint) || self.serials.contains(&identity.serial)
    }
}

/// What identifies a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    fingerprint: String,
    serial: String,
}

impl Identity {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let serial = X509Certificate::from_der(certificate)
            .map(|(_, parsed)| serial_text(parsed.raw_serial()))
            .unwrap_or_default();
        Self {
            fingerprint: fingerprint(certificate),
            serial,
        }
    }
}

/// SHA-256 fingerprint of a certificate: `AB:CD:…`.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digits: Vec<String> = Sha256::digest(certificate)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    digits.join(":")
}

/// A serial number as hexadecimal digits, without leading zeros.
pub(crate) fn serial_text(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    digits.trim_start_matches('0').to_owned()
}

/// Reads hexadecimal digits, with or without colons, spaces and capitals.
fn digits(field: &str, text: &str) -> Result<String, PkiError> {
    let digits: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_ascii_uppercase())
        .collect();
    match !digits.is_empty() && digits.len() <= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    {
        true => Ok(digits),
        false => Err(PkiError::Request(format!(
            "{field} {text:?} must be hexadecimal digits, with or without colons"
        ))),
    }
}

impl Clients {
    /// Reads the list from the directory of the keys.
    pub(crate) fn open(directory: &Path, era: Era) -> Result<Self, StoreError> {
        let path = directory.join(FILE);
        let document: List = document::read(&path)?.unwrap_or_default();
        let revoked = Revoked::of(&document.certificates);
        Ok(Self {
            path,
            era,
            list: Mutex::new(document.certificates),
            rest: document.rest,
            revoked: watch::Sender::new(revoked),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ClientCertificate>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All certificates in the list, in the order in which they were issued.
    pub fn list(&self) -> Vec<ClientCertificate> {
        self.lock().clone()
    }

    /// Whether a certificate is revoked.
    pub fn is_revoked(&self, certificate: &CertificateDer<'_>) -> bool {
        self.revoked.borrow().has(&Identity::of(certificate))
    }

    /// Returns when a certificate is revoked.
    pub async fn revoked(self: Arc<Self>, certificate: CertificateDer<'static>) {
        let identity = Identity::of(&certificate);
        let mut changes = self.revoked.subscribe();
        // `self` holds the sender, so the wait can't fail.
        let _ = changes.wait_for(|revoked| revoked.has(&identity)).await;
    }

    /// Adds a certificate that is about to be handed out. Blocks.
    pub(crate) fn add(&self, entry: ClientCertificate, now: Timestamp) -> Result<(), PkiError> {
        let mut list = self.lock();
        let mut next: Vec<_> = list
            .iter()
            .filter(|old| !has_expired(old, now))
            .cloned()
            .collect();
        if next.len() >= MOST {
            return Err(PkiError::Request(format!(
                "this machine has issued {MOST} certificates that have not expired, and keeps a list of \
                 no more"
            )));
        }
        next.push(entry);
        self.write(&mut list, next)
    }

    /// Revokes certificates and returns them. Blocks. Repeating it changes nothing.
    ///
    /// # Errors
    /// The request does not name exactly one thing, nobody has that name, or the file can't be
    /// written.
    pub fn revoke(
        &self,
        request: &RevocationRequest,
        now: Timestamp,
    ) -> Result<Vec<ClientCertificate>, PkiError> {
        let target = RevocationTarget::of(request)?;
        let mut list = self.lock();
        let mut next = list.clone();
        let mut found = Vec::new();
        for entry in next.iter_mut().filter(|entry| target.means(entry)) {
            entry.revoked.get_or_insert_with(|| now.to_string());
            found.push(entry.clone());
        }
        if found.is_empty() {
            // It may have been issued before there was a list.
            let entry = target.unknown(now)?;
            if next.len() >= MOST {
                return Err(PkiError::Request(format!(
                    "the list holds {MOST} certificates and no more"
                )));
            }
            next.push(entry.clone());
            found.push(entry);
        }
        self.write(&mut list, next)?;
        self.revoked.send_replace(Revoked::of(&list));
        Ok(found)
    }

    fn write(
        &self,
        list: &mut Vec<ClientCertificate>,
        next: Vec<ClientCertificate>,
    ) -> Result<(), PkiError> {
        let document = List {
            certificates: next,
            rest: self.rest.clone(),
        };
        document::write(&self.path, &document, self.era, Durability::Flushed)?;
        *list = document.certificates;
        Ok(())
    }
}

fn has_expired(entry: &ClientCertificate, now: Timestamp) -> bool {
    let expires = entry
        .expires
        .as_deref()
        .and_then(|text| text.parse::<Timestamp>().ok());
    expires.is_some_and(|expires| expires < now)
}

/// The certificates to revoke.
enum RevocationTarget<'a> {
    Fingerprint(String),
    Serial(String),
    Name(&'a str),
}

impl<'a> RevocationTarget<'a> {
    fn of(request: &'a RevocationRequest) -> Result<Self, PkiError> {
        match request {
            RevocationRequest {
                fingerprint: Some(text),
                serial: None,
                name: None,
            } => {
                let digits = digits("fingerprint", text)?;
                if digits.len() != 64 {
                    return Err(PkiError::Request(format!(
                        "fingerprint {text:?} must have 64 hexadecimal digits (SHA-256)"
                    )));
                }
                let pairs: Vec<&str> = (0..32)
                    .filter_map(|at| digits.get(2 * at..2 * at + 2))
                    .collect();
                Ok(Self::Fingerprint(pairs.join(":")))
            }
            RevocationRequest {
                fingerprint: None,
                serial: Some(text),
                name: None,
            } => Ok(Self::Serial(
                digits("serial", text)?.trim_start_matches('0').to_owned(),
            )),
            RevocationRequest {
                fingerprint: None,
                serial: None,
                name: Some(name),
            } => Ok(Self::Name(name)),
            _ => Err(PkiError::Request(
                "name the certificate by exactly one of fingerprint, serial and name".to_owned(),
            )),
        }
    }

    fn means(&self, entry: &ClientCertificate) -> bool {
        match self {
            Self::Fingerprint(fingerprint) => entry.fingerprint == *fingerprint,
            Self::Serial(serial) => entry.serial == *serial,
            Self::Name(name) => entry.name == *name,
        }
    }

    /// An entry for a certificate that is not in the list.
    fn unknown(self, now: Timestamp) -> Result<ClientCertificate, PkiError> {
        let mut entry = ClientCertificate {
            revoked: Some(now.to_string()),
            ..ClientCertificate::default()
        };
        match self {
            Self::Fingerprint(fingerprint) => entry.fingerprint = fingerprint,
            Self::Serial(serial) => entry.serial = serial,
            Self::Name(name) => return Err(PkiError::NoClient(name.to_owned())),
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8, name: &str) -> ClientCertificate {
        ClientCertificate {
            fingerprint: vec![format!("{number:02X}"); 32].join(":"),
            serial: format!("4{number}"),
            name: name.to_owned(),
            expires: Some("2100-01-01T00:00:00Z".to_owned()),
            ..ClientCertificate::default()
        }
    }

    fn by_name(name: &str) -> RevocationRequest {
        RevocationRequest {
            name: Some(name.to_owned()),
            ..RevocationRequest::default()
        }
    }

    #[test]
    fn revocations_stay_and_expired_certificates_go() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let clients = Clients::open(dir.path(), Era::Blessed).unwrap();
        for (number, name) in [(1, "ann"), (2, "ann"), (3, "bob")] {
            clients.add(entry(number, name), now).unwrap();
        }
        assert_eq!(clients.revoke(&by_name("ann"), now).unwrap().len(), 2);
        assert_eq!(clients.revoke(&by_name("ann"), now).unwrap().len(), 2);
        let error = clients.revoke(&by_name("eve"), now).unwrap_err();
        assert!(matches!(error, PkiError::NoClient(_)));
        let fingerprint = Some("0a".repeat(32));
        let request = RevocationRequest {
            fingerprint,
            ..RevocationRequest::default()
        };
        clients.revoke(&request, now).unwrap();
        let again = Clients::open(dir.path(), Era::Blessed).unwrap();
        assert_eq!(again.list(), clients.list());
        let revoked = again.revoked.borrow().clone();
        assert_eq!(revoked.serials.len(), 2);
        assert_eq!(revoked.fingerprints.len(), 3);
        let mut old = entry(4, "old");
        old.expires = Some("2001-01-01T00:00:00Z".to_owned());
        again.add(old, now).unwrap();
        again.add(entry(5, "new"), now).unwrap();
        assert!(again.list().iter().all(|entry| entry.name != "old"));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Clients::open(dir.path(), Era::Blessed).is_err());
    }

    #[test]
    fn the_file_migrates_forward_and_back() {
        #[derive(Deserialize)]
        struct First {
            #[allow(dead_code, reason = "only read")]
            certificates: Vec<ClientCertificate>,
        }
        document::assert_goes_back::<List>(&[(1, include_str!("../tests/golden/clients.1.json"))]);
        let list = List {
            certificates: vec![entry(1, "ann")],
            rest: Rest::default(),
        };
        document::assert_first_release_reads::<_, First>(&list, 1);
    }

    /// A file of a newer release stays as it is, and opening the list fails.
    #[test]
    fn a_file_of_a_newer_release_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let newer = r#"{"version":2,"readable_from":2,"certificates":[]}"#;
        std::fs::write(dir.path().join(FILE), newer).unwrap();
        let error = Clients::open(dir.path(), Era::Blessed).unwrap_err();
        assert!(error.is_too_new(), "{error}");
        // Members that this release does not need are kept and written again.
        let newer = r#"{"version":2,"readable_from":1,"certificates":[],"newer":"kept"}"#;
        std::fs::write(dir.path().join(FILE), newer).unwrap();
        let clients = Clients::open(dir.path(), Era::Blessed).unwrap();
        clients.add(entry(1, "ann"), Timestamp::now()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(text.contains(r#""newer":"kept""#), "{text}");
    }

    #[test]
    fn a_request_names_exactly_one_thing() {
        for (fingerprint, serial, name) in [
            (None, None, None),
            (Some("zz"), None, None),
            (Some("ab"), None, None),
            (None, Some(""), None),
            (None, Some("1"), Some("ann")),
        ] {
            let text = |value: Option<&str>| value.map(str::to_owned);
            let request = RevocationRequest {
                fingerprint: text(fingerprint),
                serial: text(serial),
                name: text(name),
            };
            assert!(RevocationTarget::of(&request).is_err(), "{request:?}");
        }
    }
}

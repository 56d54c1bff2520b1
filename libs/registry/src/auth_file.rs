//! Credentials of the machine: files in the format of Docker's `config.json` and podman's
//! `auth.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_blocking::{TaskDied, blocking};
use keelson_model::json::{self, Json};
use serde::Deserialize;

use crate::auth::Credentials;
use crate::client::Client;
use crate::error::RegistryError;

/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// The keys for credentials of Docker Hub.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Why a file with credentials can't be used. The text never contains a secret.
#[derive(Debug, thiserror::Error)]
enum AuthFileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("others than its owner may use it (mode {0:03o}); run chmod 600 on it")]
    Mode(u32),
    #[error("it is larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// A syntax error is reported by its position.
    #[error("it is not JSON of Docker's config.json: {0}")]
    Syntax(#[from] json::JsonError),
    /// A wrong value is named, but not quoted: it may be a secret.
    #[error("it is not JSON of Docker's config.json: its member {0} is of another type")]
    Member(String),
    #[error("entry {key:?}: {why}")]
    Entry { key: String, why: &'static str },
    #[error(
        "it leaves the credentials for {domain} to the helper {helper:?}, and there are no helpers \
         here; write them into \"auths\""
    )]
    Helper { domain: String, helper: String },
}

/// `config.json`. Its other members are for clients only.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthFile {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

/// Secrets never get into logs: types that hold them have no Debug.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").finish_non_exhaustive()
    }
}

impl Entry {
    fn credentials(&self) -> Result<Credentials, &'static str> {
        let mut credentials = Credentials {
            username: self.username.clone(),
            password: self.password.clone(),
            identity_token: self.identity_token.clone(),
            registry_token: self.registry_token.clone(),
        };
        if !self.auth.is_empty() {
            let bytes = STANDARD
                .decode(self.auth.trim())
                .map_err(|_| "its auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "its auth is not text")?;
            let (user, password) = text.split_once(':').ok_or("its auth has no colon")?;
            credentials.username = user.to_owned();
            // Docker pads it in some versions.
            credentials.password = password.trim_end_matches('\0').to_owned();
        }
        Ok(credentials)
    }
}

impl AuthFile {
    /// The credentials for a repository: the most specific entry is used (`host/team/box`,
    /// `host/team`, `host`).
    fn find(&self, domain: &str, path: &str) -> Result<Option<Credentials>, AuthFileError> {
        let mut wanted = vec![format!("{domain}/{path}")];
        let mut rest = path;
        while let Some((directory, _)) = rest.rsplit_once('/') {
            wanted.push(format!("{domain}/{directory}"));
            rest = directory;
        }
        match DOCKER_HUB.contains(&domain) {
            true => wanted.extend(DOCKER_HUB.map(str::to_owned)),
            false => wanted.push(domain.to_owned()),
        }
        for name in &wanted {
            let entry = self
                .auths
                .iter()
                .find(|(key, _)| plain_key(key).eq_ignore_ascii_case(name));
            if let Some((key, entry)) = entry {
                let found = entry.credentials().map_err(|why| AuthFileError::Entry {
                    key: key.clone(),
                    why,
                })?;
                if found != Credentials::default() {
                    return Ok(Some(found));
                }
            }
        }
        let helper = wanted.iter().find_map(|name| self.helpers.get(name));
        match helper.or(Some(&self.store).filter(|store| !store.is_empty())) {
            Some(helper) => Err(AuthFileError::Helper {
                domain: domain.to_owned(),
                helper: helper.clone(),
            }),
            None => Ok(None),
        }
    }
}

/// `https://index.docker.io/v1/` counts as `index.docker.io`.
fn plain_key(key: &str) -> &str {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let rest = rest.trim_end_matches('/');
    rest.strip_suffix("/v1")
        .or_else(|| rest.strip_suffix("/v2"))
        .unwrap_or(rest)
}

/// Reads one file; `None` when there is none.
fn read(path: &Path) -> Result<Option<AuthFile>, AuthFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Taken from the open file, so that the file can't be replaced in between.
    let metadata = file.metadata()?;
    if metadata.mode() & 0o077 != 0 {
        return Err(AuthFileError::Mode(metadata.mode() & 0o777));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(AuthFileError::TooLarge);
    }
    parse(&bytes).map(Some)
}

fn parse(bytes: &[u8]) -> Result<AuthFile, AuthFileError> {
    let document = Json::parse(bytes)?;
    json::from_member("config", document)
        .map_err(|error| AuthFileError::Member(error.path().to_owned()))
}

/// For the fuzz target: whether a file of these bytes has credentials for a repository.
pub(crate) fn try_find(bytes: &[u8], domain: &str, path: &str) -> bool {
    parse(bytes).is_ok_and(|file| file.find(domain, path).is_ok_and(|found| found.is_some()))
}

impl Client {
    /// The credentials that the machine's files have for a repository. The files are read again
    /// each time, so that a change needs no restart.
    pub(crate) async fn stored_credentials(
        &self,
        domain: &str,
        path: &str,
    ) -> Result<Option<Credentials>, RegistryError> {
        if self.options.credentials.is_empty() {
            return Ok(None);
        }
        let files = self.options.credentials.clone();
        let (domain, path) = (domain.to_owned(), path.to_owned());
        let job = move || {
            for file in &files {
                let found = read(file).and_then(|parsed| match parsed {
                    Some(parsed) => parsed.find(&domain, &path),
                    None => Ok(None),
                });
                match found {
                    Ok(None) => {}
                    Ok(found) => return Ok(found),
                    Err(why) => {
                        return Err(RegistryError::Setup(format!(
                            "credentials in {}: {why}",
                            file.display()
                        )));
                    }
                }
            }
            Ok(None)
        };
        let died = |error: TaskDied| RegistryError::Setup(error.to_string());
        blocking(job).await.map_err(died)?
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = r#"{
        "auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldDo="},
            "registry.lan:5000": {"username": "u", "password": "p"},
            "registry.lan:5000/team": {"identitytoken": "i"},
            "bearer.lan": {"registrytoken": "r"},
            "helped.lan": {},
            "broken.lan": {"auth": "aHVi"}
        },
        "credHelpers": {"helped.lan": "pass"},
        "psFormat": "table"
    }"#;

    fn find(domain: &str, path: &str) -> Result<Option<Credentials>, AuthFileError> {
        let file = parse(TEXT.as_bytes()).unwrap();
        file.find(domain, path)
    }

    #[test]
    fn the_most_specific_entry_counts() {
        let hub = find("docker.io", "library/busybox").unwrap().unwrap();
        assert_eq!((&*hub.username, &*hub.password), ("hub", "secret:"));
        let plain = find("registry.lan:5000", "other/box").unwrap().unwrap();
        assert_eq!((&*plain.username, &*plain.password), ("u", "p"));
        let team = find("registry.lan:5000", "team/a/b").unwrap().unwrap();
        assert_eq!(team.identity_token, "i");
        let bearer = find("bearer.lan", "a").unwrap().unwrap();
        assert_eq!(bearer.registry_token, "r");
        for none in ["registry.lan", "lan", "xregistry.lan:5000"] {
            assert_eq!(find(none, "team/a").unwrap(), None, "{none}");
        }
    }

    #[test]
    fn errors_contain_no_secrets() {
        let error = find("helped.lan", "a").unwrap_err().to_string();
        assert!(error.contains("helper \"pass\""), "{error}");
        let error = find("broken.lan", "a").unwrap_err().to_string();
        assert!(error.contains("broken.lan"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        assert!(read(&path).unwrap().is_none());
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert!(write(TEXT, 0o600).unwrap().is_some());
        let error = write(TEXT, 0o640).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        for text in [
            r#"{"auths": {"a": {"auth": ["geheim"]}}}"#,
            r#"{"auths": "geheim"}"#,
            "\"geheim\"",
        ] {
            let error = write(text, 0o600).unwrap_err().to_string();
            assert!(
                error.contains("config") && !error.contains("geheim"),
                "{error}"
            );
        }
        let nulls = r#"{"Auths":{"a":{"username":"u","PASSWORD":"p","auth":null},"b":null},
            "credHelpers":null,"credsStore":null}"#;
        let found = write(nulls, 0o600)
            .unwrap()
            .unwrap()
            .find("a", "x")
            .unwrap();
        assert_eq!(found.unwrap().password, "p");
        let error = write(r#"{"auths": {"a": {"auth": "geheim"#, 0o600)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 1") && !error.contains("geheim"),
            "{error}"
        );
        let file = write(TEXT, 0o600).unwrap().unwrap();
        assert!(!format!("{file:?}").contains("aHVi"));
    }
}

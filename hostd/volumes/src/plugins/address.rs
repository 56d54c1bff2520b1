//! Finds plugins: a socket `NAME.sock`, or a file `NAME.spec` or `NAME.json` with the plugin's
//! address. Each may also be in a directory NAME.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{DescriptionError, PluginError};
use super::limits::LONGEST_DESCRIPTION;

/// Longest name of a file.
const LONGEST_NAME: usize = 255;
const SOCKET: &str = "sock";
const DESCRIPTIONS: [&str; 2] = ["spec", "json"];

/// How a plugin is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A unix socket, with its device and inode, which change when the plugin is restarted.
    Unix(PathBuf, Option<(u64, u64)>),
    /// TCP.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path, _) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The names of all plugins in these directories, sorted.
pub(super) fn names(directories: &[PathBuf]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for directory in directories {
        // A missing directory has no plugins.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = match entry.file_type() {
                Ok(kind) if kind.is_dir() => path.file_name(),
                _ if is_plugin(&path) => path.file_stem(),
                _ => None,
            };
            let name = name.and_then(|name| name.to_str());
            if let Some(name) = name.filter(|name| places(directory, name).any(|at| at.exists())) {
                names.insert(name.to_owned());
            }
        }
    }
    names.into_iter().collect()
}

/// The address of the plugin of this name. Sockets have priority over descriptions.
pub(super) fn find(directories: &[PathBuf], name: &str) -> Result<Address, PluginError> {
    if is_name(name) {
        let all = || directories.iter().flat_map(|base| places(base, name));
        for path in all().filter(|path| has_ending(path, SOCKET)) {
            if let Ok(found) = fs::metadata(&path)
                && found.file_type().is_socket()
            {
                return Ok(Address::Unix(path, Some((found.dev(), found.ino()))));
            }
        }
        if let Some(path) = all().find(|path| !has_ending(path, SOCKET) && path.is_file()) {
            return describe(&path).map_err(|source| PluginError::Description {
                name: name.to_owned(),
                path,
                source,
            });
        }
    }
    Err(PluginError::NotFound {
        name: name.to_owned(),
    })
}

/// Whether it can be the name of a file.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && !name.starts_with('.')
        && !name.contains(['/', '\0'])
}

fn is_plugin(path: &Path) -> bool {
    has_ending(path, SOCKET) || DESCRIPTIONS.iter().any(|ending| has_ending(path, ending))
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

/// All possible files of a plugin in a directory.
fn places<'a>(directory: &'a Path, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let endings = std::iter::once(SOCKET).chain(DESCRIPTIONS);
    endings.flat_map(move |ending| {
        let file = format!("{name}.{ending}");
        [directory.join(&file), directory.join(name).join(&file)]
    })
}

/// `NAME.json`. Its other members are only needed for TLS.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    addr: String,
}

/// Reads the address of a plugin from its description.
fn describe(path: &Path) -> Result<Address, DescriptionError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_DESCRIPTION + 1).read_to_string(&mut text))?;
    if text.len() as u64 > LONGEST_DESCRIPTION {
        return Err(DescriptionError::TooLong);
    }
    match has_ending(path, "json") {
        false => parse(text.trim()),
        true => {
            let described: Description = serde_json::from_str(&text)?;
            parse(&described.addr)
        }
    }
}

/// `unix:///path` or `tcp://address:port`. Host names are not resolved, because that may take long.
fn parse(text: &str) -> Result<Address, DescriptionError> {
    let wrong = DescriptionError::Address;
    let right = "unix:///path/of/a/socket or tcp://127.0.0.1:port is understood";
    if let Some(path) = text.strip_prefix("unix://") {
        return match path.starts_with('/') {
            true => Ok(Address::Unix(path.into(), None)),
            false => Err(wrong(format!(
                "the path of {text:?} is not absolute: {right}"
            ))),
        };
    }
    if text.starts_with("https://") {
        return Err(wrong(format!(
            "{text:?}: plugins behind TLS are not implemented: {right}"
        )));
    }
    let rest = ["tcp://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let rest = rest.map(|rest| rest.trim_end_matches('/'));
    let address = rest.and_then(|rest| {
        let (host, port) = rest.rsplit_once(':')?;
        let ip: IpAddr = match host.trim_matches(['[', ']']) {
            "localhost" => std::net::Ipv4Addr::LOCALHOST.into(),
            host => host.parse().ok()?,
        };
        Some(SocketAddr::new(ip, port.parse().ok()?))
    });
    let address = address.ok_or_else(|| wrong(format!("{text:?} is no address: {right}")))?;
    Ok(Address::Tcp(address))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn plugins_are_found_in_all_places() {
        let base = tempfile::tempdir().unwrap();
        let [run, etc] = ["run", "etc"].map(|name| base.path().join(name));
        fs::create_dir_all(run.join("deep")).unwrap();
        fs::create_dir_all(etc.join("far")).unwrap();
        let _kept = [run.join("near.sock"), run.join("deep/deep.sock")]
            .map(|path| UnixListener::bind(path).unwrap());
        fs::write(etc.join("spec.spec"), "unix:///x/y.sock\n").unwrap();
        fs::write(etc.join("near.spec"), "unix:///other.sock\n").unwrap();
        let json = r#"{"Name": "far", "Addr": "http://localhost:81", "TLSConfig": null}"#;
        fs::write(etc.join("far/far.json"), json).unwrap();
        fs::write(etc.join("other.txt"), "").unwrap();
        let all = [run.clone(), etc, base.path().join("none")];
        assert_eq!(names(&all), ["deep", "far", "near", "spec"]);
        let text = |name: &str| find(&all, name).unwrap().to_string();
        assert_eq!(text("near"), run.join("near.sock").display().to_string());
        assert_eq!(text("spec"), "/x/y.sock");
        assert_eq!(text("far"), "tcp://127.0.0.1:81");
        for name in ["none", "", "..", "../run/near", "a/b"] {
            let error = find(&all, name).unwrap_err().to_string();
            assert!(error.ends_with("not found"), "{error}");
        }
    }

    #[test]
    fn a_restarted_plugin_is_another_one() {
        let base = tempfile::tempdir().unwrap();
        let all = [base.path().to_owned()];
        let path = base.path().join("a.sock");
        let _first = UnixListener::bind(&path).unwrap();
        let before = find(&all, "a").unwrap();
        assert_eq!(find(&all, "a").unwrap(), before);
        fs::rename(&path, base.path().join("kept")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(find(&all, "a").unwrap(), before);
    }

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("unix:///run/a.sock", "/run/a.sock"),
            ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("http://localhost:8080/", "tcp://127.0.0.1:8080"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        for (text, reason) in [
            ("", "is no address"),
            ("/run/a.sock", "is no address"),
            ("unix://a.sock", "is not absolute"),
            ("https://127.0.0.1:80", "TLS"),
            ("tcp://example.org:80", "is no address"),
            ("tcp://127.0.0.1", "is no address"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}

//! Reads the directories of the services.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use keelson_model::service::ServiceSpec;

/// The version of `service.toml` that this release reads.
const VERSION: u32 = 1;
/// Largest `service.toml`, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// A service as it is on disk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) spec: ServiceSpec,
    pub(crate) rootfs: PathBuf,
    /// Hash that changes with the description and with the root file system.
    pub(crate) fingerprint: String,
}

/// Why a service can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: {size} bytes, at most {MAX_SIZE} are read", path.display())]
    TooLarge { path: PathBuf, size: u64 },
    #[error("{}: {source}", path.display())]
    Description {
        path: PathBuf,
        source: DescriptionError,
    },
}

/// Why a `service.toml` can't be used. The text names the member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptionError {
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    #[error("version {0} is not supported; this release reads version {VERSION}")]
    Version(u32),
    #[error("command: must name an executable")]
    Command,
    #[error("network: {0:?} is not possible; use \"host\" or \"none\"")]
    Network(String),
    #[error("mounts: source {0:?} must be an absolute path or begin with {{state}}")]
    Source(String),
    #[error("mounts: target {0:?} must be an absolute path")]
    Target(String),
}

/// Reads all services. A broken one has its error. A directory that
/// does not exist has no services.
pub(crate) fn load(directory: &Path) -> BTreeMap<String, Result<Found, LoadError>> {
    let mut services = BTreeMap::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::error!(directory = %directory.display(), %error, "services can't be read");
            }
            return services;
        }
    };
    for entry in entries.flatten() {
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            let found = load_one(&entry.path());
            services.insert(name, found);
        }
    }
    services
}

fn load_one(directory: &Path) -> Result<Found, LoadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Io { path, source }
    };
    let path = directory.join("service.toml");
    let size = fs::metadata(&path).map_err(failed(&path))?.len();
    if size > MAX_SIZE {
        return Err(LoadError::TooLarge { path, size });
    }
    let text = fs::read_to_string(&path).map_err(failed(&path))?;
    let spec = parse(&text).map_err(|source| LoadError::Description { path, source })?;
    let rootfs = directory.join("rootfs.erofs");
    let metadata = fs::metadata(&rootfs).map_err(failed(&rootfs))?;
    let mut hasher = DefaultHasher::new();
    (
        text,
        &rootfs,
        metadata.len(),
        metadata.ino(),
        metadata.mtime(),
    )
        .hash(&mut hasher);
    Ok(Found {
        spec,
        rootfs,
        fingerprint: format!("{:016x}", hasher.finish()),
    })
}

/// Reads a `service.toml`.
fn parse(text: &str) -> Result<ServiceSpec, DescriptionError> {
    let spec: ServiceSpec = toml::from_str(text)?;
    if spec.version != VERSION {
        return Err(DescriptionError::Version(spec.version));
    }
    if spec.command.first().is_none_or(String::is_empty) {
        return Err(DescriptionError::Command);
    }
    if !matches!(spec.network.as_str(), "host" | "none") {
        return Err(DescriptionError::Network(spec.network));
    }
    for mount in &spec.mounts {
        let source = mount
            .source
            .strip_prefix("{state}")
            .unwrap_or(&mount.source);
        let inside = source.is_empty() || source.starts_with('/');
        if !inside || source.split('/').any(|part| part == "..") {
            return Err(DescriptionError::Source(mount.source.clone()));
        }
        if !mount.target.starts_with('/') {
            return Err(DescriptionError::Target(mount.target.clone()));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "version = 1\ndescription = \"a\"\ncommand = [\"/x\"]\n";

    #[test]
    fn descriptions() {
        assert_eq!(parse(GOOD).unwrap().network, "none");
        for (text, word) in [
            ("version = 2", "version 2"),
            ("command = []", "command"),
            ("network = \"bridge\"", "network"),
            ("surprise = 1", "surprise"),
            ("mounts = [{ source = \"a\", target = \"/b\" }]", "source"),
            (
                "mounts = [{ source = \"{state}/../x\", target = \"/b\" }]",
                "source",
            ),
            ("mounts = [{ source = \"/a\", target = \"b\" }]", "target"),
        ] {
            let (key, _) = text.split_once(' ').unwrap();
            let kept: String = GOOD
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect();
            let error = parse(&format!("{kept}{text}\n")).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_broken_service_is_named_and_the_others_are_there() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("good", GOOD), ("bad", "nonsense"), ("bare", GOOD)] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("service.toml"), text).unwrap();
            if name != "bare" {
                fs::write(path.join("rootfs.erofs"), "x").unwrap();
            }
        }
        fs::create_dir(directory.path().join("empty")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        let services = load(directory.path());
        assert_eq!(services.len(), 4);
        let first = services["good"].as_ref().unwrap().fingerprint.clone();
        for (name, word) in [
            ("bad", "service.toml"),
            ("bare", "rootfs.erofs"),
            ("empty", "service.toml"),
        ] {
            let error = services[name].as_ref().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        fs::write(directory.path().join("good/rootfs.erofs"), "xy").unwrap();
        let again = load(directory.path());
        assert_ne!(again["good"].as_ref().unwrap().fingerprint, first);
        assert!(load(&directory.path().join("none")).is_empty());
    }
}

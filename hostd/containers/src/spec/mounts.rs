//! Mounts that clients ask for: `-v`, `--mount`, `--tmpfs`, and volumes of images.

use std::path::{Component, Path, PathBuf};

use keelson_model::container::{Config, HostConfig, Mount};

use crate::EngineError;
use crate::types::MountPoint;

/// A mount to make, after parsing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) destination: String,
    pub(crate) writable: bool,
    pub(crate) kind: WantedKind,
}

/// Its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WantedKind {
    Bind {
        source: PathBuf,
        /// Make a folder when the source does not exist (as `-v` does).
        create: bool,
        /// Empty: not asked for.
        propagation: String,
        recursive: bool,
        /// What is mounted below the source is read-only, too.
        read_only_recursive: bool,
        mode: String,
    },
    Tmpfs {
        options: Vec<String>,
    },
}

/// All mounts in the order of their destinations' depth, so that none hides another.
pub(crate) fn parse(host: &HostConfig) -> Result<Vec<Wanted>, EngineError> {
    let mut mounts = Vec::new();
    for bind in host.binds.iter().flatten() {
        mounts.push(bind_from_text(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        mounts.push(from_mount(mount)?);
    }
    for (target, options) in &host.tmpfs {
        mounts.push(Wanted {
            destination: destination(target, target)?,
            writable: !options.split(',').any(|option| option == "ro"),
            kind: WantedKind::Tmpfs {
                options: tmpfs_options(options)?,
            },
        });
    }
    for (index, mount) in mounts.iter().enumerate() {
        if mounts
            .iter()
            .take(index)
            .any(|other| other.destination == mount.destination)
        {
            return Err(EngineError::Invalid(format!(
                "Duplicate mount point: {}",
                mount.destination
            )));
        }
    }
    mounts.sort_by_key(|mount| mount.destination.matches('/').count());
    Ok(mounts)
}

/// Mounts of the engine's own directory, or of one that it lies in, must learn of what is unmounted
/// there, or they would keep layers in use for ever: they are made slaves where nothing else was
/// asked for, and refused with another propagation.
pub(crate) fn guard_engine(mounts: &mut [Wanted], engine: &Path) -> Result<(), EngineError> {
    for mount in mounts {
        if let WantedKind::Bind {
            source,
            propagation,
            ..
        } = &mut mount.kind
            && (source.starts_with(engine) || engine.starts_with(&*source))
        {
            match propagation.as_str() {
                "" => "rslave".clone_into(propagation),
                "rslave" | "rshared" => {}
                _ => {
                    return Err(EngineError::Invalid(format!(
                        "invalid mount config: must use either propagation mode \"rslave\" or \"rshared\" when mount source is within the daemon root, daemon root: {:?}, bind mount source: {:?}, propagation: {propagation:?}",
                        engine.display().to_string(),
                        source.display().to_string(),
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Propagation of a mount for which none was asked for.
const PRIVATE: &str = "rprivate";

fn or_private(propagation: &str) -> &str {
    match propagation {
        "" => PRIVATE,
        other => other,
    }
}

/// Paths that are volumes (of the image, or `-v /path`) and have no mount of their own.
pub(crate) fn volumes(config: &Config, mounts: &[Wanted]) -> Result<Vec<String>, EngineError> {
    let mut volumes = Vec::new();
    for path in config.volumes.keys() {
        let path = destination(path, path)?;
        if !mounts.iter().any(|mount| mount.destination == path) {
            volumes.push(path);
        }
    }
    Ok(volumes)
}

impl Wanted {
    /// The OCI mount.
    pub(crate) fn to_oci(&self) -> serde_json::Value {
        match &self.kind {
            WantedKind::Bind {
                source,
                propagation,
                recursive,
                read_only_recursive,
                ..
            } => {
                let mut options = vec![if *recursive { "rbind" } else { "bind" }.to_owned()];
                if !self.writable {
                    options.push("ro".to_owned());
                    if *read_only_recursive && *recursive {
                        options.push("rro".to_owned());
                    }
                }
                options.push(or_private(propagation).to_owned());
                serde_json::json!({
                    "destination": self.destination,
                    "type": "bind",
                    "source": source,
                    "options": options,
                })
            }
            WantedKind::Tmpfs { options } => {
                let mut options = options.clone();
                if !self.writable && !options.iter().any(|option| option == "ro") {
                    options.push("ro".to_owned());
                }
                serde_json::json!({
                    "destination": self.destination,
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": options,
                })
            }
        }
    }

    /// As clients see it.
    pub(crate) fn to_mount_point(&self) -> MountPoint {
        let (kind, source, propagation, mode) = match &self.kind {
            WantedKind::Bind {
                source,
                propagation,
                mode,
                ..
            } => (
                "bind",
                source.clone(),
                or_private(propagation).to_owned(),
                mode.clone(),
            ),
            WantedKind::Tmpfs { .. } => ("tmpfs", PathBuf::new(), String::new(), String::new()),
        };
        MountPoint {
            kind: kind.to_owned(),
            name: String::new(),
            source,
            destination: self.destination.clone(),
            mode,
            writable: self.writable,
            propagation,
        }
    }
}

/// `source:target[:options]`.
fn bind_from_text(text: &str) -> Result<Wanted, EngineError> {
    let invalid = || EngineError::Invalid(format!("invalid volume specification: '{text}'"));
    let mut parts = text.split(':');
    let source = parts.next().filter(|part| !part.is_empty());
    let target = parts.next().filter(|part| !part.is_empty());
    let mode = parts.next().unwrap_or_default();
    let (Some(source), Some(target), None) = (source, target, parts.next()) else {
        return Err(invalid());
    };
    if !source.starts_with('/') {
        return Err(EngineError::NotImplemented(format!(
            "named volumes are not implemented: -v {text}"
        )));
    }
    let mut writable = true;
    let mut propagation = String::new();
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "ro" => writable = false,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                option.clone_into(&mut propagation);
            }
            _ => {
                return Err(EngineError::Invalid(format!(
                    "invalid volume specification: '{text}': invalid mode: {mode}"
                )));
            }
        }
    }
    Ok(Wanted {
        destination: destination(target, text)?,
        writable,
        kind: WantedKind::Bind {
            source: PathBuf::from(source),
            create: true,
            propagation,
            recursive: true,
            read_only_recursive: true,
            mode: mode.to_owned(),
        },
    })
}

fn from_mount(mount: &Mount) -> Result<Wanted, EngineError> {
    let kind = mount.r#type.as_str();
    let invalid = |reason: String| {
        EngineError::Invalid(format!(
            "invalid mount config for type \"{kind}\": {reason}"
        ))
    };
    let destination = destination(&mount.target, &mount.target)?;
    check_options(mount)?;
    let wanted = match kind {
        "bind" => {
            if !mount.source.starts_with('/') {
                return Err(invalid(format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            let propagation = match options.propagation.as_str() {
                known @ ("" | "private" | "rprivate" | "shared" | "rshared" | "slave"
                | "rslave") => known.to_owned(),
                other => return Err(invalid(format!("invalid propagation: {other:?}"))),
            };
            if options.read_only_non_recursive && options.read_only_force_recursive {
                return Err(invalid(
                    "mount options conflict: ReadOnlyNonRecursive and ReadOnlyForceRecursive"
                        .to_owned(),
                ));
            }
            WantedKind::Bind {
                source: PathBuf::from(&mount.source),
                create: options.create_mountpoint,
                propagation,
                recursive: !options.non_recursive,
                read_only_recursive: !options.read_only_non_recursive,
                mode: String::new(),
            }
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            let given = mount.tmpfs_options.clone().unwrap_or_default();
            let mut options = tmpfs_options(&options_text(&given.options).map_err(&invalid)?)?;
            if given.size_bytes < 0 {
                return Err(invalid("size must not be negative".to_owned()));
            }
            if given.size_bytes > 0 {
                options.push(format!("size={}", given.size_bytes));
            }
            if given.mode != 0 {
                options.push(format!("mode={:o}", given.mode));
            }
            WantedKind::Tmpfs { options }
        }
        "volume" | "image" | "npipe" | "cluster" => {
            return Err(EngineError::NotImplemented(format!(
                "mounts of type {kind:?} are not implemented (target {:?})",
                mount.target
            )));
        }
        _ => {
            return Err(EngineError::Invalid(format!(
                "mount type unknown: {kind:?}"
            )));
        }
    };
    Ok(Wanted {
        destination,
        writable: !mount.read_only,
        kind: wanted,
    })
}

fn tmpfs_options(text: &str) -> Result<Vec<String>, EngineError> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"].map(str::to_owned).into();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        match name {
            "exec" | "suid" | "dev" => {
                options.retain(|other| other.strip_prefix("no") != Some(name))
            }
            "rw" | "ro" | "noexec" | "nosuid" | "nodev" | "sync" | "async" | "dirsync"
            | "remount" | "mand" | "nomand" | "atime" | "noatime" | "diratime" | "nodiratime"
            | "bind" | "rbind" | "unbindable" | "runbindable" | "private" | "rprivate"
            | "shared" | "rshared" | "slave" | "rslave" | "relatime" | "norelatime"
            | "strictatime" | "nostrictatime" => options.push(option.to_owned()),
            "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "size" => {
                options.push(option.to_owned());
            }
            _ => {
                return Err(EngineError::Invalid(format!(
                    "Invalid tmpfs option {option:?}"
                )));
            }
        }
    }
    Ok(options)
}

/// Options that belong to another type of mount.
fn check_options(mount: &Mount) -> Result<(), EngineError> {
    let kind = mount.r#type.as_str();
    for (name, owner, given) in [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && owner != kind {
            return Err(EngineError::Invalid(format!(
                "invalid mount config for type \"{kind}\": field {name} must not be specified"
            )));
        }
    }
    Ok(())
}

/// `[["noexec"], ["uid", "5"]]` as `noexec,uid=5`.
fn options_text(list: &[Vec<String>]) -> Result<String, String> {
    let mut options = Vec::new();
    for words in list {
        let ([_] | [_, _]) = words.as_slice() else {
            return Err(format!(
                "TmpfsOptions.Options: {words:?} is not a name, or a name and a value"
            ));
        };
        let option = words.join("=");
        if option.contains(',') {
            return Err(format!("TmpfsOptions.Options: {words:?} has a comma"));
        }
        options.push(option);
    }
    Ok(options.join(","))
}

/// A clean absolute path in the container.
fn destination(path: &str, whole: &str) -> Result<String, EngineError> {
    let invalid =
        |reason| EngineError::Invalid(format!("invalid volume specification: '{whole}': {reason}"));
    if !path.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let mut clean = PathBuf::from("/");
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    if clean == Path::new("/") {
        return Err(invalid("destination can't be '/'".to_owned()));
    }
    Ok(clean.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use keelson_model::container::{BindOptions, TmpfsOptions};
    use keelson_model::error::ErrorKind;

    use super::*;

    fn binds(list: &[&str]) -> Result<Vec<Wanted>, EngineError> {
        parse(&HostConfig {
            binds: Some(list.iter().map(|&text| text.to_owned()).collect()),
            ..HostConfig::default()
        })
    }

    #[test]
    fn short_form() {
        let mounts = binds(&["/a:/deep/er", "/b:/x:ro,rshared,z"]).unwrap();
        assert_eq!(mounts[0].destination, "/x");
        assert_eq!(
            mounts[0].to_oci()["options"],
            serde_json::json!(["rbind", "ro", "rro", "rshared"])
        );
        assert_eq!(mounts[0].to_mount_point().mode, "ro,rshared,z");
        assert_eq!(
            mounts[1].to_oci()["options"],
            serde_json::json!(["rbind", "rprivate"])
        );
    }

    #[test]
    fn bad_short_forms() {
        for text in [
            "",
            "/a",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/..",
            "/a:/b:xx",
            "/a:/b:ro:c",
        ] {
            let kind = binds(&[text]).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::InvalidInput, "{text}");
        }
        let kind = binds(&["name:/b"]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::NotImplemented);
        assert!(binds(&["/a:/b", "/c:/d/../b"]).is_err(), "duplicate");
    }

    #[test]
    fn the_engines_directory_is_not_bound_as_private() {
        let engine = Path::new("/var/lib/keelson");
        let guarded = |bind: &str| {
            let mut mounts = binds(&[bind]).unwrap();
            guard_engine(&mut mounts, engine)?;
            Ok::<_, EngineError>(mounts[0].to_mount_point().propagation)
        };
        for (bind, propagation) in [
            ("/var/lib/keelson:/a", "rslave"),
            ("/:/a:ro", "rslave"),
            ("/var/lib/keelson/engine:/a:rshared", "rshared"),
            ("/var/lib/keelson2:/a", "rprivate"),
            ("/var/lib/keelson2:/a:private", "private"),
        ] {
            assert_eq!(guarded(bind).unwrap(), propagation, "{bind}");
        }
        for bind in [
            "/var:/a:private",
            "/var/lib/keelson/engine:/a:rprivate",
            "/:/a:shared",
        ] {
            let error = guarded(bind).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(
                error.to_string().contains("within the daemon root"),
                "{error}"
            );
        }
    }

    #[test]
    fn long_form_and_tmpfs() {
        let host = HostConfig {
            mounts: Some(vec![
                Mount {
                    r#type: "tmpfs".to_owned(),
                    target: "/t".to_owned(),
                    tmpfs_options: Some(TmpfsOptions {
                        size_bytes: 4096,
                        mode: 0o700,
                        options: vec![],
                    }),
                    ..Mount::default()
                },
                Mount {
                    r#type: "bind".to_owned(),
                    source: "/s".to_owned(),
                    target: "/s".to_owned(),
                    read_only: true,
                    bind_options: Some(BindOptions {
                        non_recursive: true,
                        ..BindOptions::default()
                    }),
                    ..Mount::default()
                },
            ]),
            tmpfs: [("/run".to_owned(), "exec,size=1m".to_owned())].into(),
            ..HostConfig::default()
        };
        let mounts = parse(&host).unwrap();
        assert_eq!(
            mounts[0].to_oci()["options"],
            serde_json::json!(["noexec", "nosuid", "nodev", "size=4096", "mode=700"])
        );
        assert_eq!(
            mounts[1].to_oci()["options"],
            serde_json::json!(["bind", "ro", "rprivate"])
        );
        assert_eq!(
            mounts[2].to_oci()["options"],
            serde_json::json!(["nosuid", "nodev", "size=1m"])
        );
        let volume = Mount {
            r#type: "volume".to_owned(),
            target: "/v".to_owned(),
            ..Mount::default()
        };
        let error = from_mount(&volume).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotImplemented);
    }

    #[test]
    fn options_of_long_forms() {
        let read = |value: serde_json::Value| {
            let mount: Mount = serde_json::from_value(value).unwrap();
            from_mount(&mount)
        };
        let wanted = read(serde_json::json!({
            "Type": "tmpfs", "Target": "/t",
            "TmpfsOptions": {"Options": [["exec"], ["uid", "5"]]},
        }))
        .unwrap();
        assert_eq!(
            wanted.to_oci()["options"],
            serde_json::json!(["nosuid", "nodev", "uid=5"])
        );
        for (text, word) in [
            (
                r#"{"Type":"bind","Source":"/","Target":"/t","VolumeOptions":{}}"#,
                "VolumeOptions must not be specified",
            ),
            (
                r#"{"Type":"bind","Source":"/","Target":"/t","TmpfsOptions":{}}"#,
                "TmpfsOptions must not be specified",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/t","BindOptions":{}}"#,
                "BindOptions must not be specified",
            ),
            (
                r#"{"Type":"volume","Target":"/t","ImageOptions":{}}"#,
                "ImageOptions must not be specified",
            ),
            (
                r#"{"Type":"bind","Source":"/","Target":"/t","BindOptions":{
                    "ReadOnlyNonRecursive":true,"ReadOnlyForceRecursive":true}}"#,
                "conflict",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["a","b","c"]]}}"#,
                "TmpfsOptions.Options",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["nodev,suid"]]}}"#,
                "comma",
            ),
            (
                r#"{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"Options":[["lower"]]}}"#,
                "lower",
            ),
        ] {
            let error = read(serde_json::from_str(text).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}

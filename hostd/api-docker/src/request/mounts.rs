//! Mounts that clients ask for: `-v`, `--mount`, `--tmpfs`, and volumes of images.

use std::path::{Component, Path, PathBuf};

use hostd_containers::usual_propagation;
use keelson_model::spec::{BindMount, MountKind, MountSpec, Propagation, ReadOnly, TmpfsMount};

use crate::error::ApiError;
use crate::wire::{Config, HostConfig, Mount};

/// All mounts in the order of their targets' depth, so that none hides another. `engine` is the
/// engine's own directory.
pub(super) fn parse(host: &HostConfig, engine: &Path) -> Result<Vec<MountSpec>, ApiError> {
    let mut mounts = Vec::new();
    for bind in host.binds.iter().flatten() {
        mounts.push(bind_from_text(bind, engine)?);
    }
    for mount in host.mounts.iter().flatten() {
        mounts.push(from_mount(mount, engine)?);
    }
    for (path, options) in &host.tmpfs {
        mounts.push(MountSpec {
            target: target(path, path)?,
            kind: MountKind::Tmpfs(TmpfsMount {
                options: tmpfs_options(options)?,
                read_only: options.split(',').any(|option| option == "ro"),
            }),
        });
    }
    mounts.sort_by_key(|mount| mount.target.components().count());
    Ok(mounts)
}

/// Paths that are volumes (of the image, or `-v /path`) and have no mount of their own.
pub(super) fn volumes(config: &Config, mounts: &[MountSpec]) -> Result<Vec<PathBuf>, ApiError> {
    let mut volumes = Vec::new();
    for path in config.volumes.keys() {
        let path = target(path, path)?;
        if !mounts.iter().any(|mount| mount.target == path) {
            volumes.push(path);
        }
    }
    Ok(volumes)
}

/// A propagation by name.
fn propagation(name: &str) -> Option<Propagation> {
    let mut all = Propagation::ALL.into_iter();
    all.find(|propagation| propagation.as_str() == name)
}

/// `source:target[:options]`.
fn bind_from_text(text: &str, engine: &Path) -> Result<MountSpec, ApiError> {
    let invalid = || ApiError::invalid(format!("invalid volume specification: '{text}'"));
    let mut parts = text.split(':');
    let source = parts.next().filter(|part| !part.is_empty());
    let path = parts.next().filter(|part| !part.is_empty());
    let mode = parts.next().unwrap_or_default();
    let (Some(source), Some(path), None) = (source, path, parts.next()) else {
        return Err(invalid());
    };
    if !source.starts_with('/') {
        return Err(ApiError::not_built(format!(
            "named volumes are not implemented: -v {text}"
        )));
    }
    let mut read_only = ReadOnly::No;
    let mut asked_for = None;
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        match option {
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "ro" => read_only = ReadOnly::Recursive,
            _ => match propagation(option) {
                Some(propagation) => asked_for = Some(propagation),
                None => {
                    return Err(ApiError::invalid(format!(
                        "invalid volume specification: '{text}': invalid mode: {mode}"
                    )));
                }
            },
        }
    }
    let source = PathBuf::from(source);
    let usual = usual_propagation(&source, engine);
    Ok(MountSpec {
        target: target(path, text)?,
        kind: MountKind::Bind(BindMount {
            source,
            create_source: true,
            recursive: true,
            read_only,
            propagation: asked_for.unwrap_or(usual),
        }),
    })
}

fn from_mount(mount: &Mount, engine: &Path) -> Result<MountSpec, ApiError> {
    let kind = mount.r#type.as_str();
    let target = target(&mount.target, &mount.target)?;
    check_options(mount)?;
    let kind = match kind {
        "bind" => MountKind::Bind(bind(mount, engine)?),
        "tmpfs" => MountKind::Tmpfs(tmpfs(mount)?),
        "volume" | "image" | "npipe" | "cluster" => {
            return Err(ApiError::not_built(format!(
                "mounts of type {kind:?} are not implemented (target {:?})",
                mount.target
            )));
        }
        _ => {
            return Err(ApiError::invalid(format!("mount type unknown: {kind:?}")));
        }
    };
    Ok(MountSpec { target, kind })
}

fn unfit(mount: &Mount, reason: String) -> ApiError {
    ApiError::invalid(format!(
        "invalid mount config for type \"{}\": {reason}",
        mount.r#type
    ))
}

fn bind(mount: &Mount, engine: &Path) -> Result<BindMount, ApiError> {
    if !mount.source.starts_with('/') {
        return Err(unfit(
            mount,
            format!(
                "invalid mount path: '{}' mount path must be absolute",
                mount.source
            ),
        ));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    let source = PathBuf::from(&mount.source);
    let propagation = match options.propagation.as_str() {
        "" => usual_propagation(&source, engine),
        name => propagation(name)
            .ok_or_else(|| unfit(mount, format!("invalid propagation: {name:?}")))?,
    };
    if options.read_only_non_recursive && options.read_only_force_recursive {
        return Err(unfit(
            mount,
            "mount options conflict: ReadOnlyNonRecursive and ReadOnlyForceRecursive".to_owned(),
        ));
    }
    let read_only = match () {
        () if !mount.read_only => ReadOnly::No,
        // Nothing is mounted below it.
        () if options.read_only_non_recursive || options.non_recursive => ReadOnly::Top,
        () if options.read_only_force_recursive => ReadOnly::ForceRecursive,
        () => ReadOnly::Recursive,
    };
    Ok(BindMount {
        source,
        create_source: options.create_mountpoint,
        recursive: !options.non_recursive,
        read_only,
        propagation,
    })
}

fn tmpfs(mount: &Mount) -> Result<TmpfsMount, ApiError> {
    if !mount.source.is_empty() {
        return Err(unfit(
            mount,
            "field Source must not be specified".to_owned(),
        ));
    }
    let given = mount.tmpfs_options.clone().unwrap_or_default();
    let text = options_text(&given.options).map_err(|reason| unfit(mount, reason))?;
    let mut options = tmpfs_options(&text)?;
    if given.size_bytes < 0 {
        return Err(unfit(mount, "size must not be negative".to_owned()));
    }
    if given.size_bytes > 0 {
        options.push(format!("size={}", given.size_bytes));
    }
    if given.mode != 0 {
        options.push(format!("mode={:o}", given.mode));
    }
    Ok(TmpfsMount {
        options,
        read_only: mount.read_only,
    })
}

fn tmpfs_options(text: &str) -> Result<Vec<String>, ApiError> {
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
                return Err(ApiError::invalid(format!(
                    "Invalid tmpfs option {option:?}"
                )));
            }
        }
    }
    Ok(options)
}

/// Options that belong to another type of mount.
fn check_options(mount: &Mount) -> Result<(), ApiError> {
    let kind = mount.r#type.as_str();
    for (name, owner, given) in [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && owner != kind {
            return Err(ApiError::invalid(format!(
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

/// A clean absolute path in the container; `whole` is what the client wrote.
fn target(path: &str, whole: &str) -> Result<PathBuf, ApiError> {
    let invalid =
        |reason| ApiError::invalid(format!("invalid volume specification: '{whole}': {reason}"));
    if !path.starts_with('/') {
        return Err(invalid(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        )));
    }
    let clean = clean(Path::new(path));
    if clean == Path::new("/") {
        return Err(invalid("destination can't be '/'".to_owned()));
    }
    Ok(clean)
}

/// An absolute path without `.`, `..` and double slashes.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use hostd_containers::check;
    use keelson_model::error::ErrorKind;
    use keelson_model::spec::{ContainerSpec, RootSpec};

    use super::*;
    use crate::wire::{BindOptions, TmpfsOptions};

    const ENGINE: &str = "/var/lib/keelson";

    fn parsed(host: &HostConfig) -> Result<Vec<MountSpec>, ApiError> {
        let mounts = parse(host, Path::new(ENGINE))?;
        let root = RootSpec::Image {
            id: String::new(),
            name: String::new(),
            read_only: false,
        };
        let mut spec = ContainerSpec::new(root, "sh");
        spec.mounts = mounts;
        check(&spec, Path::new(ENGINE))?;
        Ok(spec.mounts)
    }

    fn binds(list: &[&str]) -> Result<Vec<MountSpec>, ApiError> {
        parsed(&HostConfig {
            binds: Some(list.iter().map(|&text| text.to_owned()).collect()),
            ..HostConfig::default()
        })
    }

    fn bind_of(mount: &MountSpec) -> &BindMount {
        match &mount.kind {
            MountKind::Bind(bind) => bind,
            MountKind::Tmpfs(_) => panic!("{mount:?}"),
        }
    }

    fn options_of(mount: &MountSpec) -> &[String] {
        match &mount.kind {
            MountKind::Tmpfs(tmpfs) => &tmpfs.options,
            MountKind::Bind(_) => panic!("{mount:?}"),
        }
    }

    #[test]
    fn short_form() {
        let mounts = binds(&["/a:/deep/er", "/b:/x:ro,rshared,z"]).unwrap();
        assert_eq!(mounts[0].target, Path::new("/x"));
        let bind = bind_of(&mounts[0]);
        assert_eq!(bind.read_only, ReadOnly::Recursive);
        assert_eq!(bind.propagation, Propagation::RecursiveShared);
        let bind = bind_of(&mounts[1]);
        assert_eq!(bind.read_only, ReadOnly::No);
        assert_eq!(bind.propagation, Propagation::RecursivePrivate);
        assert!(bind.recursive && bind.create_source);
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
        let guarded = |bind: &str| {
            let mounts = binds(&[bind])?;
            Ok::<_, ApiError>(bind_of(&mounts[0]).propagation.as_str())
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
        let mounts = parsed(&host).unwrap();
        assert_eq!(
            options_of(&mounts[0]),
            ["noexec", "nosuid", "nodev", "size=4096", "mode=700"]
        );
        let bind = bind_of(&mounts[1]);
        assert!(!bind.recursive && !bind.create_source);
        assert_eq!(bind.read_only, ReadOnly::Top);
        assert_eq!(options_of(&mounts[2]), ["nosuid", "nodev", "size=1m"]);
        let volume = Mount {
            r#type: "volume".to_owned(),
            target: "/v".to_owned(),
            ..Mount::default()
        };
        let error = from_mount(&volume, Path::new(ENGINE)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotImplemented);
    }

    #[test]
    fn options_of_long_forms() {
        let read = |value: serde_json::Value| {
            let mount: Mount = serde_json::from_value(value).unwrap();
            from_mount(&mount, Path::new(ENGINE))
        };
        let wanted = read(serde_json::json!({
            "Type": "tmpfs", "Target": "/t",
            "TmpfsOptions": {"Options": [["exec"], ["uid", "5"]]},
        }))
        .unwrap();
        assert_eq!(options_of(&wanted), ["nosuid", "nodev", "uid=5"]);
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

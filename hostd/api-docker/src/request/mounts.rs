//! Mounts that clients ask for: `-v`, `--mount` and `--tmpfs`.

use std::path::{Component, Path, PathBuf};

use hostd_containers::usual_propagation;
use keelson_model::spec::{BindMount, MountKind, MountSpec, Propagation, ReadOnly, TmpfsMount};

use crate::error::ApiError;
use crate::wire::{HostConfig, Mount};

/// All mounts but volumes and images, ordered by the depth of their targets, so that none hides another. `engine`
/// is the engine's own directory.
pub(super) fn parse(host: &HostConfig, engine: &Path) -> Result<Vec<MountSpec>, ApiError> {
    let mut mounts = Vec::new();
    for bind in host.binds.iter().flatten() {
        if !is_named(bind) {
            mounts.push(bind_from_text(bind, engine)?);
        }
    }
    for mount in host.mounts.iter().flatten() {
        match mount.r#type.as_str() {
            "volume" | "image" => check_options(mount)?,
            _ => mounts.push(from_mount(mount, engine)?),
        }
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
            mapped: false,
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
        "npipe" | "cluster" => {
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
        mapped: false,
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
    let text = options_text(mount, &given.options)?;
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

/// Whether the source of a `-v` is a name instead of a path.
pub(super) fn is_named(bind: &str) -> bool {
    bind.contains(':') && !bind.starts_with('/') && !bind.starts_with(':')
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
                "{name} must not be specified on mount type {kind:?}"
            )));
        }
    }
    Ok(())
}

/// `[["noexec"], ["uid", "5"]]` as `noexec,uid=5`.
fn options_text(mount: &Mount, list: &[Vec<String>]) -> Result<String, ApiError> {
    let wrong = |words: &[String], reason| {
        unfit(mount, format!("TmpfsOptions.Options: {words:?} {reason}"))
    };
    let mut options = Vec::new();
    for words in list {
        let ([_] | [_, _]) = words.as_slice() else {
            return Err(wrong(words, "is not a name, or a name and a value"));
        };
        let option = words.join("=");
        if option.contains(',') {
            return Err(wrong(words, "has a comma"));
        }
        options.push(option);
    }
    Ok(options.join(","))
}

/// A clean absolute path in the container; `whole` is what the client wrote.
pub(super) fn target(path: &str, whole: &str) -> Result<PathBuf, ApiError> {
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
mod tests;

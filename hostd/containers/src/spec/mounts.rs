//! Mounts, brought to the OCI specification's.

use std::path::Path;

use keelson_model::spec::{MountKind, MountSpec, Propagation, ReadOnly};
use serde_json::{Value, json};

/// The OCI mount. `own_users`: in a container with a user namespace.
pub(crate) fn to_oci(mount: &MountSpec, own_users: bool) -> Value {
    let (kind, source, options) = match &mount.kind {
        MountKind::Bind(bind) => {
            let mut options = vec![if bind.recursive { "rbind" } else { "bind" }.to_owned()];
            if bind.read_only != ReadOnly::No {
                options.push("ro".to_owned());
            }
            if matches!(
                bind.read_only,
                ReadOnly::Recursive | ReadOnly::ForceRecursive
            ) {
                options.push("rro".to_owned());
            }
            options.push(bind.propagation.as_str().to_owned());
            if own_users && bind.mapped {
                options.push("idmap".to_owned());
            }
            ("bind", bind.source.as_path(), options)
        }
        MountKind::Tmpfs(tmpfs) => {
            let mut options = tmpfs.options.clone();
            if tmpfs.read_only && !options.iter().any(|option| option == "ro") {
                options.push("ro".to_owned());
            }
            ("tmpfs", Path::new("tmpfs"), options)
        }
    };
    json!({
        "destination": mount.target,
        "type": kind,
        "source": source,
        "options": options,
    })
}

/// Mounts that propagate need a root that does.
pub(super) fn root_propagation(mounts: &[MountSpec]) -> &'static str {
    let mut result = "rprivate";
    for mount in mounts {
        if let MountKind::Bind(bind) = &mount.kind {
            match bind.propagation {
                Propagation::Shared | Propagation::RecursiveShared => return "rshared",
                Propagation::Slave | Propagation::RecursiveSlave => result = "rslave",
                Propagation::Private | Propagation::RecursivePrivate => {}
            }
        }
    }
    result
}

/// Whether a mount binds the engine's directory, or a directory that contains it.
pub(crate) fn is_of_engine(source: &Path, engine: &Path) -> bool {
    source.starts_with(engine) || engine.starts_with(source)
}

/// The propagation of a bind mount for which no caller asked for one. Mounts of the engine's own
/// directory, or of one that it lies in, must learn of what is unmounted there, or they would keep
/// layers in use for ever.
pub fn usual_propagation(source: &Path, engine: &Path) -> Propagation {
    match is_of_engine(source, engine) {
        true => Propagation::RecursiveSlave,
        false => Propagation::RecursivePrivate,
    }
}

#[cfg(test)]
mod tests {
    use keelson_model::spec::{BindMount, TmpfsMount};

    use super::*;

    fn bind(recursive: bool, read_only: ReadOnly, propagation: Propagation) -> MountSpec {
        MountSpec {
            target: "/x".into(),
            kind: MountKind::Bind(BindMount {
                source: "/s".into(),
                create_source: false,
                recursive,
                read_only,
                propagation,
                mapped: false,
            }),
        }
    }

    #[test]
    fn options_of_bind_mounts() {
        for (mount, options) in [
            (
                bind(true, ReadOnly::No, Propagation::RecursivePrivate),
                json!(["rbind", "rprivate"]),
            ),
            (
                bind(true, ReadOnly::Recursive, Propagation::RecursiveShared),
                json!(["rbind", "ro", "rro", "rshared"]),
            ),
            (
                bind(false, ReadOnly::Top, Propagation::RecursivePrivate),
                json!(["bind", "ro", "rprivate"]),
            ),
        ] {
            assert_eq!(to_oci(&mount, false)["options"], options);
        }
        for propagation in Propagation::ALL {
            let mount = bind(true, ReadOnly::No, propagation);
            assert_eq!(to_oci(&mount, false)["options"][1], propagation.as_str());
        }
    }

    #[test]
    fn a_read_only_tmpfs_says_so_once() {
        let tmpfs = |options: &[&str]| MountSpec {
            target: "/t".into(),
            kind: MountKind::Tmpfs(TmpfsMount {
                options: options.iter().map(|&option| option.to_owned()).collect(),
                read_only: true,
            }),
        };
        for options in [&["nodev", "ro"][..], &["nodev"]] {
            let options = to_oci(&tmpfs(options), false)["options"].clone();
            assert_eq!(options, json!(["nodev", "ro"]));
        }
    }

    #[test]
    fn mounts_of_the_engines_directory_learn_of_unmounts() {
        let engine = Path::new("/var/lib/keelson");
        for (source, propagation) in [
            ("/var/lib/keelson", Propagation::RecursiveSlave),
            ("/", Propagation::RecursiveSlave),
            ("/var/lib/keelson/engine", Propagation::RecursiveSlave),
            ("/var/lib/keelson2", Propagation::RecursivePrivate),
        ] {
            let usual = usual_propagation(Path::new(source), engine);
            assert_eq!(usual, propagation, "{source}");
        }
    }
}

//! Whether a bind can have the requested propagation: a mount sends mounts to others, or receives
//! them, only if its source mount does.

use std::fs;
use std::path::Path;

use keelson_linux::mountinfo::{self, Mount};
use keelson_model::spec::{MountKind, MountSpec, Propagation};
use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::EngineError;
use crate::spec::mounts::is_of_engine;

/// The propagation that a bind needs from the mount of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NeededPropagation {
    Shared,
    SharedOrSlave,
}

/// Checks all binds that ask for propagation. `engine` is the engine's own directory; its binds
/// follow the host if possible, even without a request.
pub(crate) fn check(mounts: &[MountSpec], engine: &Path) -> Result<(), EngineError> {
    let mut known = None;
    for mount in mounts {
        let MountKind::Bind(bind) = &mount.kind else {
            continue;
        };
        let wanted = match bind.propagation {
            Propagation::Shared | Propagation::RecursiveShared => NeededPropagation::Shared,
            Propagation::Slave | Propagation::RecursiveSlave => NeededPropagation::SharedOrSlave,
            Propagation::Private | Propagation::RecursivePrivate => continue,
        };
        if wanted == NeededPropagation::SharedOrSlave && is_of_engine(&bind.source, engine) {
            continue;
        }
        let known = match &known {
            Some(known) => known,
            None => known.insert(
                mountinfo::of_this_process()
                    .map_err(EngineError::io("read", Path::new("/proc/self/mountinfo")))?,
            ),
        };
        check_one(&bind.source, wanted, known)?;
    }
    Ok(())
}

fn check_one(source: &Path, wanted: NeededPropagation, known: &[Mount]) -> Result<(), EngineError> {
    let whole = fs::canonicalize(source).map_err(EngineError::io("find", source))?;
    // If mounts are stacked, the kernel returns the topmost one.
    let status = rustix::fs::statx(CWD, &whole, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID)
        .map_err(|error| EngineError::io("stat", &whole)(error.into()))?;
    let carrier = known.iter().find(|mount| mount.id == status.stx_mnt_id);
    let carrier = carrier.ok_or_else(|| {
        EngineError::Invalid(format!("path {}: its mount is unknown", source.display()))
    })?;
    judge(source, wanted, carrier)
}

fn judge(source: &Path, wanted: NeededPropagation, carrier: &Mount) -> Result<(), EngineError> {
    let (fits, name) = match wanted {
        NeededPropagation::Shared => (carrier.is_shared, "shared"),
        NeededPropagation::SharedOrSlave => {
            (carrier.is_shared || carrier.is_slave, "shared or slave")
        }
    };
    match fits {
        true => Ok(()),
        false => Err(EngineError::Invalid(format!(
            "path {} is mounted on {} but it is not a {name} mount",
            source.display(),
            carrier.target.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_supports_only_its_own_propagation() {
        let mounts = mountinfo::parse(
            b"30 1 0:26 / / rw - ext4 /dev/vda rw\n\
              33 30 0:29 / /a rw shared:9 - tmpfs tmpfs rw\n\
              34 30 0:30 / /b rw master:9 - tmpfs tmpfs rw\n",
        );
        let fits = |index: usize, wanted| {
            let judged = judge(Path::new("/s"), wanted, &mounts[index]);
            judged.map_err(|error| error.to_string())
        };
        assert_eq!(
            fits(0, NeededPropagation::Shared).unwrap_err(),
            "path /s is mounted on / but it is not a shared mount"
        );
        assert_eq!(
            fits(0, NeededPropagation::SharedOrSlave).unwrap_err(),
            "path /s is mounted on / but it is not a shared or slave mount"
        );
        assert!(
            fits(1, NeededPropagation::Shared).is_ok()
                && fits(1, NeededPropagation::SharedOrSlave).is_ok()
        );
        assert!(
            fits(2, NeededPropagation::Shared).is_err()
                && fits(2, NeededPropagation::SharedOrSlave).is_ok()
        );
    }
}

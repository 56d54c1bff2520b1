//! Unmounts the file systems.

use std::fs::File;
use std::path::Path;

use keelson_linux::mountinfo::{self, Mount};
use nix::mount::{MntFlags, MsFlags, umount2};

use super::mounts::to_unmount;
use crate::console;
use crate::remote::is_remote;

/// How often the list of mounts is processed. It ends earlier if nothing more can be unmounted.
const MOST_PASSES: usize = 64;

/// Unmounts everything that it can, as long as there is progress. Makes the rest read-only, the
/// root last. Returns whether every file system is clean.
///
/// The root itself can't be unmounted: PID 1 executes from it, and there is no initramfs left to
/// go back to. It is made read-only instead. This sets the flag of the superblock (the mount point
/// has been read-only all the time): the journal is written out and the file system marked clean,
/// as by an unmount. The kernel refuses while a file is open for writing, so busy file systems are
/// detached only if they could not be made read-only either.
pub(super) fn unmount_all() -> bool {
    let mut clean = true;
    write_out();
    for _ in 0..MOST_PASSES {
        let mut progress = false;
        for mount in present() {
            if umount2(&mount.target, MntFlags::UMOUNT_NOFOLLOW).is_ok() {
                console::say(&format!("unmounted {}", mount.target.display()));
                progress = true;
            }
        }
        if !progress {
            break;
        }
    }
    for mount in present() {
        let target = mount.target.display();
        let busy = match umount2(&mount.target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => continue,
            Err(error) => error,
        };
        match make_read_only(&mount.target) {
            Ok(()) => console::warning(&format!(
                "could not unmount {target} ({}): {busy}; it is read-only now",
                mount.kind
            )),
            Err(error) => {
                clean = false;
                console::error(&format!(
                    "could not unmount {target} ({}): {busy}; make it read-only: {error}",
                    mount.kind
                ));
                // Detaches it, so that the file systems below it can be unmounted.
                let _ = umount2(
                    &mount.target,
                    MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
                );
            }
        }
    }
    if let Err(error) = make_read_only(Path::new("/")) {
        clean = false;
        console::error(&format!("make / read-only: {error}"));
    }
    clean
}

/// Writes out the local file systems, one by one: sync(2) would also wait for servers that do not
/// answer.
fn write_out() {
    let root = Path::new("/").to_owned();
    for target in present()
        .into_iter()
        .map(|mount| mount.target)
        .chain([root])
    {
        if let Ok(directory) = File::open(target) {
            // An error shows again when the file system is unmounted.
            let _ = rustix::fs::syncfs(directory);
        }
    }
}

/// Remote file systems have had their chance, see `remote`.
fn present() -> Vec<Mount> {
    let mut mounts = mountinfo::of_this_process().unwrap_or_default();
    mounts.retain(|mount| !is_remote(mount));
    to_unmount(&mounts)
}

/// Makes the whole file system read-only, not only this mount of it.
fn make_read_only(target: &Path) -> nix::Result<()> {
    let none: Option<&str> = None;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    nix::mount::mount(none, target, none, flags, none)
}

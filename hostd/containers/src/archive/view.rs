//! A container's files as the container sees them.
//!
//! For a running container it is its own root, as its first process sees it. For a stopped one, the
//! overlay and the mounts are assembled as for a run, in a separate mount namespace. Nothing of it
//! is visible on the host, and the kernel removes it when nobody holds it any more. Mount points
//! are made and found inside the root by descriptor, so files of the container can't redirect a
//! mount.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use hostd_images::{Owners, RootfsLayers};
use keelson_blocking::TaskDied;
use keelson_model::spec::{MountKind, MountSpec, ReadOnly};
use keelson_sys::mount_attr::{self, MountAttributes, mount_setattr};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use super::root::{Root, components};
use crate::copy_error::CopyError;
use crate::id_maps::IdMap;
use crate::spec::by_depth;
use crate::types::Snapshot;

/// `MS_PRIVATE`.
const PRIVATE: u64 = 1 << 18;

/// The files of /etc that are made for each run.
const OF_HOST: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// What becomes of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ViewPurpose {
    /// They are only read: nothing is made in the container's writable layer, not even mount points.
    Read,
    /// They are changed.
    Write,
}

/// Something to mount.
struct Bind {
    tree: OwnedFd,
    target: PathBuf,
    is_directory: bool,
}

/// The root of a running container, by its first process. The caller must check afterwards that the
/// process id is still valid. Blocks.
pub(super) fn running(pid: i32, owners: Owners) -> Result<Root, CopyError> {
    let open = |name: &str, flags: OFlags| {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(CopyError::io("open", &path))
    };
    let handle = open("root", OFlags::PATH | OFlags::DIRECTORY)?;
    let namespace = open("ns/mnt", OFlags::RDONLY)?;
    Ok(Root::new(handle, namespace, owners))
}

/// The root of a container that does not run. Blocks.
pub(super) fn stopped(
    snapshot: &Snapshot,
    layers: &RootfsLayers,
    volumes: &[MountSpec],
    purpose: ViewPurpose,
) -> Result<Root, CopyError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("view".to_owned())
            .spawn_scoped(scope, || assemble(snapshot, layers, volumes, purpose))
            .map_err(|source| CopyError::Io {
                operation: "start a thread for",
                path: PathBuf::from(&snapshot.id),
                source,
            })?
            .join()
            .map_err(|panic| CopyError::Pack(TaskDied::of_panic(&*panic).into()))?
    })
}

/// Assembles everything on a thread that ends afterwards. Only its namespace remains, as long as
/// the view holds it.
fn assemble(
    snapshot: &Snapshot,
    layers: &RootfsLayers,
    volumes: &[MountSpec],
    purpose: ViewPurpose,
) -> Result<Root, CopyError> {
    let top = Path::new("/");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .map_err(|error| CopyError::io("make a mount namespace for", top)(raw(error)))?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change(top, flags).map_err(CopyError::io("make private", top))?;
    let namespace = Path::new("/proc/thread-self/ns/mnt");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::open(namespace, flags, Mode::empty())
        .map_err(CopyError::io("open", namespace))?;
    // Open it before mounts cover anything.
    let binds = binds(snapshot, volumes)?;
    let root = match purpose {
        ViewPurpose::Write => overlay(
            &layers.lower,
            &snapshot.directory.join("upper"),
            &snapshot.directory.join("work"),
        )?,
        ViewPurpose::Read => overlay_to_read(snapshot, layers)?,
    };
    // The path does not matter: everything else is unmounted.
    attach_at(&root, &snapshot.directory)?;
    enter(&root)?;
    if purpose == ViewPurpose::Read {
        make_files_of_runs(&root);
    }
    for bind in &binds {
        let place = mount_point(&root, bind)?;
        attach(&bind.tree, &place, &bind.target)?;
    }
    if purpose == ViewPurpose::Write && snapshot.spec.root.read_only() {
        change(&root, top, mount_attr::RDONLY, false)?;
    }
    // The disk has the owners that the container sees.
    Ok(Root::new(root, namespace, Owners::default()))
}

fn raw(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// Makes the overlay the only thing that is mounted in this namespace.
fn enter(root: &OwnedFd) -> Result<(), CopyError> {
    let top = Path::new("/");
    rustix::process::fchdir(root).map_err(CopyError::io("change to", top))?;
    rustix::process::pivot_root(".", ".").map_err(CopyError::io("pivot_root", top))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(CopyError::io("unmount", top))
}

/// An overlay over the layers. It is not attached.
fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<OwnedFd, CopyError> {
    let failed = CopyError::io("mount the overlay of", upper);
    let make = || {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for directory in lower {
            rustix::mount::fsconfig_set_string(&context, "lowerdir+", directory)?;
        }
        rustix::mount::fsconfig_set_string(&context, "upperdir", upper)?;
        rustix::mount::fsconfig_set_string(&context, "workdir", work)?;
        rustix::mount::fsconfig_set_string(&context, "redirect_dir", "off")?;
        rustix::mount::fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())
    };
    make().map_err(failed)
}

/// An overlay in which mount points are created in memory: the writable layer is one of the lower
/// layers.
fn overlay_to_read(snapshot: &Snapshot, layers: &RootfsLayers) -> Result<OwnedFd, CopyError> {
    let place = &snapshot.directory;
    let failed = CopyError::io("mount a tmpfs at", place);
    let make = || {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "size", "1m")?;
        rustix::mount::fsconfig_set_string(&context, "mode", "755")?;
        rustix::mount::fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())
    };
    let memory = make().map_err(failed)?;
    for name in ["upper", "work"] {
        rustix::fs::mkdirat(&memory, name, Mode::from_raw_mode(0o755))
            .map_err(CopyError::io("mkdir", Path::new(name)))?;
    }
    let mut lower = vec![snapshot.directory.join("upper")];
    lower.extend(layers.lower.iter().cloned());
    // The layers are opened before the tmpfs covers the directory of the first one.
    let mut opened = Vec::with_capacity(lower.len());
    for directory in &lower {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        opened.push(
            rustix::fs::open(directory, flags, Mode::empty())
                .map_err(CopyError::io("open", directory))?,
        );
    }
    attach_at(&memory, place)?;
    let by_descriptor = |handle: &OwnedFd| {
        let number = std::os::fd::AsRawFd::as_raw_fd(handle);
        PathBuf::from(format!("/proc/self/fd/{number}"))
    };
    let paths: Vec<_> = opened.iter().map(by_descriptor).collect();
    overlay(&paths, &place.join("upper"), &place.join("work"))
}

/// Attaches a mount at a path of this namespace.
fn attach_at(tree: &OwnedFd, path: &Path) -> Result<(), CopyError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, path, flags).map_err(CopyError::io("mount at", path))
}

/// Attaches a mount at an open mount point; `path` is for messages.
fn attach(tree: &OwnedFd, place: &OwnedFd, path: &Path) -> Result<(), CopyError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", place, "", flags).map_err(CopyError::io("mount at", path))
}

fn change(tree: &OwnedFd, path: &Path, set: u64, recursive: bool) -> Result<(), CopyError> {
    let attributes = MountAttributes {
        set,
        propagation: PRIVATE,
        ..MountAttributes::default()
    };
    mount_setattr(tree.as_fd(), c"", recursive, &attributes)
        .map_err(|error| CopyError::io("change the mount of", path)(raw(error)))
}

/// The mounts over the root file system, in order. File systems that are in memory during a run are
/// missing.
fn binds(snapshot: &Snapshot, volumes: &[MountSpec]) -> Result<Vec<Bind>, CopyError> {
    let users = snapshot.spec.namespaces.users;
    let map = users
        .map(IdMap::inwards)
        .transpose()
        .map_err(|error| CopyError::Io {
            operation: "show the owners of",
            path: PathBuf::from(&snapshot.id),
            source: io::Error::other(error),
        })?;
    let map = map.as_ref();
    let mut binds = Vec::new();
    for (index, target) in snapshot.spec.anonymous_volumes.iter().enumerate() {
        let source = snapshot.directory.join("volumes").join(index.to_string());
        binds.extend(bind(&source, target, false, ReadOnly::No, None)?);
    }
    for name in OF_HOST {
        let target = Path::new("/etc").join(name);
        if !snapshot
            .spec
            .mounts
            .iter()
            .any(|mount| mount.target == target)
        {
            binds.extend(bind(
                &snapshot.files().join(name),
                &target,
                false,
                ReadOnly::No,
                map,
            )?);
        }
    }
    for mount in by_depth(snapshot.spec.mounts.iter().chain(volumes)) {
        match &mount.kind {
            MountKind::Bind(from) => binds.extend(bind(
                &from.source,
                &mount.target,
                from.recursive,
                from.read_only,
                map.filter(|_| !from.mapped),
            )?),
            MountKind::Tmpfs(_) => {}
        }
    }
    Ok(binds)
}

/// Copies the mount of a file or directory of the host; `None` if it does not exist yet. `map` maps
/// owners to those that the container sees.
fn bind(
    source: &Path,
    target: &Path,
    recursive: bool,
    read_only: ReadOnly,
    map: Option<&IdMap>,
) -> Result<Option<Bind>, CopyError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = match rustix::mount::open_tree(CWD, source, flags) {
        Ok(tree) => tree,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(CopyError::io("bind", source)(error)),
    };
    change(&tree, source, 0, true)?;
    if let Some(Err(error)) = map.map(|map| map.apply(&tree, recursive)) {
        // Not every file system supports this. The container sees the same files.
        tracing::warn!(source = %source.display(), %error, "owners are shown as the host has them");
    }
    match read_only {
        ReadOnly::No => {}
        ReadOnly::Top => change(&tree, source, mount_attr::RDONLY, false)?,
        ReadOnly::Recursive | ReadOnly::ForceRecursive => {
            change(&tree, source, mount_attr::RDONLY, true)?;
        }
    }
    let stat = rustix::fs::fstat(&tree).map_err(CopyError::io("stat", source))?;
    Ok(Some(Bind {
        tree,
        target: target.to_owned(),
        is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
    }))
}

/// Makes the files that every run has in /etc, empty, where the image has none: so a container that
/// was never started has them too, as with Docker. They are in memory. Where there is no place for one,
/// the image has something else.
fn make_files_of_runs(root: &OwnedFd) {
    for name in OF_HOST {
        let _ = make(root, &Path::new("/etc").join(name), false);
    }
}

/// The place of a mount inside the root, made when it is not there.
fn mount_point(root: &OwnedFd, bind: &Bind) -> Result<OwnedFd, CopyError> {
    make(root, &bind.target, bind.is_directory)
}

/// A file or directory inside the root, made when it is not there.
fn make(root: &OwnedFd, target: &Path, is_directory: bool) -> Result<OwnedFd, CopyError> {
    let bytes = target.as_os_str().as_bytes();
    match super::root::look_up(root.as_fd(), bytes, OFlags::empty()) {
        Err(Errno::NOENT) => {}
        found => return found.map_err(CopyError::io("open", target)),
    }
    let all: Vec<_> = components(bytes).collect();
    let mut place = rustix::io::dup(root).map_err(CopyError::io("open", target))?;
    for (index, name) in all.iter().enumerate() {
        let path = [
            b"/",
            all.get(..=index).unwrap_or_default().join(&b'/').as_slice(),
        ]
        .concat();
        let last = index + 1 == all.len();
        place = match super::root::look_up(root.as_fd(), &path, OFlags::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                let made = match last && !is_directory {
                    true => rustix::fs::mknodat(
                        &place,
                        name,
                        FileType::RegularFile,
                        Mode::from_raw_mode(0o644),
                        0,
                    ),
                    false => rustix::fs::mkdirat(&place, name, Mode::from_raw_mode(0o755)),
                };
                made.map_err(CopyError::io("make the mount point", target))?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&place, name, flags, Mode::empty())
                    .map_err(CopyError::io("open", target))?
            }
            Err(error) => return Err(CopyError::io("open", target)(error)),
        };
    }
    Ok(place)
}

//! The mounts of config.json, made with the new mount API.

use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use keelson_shim_protocol::FailReason;
use keelson_sys::mount_attr::{self, MountAttributes};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::descriptors::put_off;
use super::filesystem::{configure, detailed, new_filesystem};
use super::options::{self, Attributes, Options};
use super::tree::{change, change_propagation};
use super::userns::{self, MountMaps};
use super::{copy_tree, direct, machine, paths, procfs};
use crate::failure::{self, Failure, Step};
use crate::spec::Mount;

/// What later steps need from the mounts that were made.
#[derive(Debug, Default)]
pub(crate) struct Mounted {
    /// The procfs of the container, reached without passing through its file system.
    pub(crate) proc: Option<OwnedFd>,
    /// Whether that procfs is what is visible at /proc: nothing can have been mounted over it.
    pub(crate) proc_is_seen: bool,
    /// The sysfs that is visible at /sys, likewise.
    pub(crate) sys: Option<OwnedFd>,
    /// The file system of terminals at /dev/pts, if a terminal is needed.
    pub(crate) terminals: Option<OwnedFd>,
    /// /dev, if it is a new file system that must be filled with devices.
    pub(crate) devices: Option<OwnedFd>,
    wants_terminal: bool,
    /// Whether /dev becomes read-only once it is filled.
    readonly_devices: bool,
}

impl Mounted {
    /// Makes /dev read-only if config.json asks for it. Call it when everything in /dev was made.
    pub(crate) fn close_devices(&self) -> Result<(), Failure> {
        let readonly = Attributes {
            set: mount_attr::RDONLY,
            clear: 0,
        };
        match &self.devices {
            Some(devices) if self.readonly_devices => {
                change(devices, &readonly, false).step(|| "make /dev read-only")
            }
            _ => Ok(()),
        }
    }

    /// Mounts a file system directly below a new /dev, in which only this process can have made
    /// anything yet. False: it must be mounted in the usual way.
    fn mount_in_devices(&mut self, kind: &str, mount: &Mount, options: &Options) -> bool {
        let destination = mount.destination.trim_end_matches('/');
        let (Some(devices), Some(name)) = (&self.devices, destination.strip_prefix("/dev/")) else {
            return false;
        };
        let plain = !name.contains('/') && !matches!(name, "" | "." | "..");
        let source = mount.source.as_deref().filter(|source| !source.is_empty());
        if !plain || !direct::suits(kind, options) || !is_new(devices, name) {
            return false;
        }
        let source = source.unwrap_or("none");
        if direct::file_system(devices, name, kind, source, options).is_err() {
            return false;
        }
        if self.wants_terminal && (kind, name) == ("devpts", "pts") {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            self.terminals = paths::openat2(devices, name, flags, Mode::empty(), within).ok();
        }
        true
    }

    /// Records a mount that was attached. `place` has no slash at its end. `directory` is false for
    /// a mount of a single file, which covers only a file.
    fn take(&mut self, kind: &str, place: &str, directory: bool, tree: OwnedFd) {
        // Other file systems contain nothing that is masked by name. And if a path in the image is
        // a link to /proc or /sys, it leads to the same masked files.
        let harmless = ["tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"].contains(&kind);
        if directory && !harmless {
            self.proc_is_seen = false;
            self.sys = None;
        }
        match (kind, place) {
            ("proc", "/proc") => {
                self.proc = Some(tree);
                self.proc_is_seen = true;
            }
            ("sysfs", "/sys") => self.sys = Some(tree),
            ("devpts", "/dev/pts") if self.wants_terminal => self.terminals = Some(tree),
            ("tmpfs", "/dev") => self.devices = Some(tree),
            _ => put_off(tree),
        }
    }
}

/// Makes a directory, which must not exist.
fn is_new(directory: &OwnedFd, name: &str) -> bool {
    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)).is_ok()
}

/// Everything that mounting depends on besides the mounts.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// User namespaces of id-mapped mounts.
    maps: &'a MountMaps,
    /// Trees that were made before a user namespace was entered, by the mount's position.
    ready: Vec<(usize, OwnedFd)>,
    /// Whether copies of the host's mounts are private from the start.
    private: bool,
    container: MountFacts<'a>,
}

/// The facts about a container that its mounts depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MountFacts<'a> {
    /// The path of its cgroup.
    pub(crate) cgroup: Option<&'a str>,
    /// Where its root is on the host, unless it is made of layers.
    pub(crate) root: Option<&'a Path>,
}

impl<'a> Sources<'a> {
    /// Before anything was made. `private`: copies of the host's mounts are private from the start.
    pub(crate) fn new(maps: &'a MountMaps, private: bool, container: MountFacts<'a>) -> Self {
        let ready = Vec::new();
        Self {
            maps,
            ready,
            private,
            container,
        }
    }

    /// Makes the mount trees that need rights of the host: those that show host files, and file
    /// systems of a namespace that the container's user namespace does not own. `foreign` returns
    /// whether a file system belongs to such a namespace.
    pub(crate) fn prepare(
        maps: &'a MountMaps,
        mounts: &[Mount],
        container: MountFacts<'a>,
        foreign: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        let mut sources = Self::new(maps, false, container);
        for (index, mount) in mounts.iter().enumerate() {
            let mut options = parse(index, mount)?;
            if options.remount || sources.inside(index, mounts).is_some() {
                continue;
            }
            if options.bind.is_some()
                || foreign(kind_of(mount, &options))
                || sources.maps.of(index).is_some()
            {
                // New mounts on the host below this mount show in the container, but never the
                // other way round: the container's root user must not mount anything on the host.
                let wanted = options.propagation.take();
                options.propagation = Some((libc::MS_SLAVE, true));
                let tree = sources.tree(index, mount, &options, None, true)?;
                options.propagation = wanted;
                propagate(&tree, &options).step(|| describe(mount, &options))?;
                sources.ready.push((index, tree));
            }
        }
        Ok(sources)
    }

    /// The tree of a mount, with its attributes, not attached anywhere yet. `made`: the source of a
    /// bind that is not a file of the host. `locked`: the container may not remove attributes of
    /// the source.
    fn tree(
        &self,
        index: usize,
        mount: &Mount,
        options: &Options,
        made: Option<OwnedFd>,
        locked: bool,
    ) -> Result<OwnedFd, Failure> {
        let map = self.maps.of(index);
        if options.bind.is_none() {
            return create(index, mount, options, map, self.container.cgroup);
        }
        let tree = bind(mount, options, made, locked)?;
        map_ids(&tree, options, map).step(|| {
            let source = mount.source.as_deref().unwrap_or_default();
            let destination = &mount.destination;
            format!("mounts[{index}]: map ids of {source} on {destination}")
        })?;
        if !self.private {
            propagate(&tree, options).step(|| describe(mount, options))?;
        }
        Ok(tree)
    }

    /// The path in the container of a bind's source, if the source lies in the container's root and
    /// an earlier mount covers it. The bind then means that mount, which only the path inside
    /// reaches.
    fn inside(&self, index: usize, mounts: &[Mount]) -> Option<PathBuf> {
        let (before, rest) = mounts.split_at_checked(index)?;
        let source = Path::new(rest.first()?.source.as_deref()?);
        let root = self.container.root.filter(|_| !before.is_empty())?;
        let canonical = || source.strip_prefix(std::fs::canonicalize(root).ok()?).ok();
        let path = source.strip_prefix(root).ok().or_else(canonical)?;
        let path = Path::new("/").join(path);
        let covers = |mount: &Mount| {
            let place = Path::new(&mount.destination);
            place != Path::new("/") && path.starts_with(place)
        };
        before.iter().any(covers).then_some(path)
    }

    fn take(&mut self, index: usize) -> Option<OwnedFd> {
        let place = self.ready.iter().position(|(of, _)| *of == index)?;
        Some(self.ready.swap_remove(place).1)
    }
}

/// Whether any mount receives later mounts of the host, or sends mounts to the host.
pub(crate) fn follow_host(mounts: &[Mount]) -> bool {
    let mut options = mounts.iter().flat_map(|mount| &mount.options);
    options.any(|option| {
        options::propagation(option).is_some_and(|(kind, _)| kind != libc::MS_PRIVATE)
    })
}

fn parse(index: usize, mount: &Mount) -> Result<Options, Failure> {
    let mut options = options::parse(&mount.options).map_err(|unsupported| {
        Failure::unsupported(format!(
            "mounts[{index}].options: {:?} is not supported",
            unsupported.0
        ))
    })?;
    if mount.kind.as_deref() == Some("bind") {
        options.bind = options.bind.or(Some(true));
    }
    Ok(options)
}

/// Checks the mounts of a specification.
pub(crate) fn check(mounts: &[Mount]) -> Result<(), Failure> {
    for (index, mount) in mounts.iter().enumerate() {
        let options = parse(index, mount)?;
        let destination = &mount.destination;
        let is_given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let refused = |member: &str, reason: String| {
            Err(Failure::invalid(format!(
                "mounts[{index}].{member}: {reason}"
            )))
        };
        if options.bind.is_some() {
            for (key, value) in unused(&options) {
                let message = format!("{key:?} has no meaning for a bind mount");
                if value.is_none() {
                    return refused("options", message);
                }
                // Callers set these for any mount, and so does the specification's own validation
                // tool.
                let place = format!("mounts[{index}].options");
                failure::warn(&[Failure::invalid(format!("{place}: {message}"))]);
            }
            if !options.remount && !is_given(&mount.source) {
                return refused("source", format!("is missing for {destination}"));
            }
        } else if !options.remount && !is_given(&mount.kind) {
            return refused("type", format!("is missing for {destination}"));
        }
        if options.copy_up && kind_of(mount, &options) != "tmpfs" {
            return refused("options", "\"tmpcopyup\" is for tmpfs only".to_owned());
        }
    }
    Ok(())
}

/// Names a mount in messages.
fn describe(mount: &Mount, options: &Options) -> String {
    let destination = &mount.destination;
    match options.bind {
        Some(_) => {
            let source = mount.source.as_deref().unwrap_or_default();
            format!("bind {source} to {destination}")
        }
        None => format!("mount {} on {destination}", kind_of(mount, options)),
    }
}

fn kind_of<'a>(mount: &'a Mount, options: &Options) -> &'a str {
    match options.bind {
        Some(_) => "bind",
        None => mount.kind.as_deref().unwrap_or_default(),
    }
}

/// Makes all mounts, in order.
pub(crate) fn mount_all(
    root: BorrowedFd<'_>,
    mounts: &[Mount],
    sources: &mut Sources<'_>,
    wants_terminal: bool,
) -> Result<Mounted, Failure> {
    let mut mounted = Mounted {
        wants_terminal,
        ..Mounted::default()
    };
    // The file systems that were made for the container, if an entry changes one of them.
    let changed = mounts.iter().any(|mount| reconfigures(&mount.options));
    let mut own = Vec::new();
    for (index, mount) in mounts.iter().enumerate() {
        let mut options = parse(index, mount)?;
        if options.remount {
            remount(root, mount, &options, &own)
                .map_err(|failure| within(&format!("mounts[{index}]"), failure))?;
            continue;
        }
        let kind = kind_of(mount, &options);
        let place = mount.destination.trim_end_matches('/');
        let filled_later = (kind, place) == ("tmpfs", "/dev");
        let readonly = options.own.set & mount_attr::RDONLY;
        if filled_later {
            options.own.set &= !readonly;
        }
        let ready = sources.take(index);
        if ready.is_none()
            && sources.maps.of(index).is_none()
            && !changed
            && mounted.mount_in_devices(kind, mount, &options)
        {
            continue;
        }
        let is_host_tree = ready.is_none();
        let tree = match ready {
            Some(tree) => tree,
            None => {
                if kind == "tmpfs" {
                    take_mode(root, mount, &mut options);
                }
                let made = match sources.inside(index, mounts) {
                    Some(path) if options.bind.is_some() => {
                        let path = path.to_string_lossy();
                        let made = paths::find(root, &path);
                        Some(made.step(|| format!("bind {path} of the container"))?)
                    }
                    _ => None,
                };
                sources.tree(index, mount, &options, made, false)?
            }
        };
        let step = || describe(mount, &options);
        if options.copy_up {
            copy_up(root, mount, &options, &tree)?;
        }
        let bound = match options.bind {
            Some(_) => Some(rustix::fs::fstat(&tree).step(step)?),
            None => None,
        };
        if matches!(place, "" | "/dev") {
            mounted.devices = None;
        }
        attach_at(root, mount, &tree, bound.as_ref())
            .map_err(|failure| within(&step(), failure))?;
        if options.bind == Some(true)
            && is_host_tree
            && bound.is_some_and(|status| is_root(mount, &status))
        {
            uncover(root, &mount.destination, &tree).step(step)?;
        }
        if changed && machine::is_own(kind) {
            own.push(rustix::fs::fstat(&tree).step(step)?.st_dev);
        }
        if filled_later {
            mounted.readonly_devices = readonly != 0;
        }
        let directory = bound.as_ref().is_none_or(is_status_of_directory);
        mounted.take(kind, place, directory, tree);
    }
    Ok(mounted)
}

/// As runc: a tmpfs without a `mode` option gets the mode of the directory that it covers.
fn take_mode(root: BorrowedFd<'_>, mount: &Mount, options: &mut Options) {
    let given = options.data.iter().any(|(key, _)| key == "mode");
    // The copied directory has the mode already.
    if given || options.copy_up {
        return;
    }
    let covered = paths::find(root, &mount.destination).and_then(rustix::fs::fstat);
    if let Ok(status) = covered
        && is_status_of_directory(&status)
    {
        let mode = format!("{:o}", status.st_mode & 0o7777);
        options.data.push(("mode".to_owned(), Some(mode)));
    }
}

/// Makes a new file system.
fn create(
    index: usize,
    mount: &Mount,
    options: &Options,
    map: Option<BorrowedFd<'_>>,
    cgroup: Option<&str>,
) -> Result<OwnedFd, Failure> {
    let kind = mount.kind.as_deref().unwrap_or_default();
    // Version 2 has only one cgroup file system. The cgroup namespace makes the view start at the
    // container's cgroup.
    let filesystem = if kind == "cgroup" { "cgroup2" } else { kind };
    // The kernel gives no message about a label that its policy doesn't know.
    let label = options.data.iter().find(|(key, _)| key == "context");
    let label = label.and_then(|(_, label)| label.as_ref());
    let label = label.map_or(String::new(), |label| format!(" with the label {label:?}"));
    let step = || format!("mount {kind} on {}{label}", mount.destination);
    let source = mount.source.as_deref();
    let mut data = Cow::Borrowed(&options.data);
    if options.own.set & mount_attr::RDONLY != 0
        && source.is_some_and(|source| source.starts_with('/'))
    {
        // Otherwise a device that can't be written to would be opened for writing.
        data.to_mut().push(("ro".to_owned(), None));
    }
    let made = match machine::shown(kind, options).map_err(|failure| within(&step(), failure))? {
        Some(tree) => Ok(tree),
        None => new_filesystem(filesystem, source, &data, options.own),
    };
    let tree = match made {
        // A user namespace that does not own the cgroup namespace.
        Err(error) if error.errno == Errno::PERM && filesystem == "cgroup2" => {
            // As runc and crun: an ordinary user's container without a cgroup sees all cgroups.
            let all = userns::is_restricted().then_some("/");
            let path = cgroup.or(all).ok_or(error).step(step)?;
            machine::own_cgroups(path, options).map_err(|failure| within(&step(), failure))?
        }
        other => other.step(step)?,
    };
    if !options.all.is_empty() {
        change(&tree, &options.all, true).step(step)?;
    }
    map_ids(&tree, options, map)
        .step(|| format!("mounts[{index}]: map ids of {}", mount.destination))?;
    // A new file system is private already.
    if options.propagation.is_some() {
        propagate(&tree, options).step(step)?;
    }
    Ok(tree)
}

/// Changes an existing mount: its attributes, and the file system if there are options for it. The
/// file system must be one of the container's `own`: options of another would change it for the
/// whole machine.
fn remount(
    root: BorrowedFd<'_>,
    mount: &Mount,
    options: &Options,
    own: &[u64],
) -> Result<(), Failure> {
    let step = || format!("remount {}", mount.destination);
    let target = paths::find(root, &mount.destination).step(step)?;
    change(&target, &options.own, false).step(step)?;
    if !options.all.is_empty() {
        change(&target, &options.all, true).step(step)?;
    }
    if options.propagation.is_some() {
        propagate(&target, options).step(step)?;
    }
    if options.data.is_empty() || options.bind.is_some() {
        return Ok(());
    }
    let device = rustix::fs::fstat(&target).step(step)?.st_dev;
    if !own.contains(&device) {
        return Err(Failure::invalid(format!(
            "options: {:?} would change the file system at {} for the whole machine",
            options.data.first().map_or("", |(key, _)| key.as_str()),
            mount.destination
        )));
    }
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = rustix::mount::fspick(&target, "", flags).step(step)?;
    configure(&context, &options.data)
        .and_then(|()| {
            rustix::mount::fsconfig_reconfigure(&context).map_err(|error| detailed(&context, error))
        })
        .step(step)
}

/// Whether options may be for the file system of an existing mount.
fn reconfigures(options: &[String]) -> bool {
    options.iter().any(|option| option == "remount")
        && !options
            .iter()
            .any(|option| matches!(option.as_str(), "bind" | "rbind"))
}

/// Copies the directory that a tmpfs will cover into the tmpfs.
fn copy_up(
    root: BorrowedFd<'_>,
    mount: &Mount,
    options: &Options,
    tree: &OwnedFd,
) -> Result<(), Failure> {
    let step = || format!("tmpcopyup of {}", mount.destination);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match paths::openat2(root, &mount.destination, flags, Mode::empty(), inside) {
        Ok(source) => {
            let given = |name: &str| options.data.iter().any(|(key, _)| key == name);
            let like = (!given("mode"), !given("uid") && !given("gid"));
            copy_tree::copy(&source, tree, like).map_err(|failure| within(&step(), failure))
        }
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).step(step),
    }
}

/// Checks that a bind has no options for a file system, because none is made. `iversion` has no
/// visible effect in a container, and callers may set it for any mount.
fn unused(options: &Options) -> impl Iterator<Item = &(String, Option<String>)> {
    options.data.iter().filter(|(key, _)| key != "iversion")
}

/// Opens the directory for a procfs or sysfs. As with runc, links of the image are not followed:
/// otherwise the image would control the path that programs read and that is masked.
fn plain_directory(
    root: BorrowedFd<'_>,
    kind: &str,
    destination: &str,
) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // With a slash or a dot at its end a link would be followed.
    let plain: PathBuf = Path::new(destination).components().collect();
    match paths::openat2(root, &plain, flags, Mode::empty(), within) {
        Ok(directory) => Ok(directory),
        Err(Errno::NOENT) => paths::make_directory(root, destination),
        Err(Errno::LOOP | Errno::NOTDIR) => Err(Failure::invalid(format!(
            "mounts: filesystem {kind:?} must be mounted on ordinary directory, \
             which {destination} is not"
        ))),
        Err(error) => Err(error).step(|| format!("open {destination} in the container")),
    }
}

/// Attaches a mount to its path in the container's root. `bound` is the source, if it is a bind.
fn attach_at(
    root: BorrowedFd<'_>,
    mount: &Mount,
    tree: &OwnedFd,
    bound: Option<&Stat>,
) -> Result<(), Failure> {
    let destination = &mount.destination;
    let step = || "attach";
    let directory = bound.is_none_or(is_status_of_directory);
    let anywhere = leads_anywhere(destination);
    let is_kernels = matches!(mount.kind.as_deref(), Some("proc" | "sysfs"));
    let of_root = match anywhere && !is_kernels {
        true => paths::find_in_mount(root, destination, directory),
        false => None,
    };
    let target = match of_root {
        // It is on the root's own mount, and so not in a procfs.
        Some(target) => target,
        None => {
            let target = match (mount.kind.as_deref(), directory) {
                (Some(kind @ ("proc" | "sysfs")), _) => plain_directory(root, kind, destination)?,
                (_, true) => paths::make_directory(root, destination)?,
                (_, false) => paths::make_file(root, destination)?,
            };
            if anywhere {
                must_not_be_procfs(&target, destination)?;
            }
            target
        }
    };
    match attach(tree, &target) {
        Err(Errno::INVAL) if !directory && is_directory(&target) => {
            return Err(Failure::command(
                FailReason::NotFound,
                format!(
                    "mount: not a directory: what is bound is none, but {destination} is one in the \
                     container"
                ),
            ));
        }
        other => other.step(step)?,
    }
    put_off(target);
    Ok(())
}

fn is_directory(place: &OwnedFd) -> bool {
    rustix::fs::fstat(place).is_ok_and(|status| is_status_of_directory(&status))
}

/// Shows the ids of a tree through the mappings of a user namespace.
fn map_ids(
    tree: &OwnedFd,
    options: &Options,
    map: Option<BorrowedFd<'_>>,
) -> Result<(), nix::errno::Errno> {
    map.map_or(Ok(()), |map| map_through(tree, map, options.idmap_all))
}

/// Files of procfs that may be mounted over: figures about the machine, which a container may get
/// versions of its own for. No security decision depends on them.
const FAKED: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Whether a destination may lead into procfs, by its name or through links of the image. The usual
/// destinations are excluded, because the check costs time at every start. An image gains nothing
/// if it redirects them: nothing is read or written through a procfs that has mounts in it.
fn leads_anywhere(destination: &str) -> bool {
    let usual = ["/dev", "/sys", "/proc"].contains(&destination);
    !usual && !destination.starts_with("/dev/") && !destination.starts_with("/sys/")
}

/// With mounts over other parts of procfs an image could fake the values that security decisions
/// read, or redirect what is written there.
pub(super) fn must_not_be_procfs(target: &OwnedFd, destination: &str) -> Result<(), Failure> {
    let file = destination.strip_prefix("/proc/").unwrap_or(destination);
    if FAKED.contains(&file.trim_end_matches('/')) {
        return Ok(());
    }
    let status = rustix::fs::fstatfs(target).step(|| format!("examine {destination}"))?;
    if status.f_type as u64 == procfs::MAGIC {
        return Err(Failure::invalid(format!(
            "mounts: {destination} is inside procfs and must not be mounted over"
        )));
    }
    Ok(())
}

fn within(step: &str, failure: Failure) -> Failure {
    Failure {
        message: format!("{step}: {}", failure.message),
        ..failure
    }
}

/// Makes a copy of a file's or directory's mount for the container. Without options about
/// attributes, the copy has the attributes of the source; otherwise it has exactly the requested
/// ones, as with runc. If the source's attributes are locked, the requested ones are added to them.
fn bind(
    mount: &Mount,
    options: &Options,
    made: Option<OwnedFd>,
    locked: bool,
) -> Result<OwnedFd, Failure> {
    let source = mount.source.as_deref().unwrap_or_default();
    let step = || format!("bind {source} to {}", mount.destination);
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.bind == Some(true) {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = match made {
        Some(made) => rustix::mount::open_tree(made, "", flags | OpenTreeFlags::AT_EMPTY_PATH),
        None => rustix::mount::open_tree(CWD, source, flags),
    }
    .step(step)?;
    if !options.own.is_empty() {
        let wanted = match locked {
            true => options.own,
            false => options.own.alone(),
        };
        match change(&tree, &wanted, false) {
            Err(nix::errno::Errno::EPERM) => change(&tree, &options.own, false),
            other => other,
        }
        .step(step)?;
    }
    if !options.all.is_empty() {
        change(&tree, &options.all, true).step(step)?;
    }
    Ok(tree)
}

fn is_status_of_directory(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Directory
}

/// Whether the source of a bind (given by its status) is the host's root directory.
fn is_root(mount: &Mount, status: &Stat) -> bool {
    let same = |root: Stat| (root.st_dev, root.st_ino) == (status.st_dev, status.st_ino);
    // Another mount of the same directory would have the same inode.
    is_status_of_directory(status)
        && rustix::fs::stat("/").is_ok_and(same)
        && mount.source.as_deref().is_some_and(|source| {
            std::fs::canonicalize(source).is_ok_and(|path| path == Path::new("/"))
        })
}

/// Unmounts the copy of the container's root from a recursive bind of the host's root. The
/// container's root is mounted on top of the host's root (see [`super::root`]), so a copy of all
/// mounts has it on top, too.
fn uncover(
    root: BorrowedFd<'_>,
    destination: &str,
    tree: &OwnedFd,
) -> Result<(), rustix::io::Errno> {
    // A lookup ends at the topmost mount on that directory. The descriptor's own path names that
    // mount.
    let top = paths::find(root, destination)?;
    let number = |fd: &OwnedFd| {
        let (flags, wanted) = (AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
        rustix::fs::statx(fd, "", flags, wanted).map(|status| status.stx_mnt_id)
    };
    if number(&top)? == number(tree)? {
        // The container's root was attached elsewhere.
        return Ok(());
    }
    let path = format!("/proc/self/fd/{}", top.as_raw_fd());
    rustix::mount::unmount(path, UnmountFlags::DETACH)
}

/// Shows the ids of a tree through the mappings of a user namespace.
pub(super) fn map_through(
    tree: &OwnedFd,
    map: BorrowedFd<'_>,
    recursive: bool,
) -> Result<(), nix::errno::Errno> {
    let attributes = MountAttributes {
        set: mount_attr::IDMAP,
        userns_fd: map.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    mount_attr::mount_setattr(tree.as_fd(), c"", recursive, &attributes)
}

/// Makes a tree read-only.
pub(super) fn make_readonly(tree: &OwnedFd, recursive: bool) -> Result<(), nix::errno::Errno> {
    let attributes = Attributes {
        set: mount_attr::RDONLY,
        clear: 0,
    };
    change(tree, &attributes, recursive)
}

/// Without a propagation option a mount is private, with all below it.
fn propagate(tree: &OwnedFd, options: &Options) -> Result<(), nix::errno::Errno> {
    let (propagation, recursive) = options.propagation.unwrap_or((libc::MS_PRIVATE, true));
    change_propagation(tree, propagation, recursive)
}

/// Copies the mount of a descriptor, from the descriptor's directory downwards.
pub(crate) fn copy_of(mount: impl AsFd) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::mount::open_tree(
        mount,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

/// Attaches a tree to the file or directory of a descriptor.
pub(crate) fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), rustix::io::Errno> {
    rustix::mount::move_mount(
        tree,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

//! Finds the host's objects that a container can change: through its mounts and descriptors, and
//! through changes of the host's own files.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mount {
    number: String,
    /// Major and minor number of the file system.
    device: String,
    /// The part of the file system that is mounted.
    root: PathBuf,
    place: PathBuf,
    readonly: bool,
    /// Type, source and options of the file system itself.
    file_system: String,
}

fn mounts(pid: &str) -> Vec<Mount> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let parse = |line: &str| {
        let (mount, file_system) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        Mount {
            number: fields[0].to_owned(),
            device: fields[2].to_owned(),
            root: fields[3].into(),
            place: fields[4].into(),
            readonly: fields[5].split(',').any(|option| option == "ro"),
            file_system: file_system.to_owned(),
        }
    };
    text.lines().map(parse).collect()
}

/// The host path of a part of a file system, if it has one.
fn on_host(host: &[Mount], device: &str, root: &Path) -> Option<PathBuf> {
    let mut same = host.iter().filter(|mount| mount.device == device);
    let first = same.clone().next()?;
    let found = same.find_map(|mount| Some(mount.place.join(root.strip_prefix(&mount.root).ok()?)));
    Some(found.unwrap_or_else(|| first.place.clone()))
}

/// Every object of the host that the processes of a container can change: through a writable mount
/// of the container, or through a writable descriptor of its first process. Files in the directory
/// `own` were made for the container.
pub fn writable(pid: i32, own: &Path) -> Vec<String> {
    let host = mounts("self");
    let mut found = Vec::new();
    let inside = mounts(&pid.to_string());
    for mount in &inside {
        let Some(path) = on_host(&host, &mount.device, &mount.root) else {
            continue;
        };
        if !mount.readonly && !path.starts_with(own) {
            found.push(format!(
                "mount {} of {}",
                mount.place.display(),
                path.display()
            ));
        }
    }
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        let link = entry.path();
        let about = Path::new("/proc").join(pid.to_string()).join("fdinfo");
        let about = std::fs::read_to_string(about.join(entry.file_name())).unwrap();
        let number = about.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let number = number.unwrap().trim();
        if inside.iter().any(|mount| mount.number == number) {
            continue;
        }
        let Ok(status) = std::fs::metadata(&link) else {
            continue;
        };
        let (major, minor) = (
            rustix::fs::major(status.dev()),
            rustix::fs::minor(status.dev()),
        );
        let device = format!("{major}:{minor}");
        let readonly = keelson_sys::mount_attr::is_readonly(&link).unwrap();
        let target = std::fs::read_link(&link).unwrap();
        if host.iter().any(|mount| mount.device == device) && !readonly && !target.starts_with(own)
        {
            found.push(format!(
                "descriptor {} of {}",
                link.display(),
                target.display()
            ));
        }
    }
    found
}

/// Mode, owner and names of extended attributes of the objects that containers could reach: devices
/// and the roots of mounts, with the options of their file systems.
#[derive(Debug, PartialEq, Eq)]
pub struct State(BTreeMap<PathBuf, String>);

impl State {
    /// Their present state.
    fn now() -> Self {
        let nodes = [
            "null", "zero", "full", "random", "urandom", "tty", "ptmx", "console",
        ];
        let nodes = nodes.map(|name| Path::new("/dev").join(name));
        let describe = |path: &Path| {
            let status = std::fs::symlink_metadata(path).ok()?;
            let mut names = [0_u8; 4096];
            let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
            let attributes = String::from_utf8_lossy(&names[..length]);
            let (mode, uid, gid) = (status.mode(), status.uid(), status.gid());
            Some(format!("{mode:o} {uid}:{gid} {attributes:?}"))
        };
        let mut state = BTreeMap::new();
        for path in nodes {
            state.extend(describe(&path).map(|text| (path, text)));
        }
        let tests = std::env::temp_dir();
        for mount in mounts("self") {
            // Mounts that tests make on the host meanwhile.
            if mount.place.starts_with(&tests) {
                continue;
            }
            let Some(text) = describe(&mount.place) else {
                continue;
            };
            let file_system = mount.file_system;
            state.insert(mount.place, format!("{text} {file_system}"));
        }
        Self(state)
    }
}

static BEFORE: OnceLock<State> = OnceLock::new();

/// Records the state of the host's files before a test does anything.
pub fn note() {
    BEFORE.get_or_init(State::now);
}

/// Panics if one of them has changed since.
pub fn assert_unchanged() {
    if let Some(before) = BEFORE.get() {
        let State(now) = State::now();
        for (path, text) in &before.0 {
            // Another test may have removed its mount.
            if let Some(found) = now.get(path) {
                assert_eq!(found, text, "{} of the host was changed", path.display());
            }
        }
    }
}

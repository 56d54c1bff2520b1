//! Reads a root file system without mounting it: applies the kernel's overlay rules (upper before
//! lower, whiteouts, opaque directories) to the layers' directories.
//!
//! Layers are foreign input. Every component is opened relative to its parent without following
//! links, links are resolved here within the root, and sizes are bounded.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use hostd_images::overlay::{self, Visible};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// As in the kernel: more links on a path are an error.
const MAX_LINKS: usize = 40;

/// The target of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Absent,
    Directory,
    Other,
}

/// How many directories of a path are kept open for `..`: each needs a descriptor in every layer.
const KEPT: usize = 16;
/// How many components are looked up for one path, including those of links and those that are
/// opened again.
const MAX_LOOKUPS: usize = 1 << 16;

/// The layers of a root file system, topmost first, with the mounts over them.
pub(crate) struct Merged<'a> {
    layers: &'a [PathBuf],
    mounts: Vec<Mounted>,
}

/// A mount over the root file system.
struct Mounted {
    at: Vec<String>,
    /// The source on the host; `None` for a file system that starts empty.
    source: Option<PathBuf>,
}

/// One path component in the merged view.
enum Found {
    Absent,
    /// The directory in every layer that contributes to it, topmost first.
    Directory(Vec<OwnedFd>),
    Link(PathBuf),
    File(OwnedFd),
}

impl<'a> Merged<'a> {
    pub(crate) fn new(layers: &'a [PathBuf]) -> Self {
        Self {
            layers,
            mounts: Vec::new(),
        }
    }

    /// The root file system as the container sees it, with mounts: a source on the host, or none
    /// for an empty file system, and a destination. Deeper mounts hide others.
    pub(crate) fn with_mounts(
        layers: &'a [PathBuf],
        mounts: impl IntoIterator<Item = (Option<PathBuf>, String)>,
    ) -> Self {
        let mounts = mounts.into_iter().map(|(source, destination)| Mounted {
            at: components(&destination).collect(),
            source,
        });
        Self {
            layers,
            mounts: mounts.collect(),
        }
    }

    /// The object at an absolute path. Links are followed.
    pub(crate) fn kind(&self, path: &str) -> std::io::Result<Kind> {
        Ok(match self.walk(path)? {
            Found::Directory(_) => Kind::Directory,
            Found::File(_) => Kind::Other,
            Found::Absent | Found::Link(_) => Kind::Absent,
        })
    }

    /// Resolves an absolute path, following links, to the directories of all layers, topmost first;
    /// `None` if it is no directory.
    pub(crate) fn directories(&self, path: &str) -> std::io::Result<Option<Vec<OwnedFd>>> {
        Ok(match self.walk(path)? {
            Found::Directory(directories) => Some(directories),
            Found::File(_) | Found::Absent | Found::Link(_) => None,
        })
    }

    /// The content of a regular file. Links are followed. `None` if there is no such file, or it is
    /// larger than `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
        let Found::File(handle) = self.walk(path)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        // The handle is O_PATH, so that looking at a device or a pipe has no effect. Opening
        // through /proc reaches the very file that was examined.
        let file = std::fs::File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&handle)
        ))?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    fn walk(&self, path: &str) -> std::io::Result<Found> {
        let mut links = 0;
        let mut todo: VecDeque<String> = components(path).collect();
        let mut way = Way {
            merged: self,
            root: self.root()?,
            last: VecDeque::new(),
            place: Vec::new(),
            lookups: 0,
        };
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                way.up();
                continue;
            }
            match way.look(name)? {
                Found::Directory(directories) => way.keep(directories),
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = target.to_string_lossy();
                    way.place.pop();
                    if target.starts_with('/') {
                        way.place.clear();
                        way.last.clear();
                    }
                    for component in components(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(component);
                    }
                }
                found @ Found::File(_) if todo.is_empty() => return Ok(found),
                Found::File(_) | Found::Absent => return Ok(Found::Absent),
            }
        }
        way.end()
    }

    /// The object at a path whose parent is `directory`.
    fn look(&self, directory: &[OwnedFd], place: &[String]) -> std::io::Result<Found> {
        if let Some(mounted) = self.mounts.iter().rfind(|mount| mount.at == place) {
            return match &mounted.source {
                Some(source) => open_source(source),
                None => Ok(Found::Directory(Vec::new())),
            };
        }
        let name = place.last().map_or("", String::as_str);
        match lookup(directory, name)? {
            // Directories on the way to a mount are made for it.
            Found::Absent if self.mounts.iter().any(|mount| mount.at.starts_with(place)) => {
                Ok(Found::Directory(Vec::new()))
            }
            found => Ok(found),
        }
    }

    fn root(&self) -> std::io::Result<Vec<OwnedFd>> {
        let mut directories = Vec::with_capacity(self.layers.len());
        for layer in self.layers {
            directories.push(rustix::fs::open(
                layer,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
        }
        Ok(directories)
    }
}

/// The path from the root to the current position of a walk.
struct Way<'a> {
    merged: &'a Merged<'a>,
    root: Vec<OwnedFd>,
    /// The last directories of the path, at most [`KEPT`]. Earlier ones are opened again if `..`
    /// returns to them.
    last: VecDeque<Vec<OwnedFd>>,
    /// The names of all directories on the path. None is a link.
    place: Vec<String>,
    lookups: usize,
}

impl Way<'_> {
    fn up(&mut self) {
        self.place.pop();
        self.last.pop_back();
    }

    fn keep(&mut self, directories: Vec<OwnedFd>) {
        self.last.push_back(directories);
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }

    /// The object in the current directory of the walk. Its name is then the last of the path.
    fn look(&mut self, name: String) -> std::io::Result<Found> {
        if !self.reopen()? {
            return Ok(Found::Absent);
        }
        self.place.push(name);
        self.look_at(self.place.len())
    }

    /// The object at the first components of the path, in the last directory.
    fn look_at(&mut self, depth: usize) -> std::io::Result<Found> {
        self.lookups += 1;
        if self.lookups > MAX_LOOKUPS {
            return Err(Errno::NAMETOOLONG.into());
        }
        let directory = self.last.back().unwrap_or(&self.root);
        let place = self.place.get(..depth).unwrap_or_default();
        self.merged.look(directory, place)
    }

    /// Opens the last directories if they are closed. `false`: they no longer exist.
    fn reopen(&mut self) -> std::io::Result<bool> {
        if !self.last.is_empty() {
            return Ok(true);
        }
        for depth in 1..=self.place.len() {
            match self.look_at(depth)? {
                Found::Directory(directories) => self.keep(directories),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn end(mut self) -> std::io::Result<Found> {
        Ok(match self.reopen()? {
            true => Found::Directory(self.last.pop_back().unwrap_or(self.root)),
            false => Found::Absent,
        })
    }
}

/// The source of a bind mount, as the kernel finds it on the host.
fn open_source(source: &Path) -> std::io::Result<Found> {
    let handle = match rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(Found::Absent),
        Err(error) => return Err(error.into()),
    };
    let mode = rustix::fs::fstat(&handle)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Directory => Found::Directory(vec![handle]),
        _ => Found::File(handle),
    })
}

fn components(path: &str) -> impl Iterator<Item = String> + '_ {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .map(str::to_owned)
}

fn lookup(directories: &[OwnedFd], name: &str) -> std::io::Result<Found> {
    Ok(match overlay::look_up(directories, name.as_bytes())? {
        Visible::Nothing => Found::Absent,
        Visible::Directory(merged) => {
            Found::Directory(merged.into_iter().map(|entry| entry.handle).collect())
        }
        Visible::Other(entry) if entry.file_type() == FileType::Symlink => {
            let target = rustix::fs::readlinkat(&entry.handle, "", Vec::new())?;
            Found::Link(PathBuf::from(target.to_string_lossy().into_owned()))
        }
        Visible::Other(entry) => Found::File(entry.handle),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn layers() -> (tempfile::TempDir, Vec<PathBuf>) {
        let base = tempfile::tempdir().unwrap();
        let layers: Vec<_> = ["upper", "middle", "lower"]
            .iter()
            .map(|name| base.path().join(name))
            .collect();
        for layer in &layers {
            fs::create_dir_all(layer.join("etc")).unwrap();
        }
        (base, layers)
    }

    fn put(layer: &Path, path: &str, text: &str) {
        let path = layer.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let (_base, layers) = layers();
        let [upper, middle, lower] = &layers[..] else {
            panic!()
        };
        put(lower, "etc/passwd", "low");
        put(lower, "etc/group", "low");
        put(middle, "etc/passwd", "mid");
        put(upper, "etc/other/x", "up");
        let merged = Merged::new(&layers);
        assert_eq!(merged.read("/etc/passwd", 10).unwrap().unwrap(), b"mid");
        assert_eq!(merged.read("etc//./group", 10).unwrap().unwrap(), b"low");
        assert_eq!(merged.read("/etc/passwd", 2).unwrap(), None, "too large");
        assert_eq!(merged.read("/etc", 10).unwrap(), None);
        assert_eq!(merged.kind("/etc/other").unwrap(), Kind::Directory);
        assert_eq!(merged.kind("/etc/passwd").unwrap(), Kind::Other);
        assert_eq!(merged.kind("/etc/passwd/x").unwrap(), Kind::Absent);
        assert_eq!(merged.kind("/").unwrap(), Kind::Directory);
    }

    #[test]
    fn links_stay_within_the_root() {
        let (base, layers) = layers();
        let [upper, _, lower] = &layers[..] else {
            panic!()
        };
        fs::write(base.path().join("secret"), "outside").unwrap();
        put(lower, "real/passwd", "inside");
        symlink("/real/passwd", upper.join("etc/passwd")).unwrap();
        symlink("../../../../secret", upper.join("etc/escape")).unwrap();
        symlink(base.path().join("secret"), upper.join("etc/absolute")).unwrap();
        symlink("loop", upper.join("etc/loop")).unwrap();
        let merged = Merged::new(&layers);
        assert_eq!(merged.read("/etc/passwd", 10).unwrap().unwrap(), b"inside");
        assert_eq!(merged.read("/etc/escape", 10).unwrap(), None);
        assert_eq!(merged.read("/etc/absolute", 10).unwrap(), None);
        assert!(merged.read("/etc/loop", 10).is_err());
    }

    #[test]
    fn mounts_hide_what_is_below() {
        let (base, layers) = layers();
        put(&layers[2], "etc/passwd", "image");
        put(&layers[2], "etc/group", "image");
        let outside = base.path().join("outside");
        put(&outside, "passwd", "mounted");
        symlink("/etc/group", outside.join("link")).unwrap();
        symlink(outside.join("passwd"), outside.join("escape")).unwrap();
        let see = |mounts: &[(Option<&str>, &str)]| {
            let mounts: Vec<_> = mounts
                .iter()
                .map(|(source, at)| (source.map(|name| outside.join(name)), (*at).to_owned()))
                .collect();
            let merged = Merged::with_mounts(&layers, mounts);
            [
                "/etc/passwd",
                "/etc/group",
                "/etc/link",
                "/etc/escape",
                "/new/a/passwd",
            ]
            .map(|path| merged.read(path, 99).unwrap())
            .map(|bytes| String::from_utf8(bytes.unwrap_or_default()).unwrap())
        };
        assert_eq!(
            see(&[(Some("passwd"), "/etc/passwd")])[..2],
            ["mounted", "image"]
        );
        // A whole directory; links in it are followed within the container.
        assert_eq!(see(&[(Some(""), "/etc")])[..4], ["mounted", "", "", ""]);
        // An empty file system, and a file in it again.
        assert_eq!(
            see(&[(None, "/etc"), (Some("passwd"), "/etc/passwd")])[..2],
            ["mounted", ""]
        );
        assert_eq!(see(&[(Some(""), "/new/a")])[4], "mounted");
        assert_eq!(see(&[(Some("missing"), "/etc/passwd")])[0], "");
        let deep = format!("/{}", "d/".repeat(1500));
        let merged = Merged::with_mounts(&layers, [(None, deep.clone())]);
        assert_eq!(merged.kind(&deep).unwrap(), Kind::Directory);
    }

    /// Executes this test again with few descriptors.
    #[test]
    fn deep_paths_hold_few_descriptors() {
        const BASE: &str = "KEELSON_TEST_FEW_DESCRIPTORS";
        let Some(base) = std::env::var_os(BASE) else {
            let base = tempfile::tempdir().unwrap();
            let done = std::process::Command::new("sh")
                .args(["-c", "ulimit -n 128 && exec \"$0\" \"$@\""])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "rootfs::tests::deep_paths_hold_few_descriptors"])
                .env(BASE, base.path())
                .output()
                .unwrap();
            // The standard library would hold a descriptor for each level.
            let removed = std::process::Command::new("rm")
                .arg("-rf")
                .arg(base.path())
                .status()
                .unwrap();
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && said.contains("1 passed"), "{said}");
            assert!(removed.success());
            return;
        };
        let layers = ["upper", "middle", "lower"].map(|name| Path::new(&base).join(name));
        let deep = "d/".repeat(1500);
        for layer in &layers {
            fs::create_dir_all(layer.join(&deep)).unwrap();
        }
        put(&layers[2], &format!("{deep}file"), "deep");
        put(&layers[1], &format!("{}file", "d/".repeat(1000)), "up");
        put(&layers[1], "file", "root");
        symlink(format!("/{deep}"), layers[0].join("link")).unwrap();
        symlink("../".repeat(1300), layers[2].join(format!("{deep}top"))).unwrap();
        let merged = Merged::new(&layers);
        let read = |path: &str| merged.read(path, 10).unwrap().unwrap_or_default();
        assert_eq!(read("/link/file"), b"deep");
        assert_eq!(merged.kind("/link").unwrap(), Kind::Directory);
        // Return to directories that were closed meanwhile, and to the root.
        let up = format!("/link/{}", "../".repeat(500));
        assert_eq!(read(&format!("{up}file")), b"up");
        assert_eq!(merged.kind(&up).unwrap(), Kind::Directory);
        let top = format!("/link/top/{}", "../".repeat(199));
        assert_eq!(read(&format!("{top}../file")), b"root");
        assert_eq!(read(&format!("{top}file")), b"");
        assert_eq!(read(&format!("{top}../link/file")), b"deep");
        // Expensive walks are stopped.
        let back = format!("{}{}", "../".repeat(KEPT + 1), "d/".repeat(KEPT + 1));
        assert!(merged.kind(&format!("/link/{}", back.repeat(60))).is_err());
    }

    #[test]
    fn whiteouts_and_opaque_directories() {
        if !keelson_testing::is_root() {
            return;
        }
        let (_base, layers) = layers();
        let [upper, middle, lower] = &layers[..] else {
            panic!()
        };
        put(lower, "etc/passwd", "low");
        put(lower, "opt/a", "low");
        put(middle, "opt/b", "mid");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            upper.join("etc/passwd"),
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .unwrap();
        let merged = Merged::new(&layers);
        assert_eq!(merged.kind("/etc/passwd").unwrap(), Kind::Absent);
        assert_eq!(merged.kind("/opt/a").unwrap(), Kind::Other);
        let set = rustix::fs::setxattr(
            middle.join("opt"),
            "trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_ok() {
            assert_eq!(merged.kind("/opt/a").unwrap(), Kind::Absent);
            assert_eq!(merged.kind("/opt/b").unwrap(), Kind::Other);
        }
    }
}

//! Archives and stores for tests.

#![allow(dead_code, reason = "every test file uses another part")]

pub(crate) mod client;
pub(crate) mod complete;
pub(crate) mod disk;
pub(crate) mod seen;
pub(crate) mod server;
pub(crate) mod storage;
pub(crate) mod tree;

use std::io::Write;
use std::path::{Path, PathBuf};

use hostd_images::{Digest, ImageError, ImageStore, ImageStoreOptions, LayerLimits, Loaded};
use serde_json::json;

/// A store in a temporary directory; unmounts and removes everything at its end.
pub(crate) struct Fixture {
    pub(crate) store: Option<ImageStore>,
    folder: tempfile::TempDir,
    /// The store's directory. It is below `directory`, unless the store has its own disk.
    root: PathBuf,
    directories: bool,
}

pub(crate) use keelson_testing::is_root;

impl Fixture {
    pub(crate) fn new(directories: bool) -> Self {
        // Not in /tmp, which may be a tmpfs: the kernel mounts no EROFS from files there.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = folder.path().join("engine");
        Self::open(folder, root, directories)
    }

    /// A store whose files are elsewhere, on a separate disk of the test.
    pub(crate) fn on(root: &Path, directories: bool) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        Self::open(folder, root.to_owned(), directories)
    }

    fn open(folder: tempfile::TempDir, root: PathBuf, directories: bool) -> Self {
        let mut fixture = Self {
            store: None,
            folder,
            root,
            directories,
        };
        fixture.reopen();
        fixture
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.root.clone()
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// Closes the store, with its mounts.
    pub(crate) fn close(&mut self) {
        if let Some(store) = self.store.take() {
            store.shutdown();
        }
    }

    pub(crate) fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(&self.root(), &self.run(), self.directories));
    }

    pub(crate) fn store(&self) -> &ImageStore {
        self.store.as_ref().unwrap()
    }

    pub(crate) async fn load(&self, archive: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        load(self.store(), archive).await
    }

    /// All objects of the store, after removed ones are deleted.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let staging = self.root().join("staging");
        for _ in 0..1000 {
            if std::fs::read_dir(&staging).unwrap().next().is_none() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let mut found = Vec::new();
        for name in ["staging", "layers", "blobs", "images"] {
            for entry in std::fs::read_dir(self.root().join(name)).unwrap() {
                found.push(entry.unwrap().path());
            }
        }
        found.sort();
        found
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.shutdown();
        }
        assert_no_mounts(self.folder.path());
    }
}

fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(folder))
        .collect()
}

/// Unmounts the mounts of a killed process.
pub(crate) fn unmount_below(folder: &Path) {
    for point in mounts_below(folder).iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

pub(crate) fn assert_no_mounts(below: &Path) {
    let left = mounts_below(below);
    if !std::thread::panicking() {
        assert!(left.is_empty(), "mounts are left: {left:?}");
    }
}

pub(crate) fn open(root: &Path, run: &Path, directories: bool) -> ImageStore {
    let options = ImageStoreOptions {
        registries: hostd_images::RegistryOptions::default(),
        directories,
        limits: LayerLimits {
            bytes: 16 << 20,
            entries: 20_000,
            ..LayerLimits::default()
        },
        ..ImageStoreOptions::default()
    };
    ImageStore::open_with(root, run, options).unwrap()
}

pub(crate) async fn load(store: &ImageStore, archive: &[u8]) -> Result<Vec<Loaded>, ImageError> {
    let (progress, _) = tokio::sync::mpsc::channel(16);
    store.load(archive, progress).await
}

/// Random numbers (SplitMix64) that a seed repeats.
pub(crate) struct Random(u64);

impl Random {
    /// Seeded from KEELSON_TEST_SEED, or from a new seed each time. The seed is printed.
    pub(crate) fn new(test: &str) -> Self {
        let seed = std::env::var("KEELSON_TEST_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| {
                let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
                time.as_nanos() as u64
            });
        eprintln!("{test}: KEELSON_TEST_SEED={seed}");
        Self(seed)
    }

    /// Seeded from this value.
    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// How often a test of random moments is repeated.
pub(crate) fn rounds(usual: u64) -> u64 {
    std::env::var("KEELSON_TEST_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// Builds tar archives.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(data.len() as u64);
        // The crate's own setters refuse what a hostile archive has.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub(crate) fn file(self, path: &str, data: &[u8], mode: u32) -> Self {
        self.entry(path, tar::EntryType::Regular, "", data, |header| {
            header.set_mode(mode);
        })
    }

    pub(crate) fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, "", &[], |header| {
            header.set_mode(mode);
        })
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, target, &[], |_| {})
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, target, &[], |_| {})
    }

    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0
            .append_pax_extensions(records.iter().copied())
            .unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// A layer with a busybox that runs.
pub(crate) fn busybox_layer() -> Vec<u8> {
    let busybox = keelson_testing::busybox::bytes().unwrap();
    Tar::new()
        .directory("bin/", 0o755)
        .file("bin/busybox", &busybox, 0o755)
        .symlink("bin/sh", "busybox")
        .hard_link("bin/true", "bin/busybox")
        .directory("tmp/", 0o1777)
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)
        .finish()
}

pub(crate) fn config(layers: &[Vec<u8>], cmd: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|layer| Digest::of(layer).to_string())
        .collect();
    serde_json::to_vec(&json!({
        "created": "2026-01-02T03:04:05Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": [cmd], "Env": ["PATH=/bin"], "Labels": {"a": "b"}, "Unknown": 1},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "test"}],
    }))
    .unwrap()
}

/// An archive in the format of `docker save`, with the manifest last.
pub(crate) fn docker_archive(name: &str, layers: &[Vec<u8>], cmd: &str) -> Vec<u8> {
    let config = config(layers, cmd);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let mut tar = Tar::new().file(&config_name, &config, 0o644);
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        names.push(format!("{number}/layer.tar"));
        tar = tar.file(&names[number], layer, 0o644);
    }
    let tags: &[&str] = if name.is_empty() { &[] } else { &[name] };
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    tar.file("manifest.json", manifest.to_string().as_bytes(), 0o644)
        .finish()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An OCI layout in a tar, whose layers are compressed by `compress`.
pub(crate) fn oci_archive(
    name: &str,
    layers: &[Vec<u8>],
    compress: fn(&[u8]) -> Vec<u8>,
) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut blob = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        let path = format!("blobs/sha256/{}", digest.hex());
        let taken = std::mem::replace(&mut tar, Tar::new());
        tar = taken.file(&path, bytes, 0o644);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let config = blob(
        &config(layers, "sh"),
        "application/vnd.oci.image.config.v1+json",
    );
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| blob(&compress(layer), "application/vnd.oci.image.layer.v1.tar"))
        .collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest = blob(
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    tar.file("index.json", index.to_string().as_bytes(), 0o644)
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)
        .finish()
}

/// Waits for work that a thread of the store does after an answer.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

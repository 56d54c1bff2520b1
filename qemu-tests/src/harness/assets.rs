//! Image archives for tests: busybox as `docker save` writes it, and broken ones.

use std::fs;
use std::path::{Path, PathBuf};

use keelson_testing::busybox::{self, BusyboxError};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::error::HarnessError;

/// The tag of the test image.
pub const BUSYBOX: &str = "busybox:latest";

fn no_busybox(error: BusyboxError) -> HarnessError {
    HarnessError::Missing {
        object: "a static busybox".to_owned(),
        remedy: error.to_string(),
    }
}

fn failed(source: std::io::Error) -> HarnessError {
    HarnessError::io("write", Path::new("image archive"))(source)
}

/// A docker archive (image specification 1.2) of one layer with busybox and its applets.
///
/// # Errors
/// There is no static busybox on this machine.
pub fn busybox_archive() -> Result<Vec<u8>, HarnessError> {
    docker_archive(&busybox_layer()?, BUSYBOX)
}

/// The layer of [`busybox_archive`], as `docker import` takes it.
///
/// # Errors
/// There is no static busybox on this machine.
pub fn busybox_layer() -> Result<Vec<u8>, HarnessError> {
    busybox_layer_with(&[])
}

/// The layer of [`busybox_layer`] with executables of this machine, each with its path in the image
/// (without a leading slash).
///
/// # Errors
/// One of them, or a static busybox, can't be read.
pub fn busybox_layer_with(programs: &[(String, PathBuf)]) -> Result<Vec<u8>, HarnessError> {
    let binary = busybox::bytes().map_err(no_busybox)?;
    let applets = busybox::applets().map_err(no_busybox)?;
    let mut layer = Layer::with_directories()?;
    layer.entry("bin/busybox", EntryType::Regular, 0o755, &binary)?;
    for applet in &applets {
        if applet != "busybox" && !applet.is_empty() && !applet.contains('/') {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    let users = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n";
    layer.entry("etc/passwd", EntryType::Regular, 0o644, users)?;
    let groups = b"root:x:0:\nnogroup:x:65534:\n";
    layer.entry("etc/group", EntryType::Regular, 0o644, groups)?;
    for (place, program) in programs {
        let binary = fs::read(program).map_err(HarnessError::io("read", program))?;
        layer.entry(place, EntryType::Regular, 0o755, &binary)?;
    }
    layer.finish()
}

/// A docker archive of one layer with a static busybox alone, tagged `tag`.
///
/// # Errors
/// It can't be read.
pub fn lone_busybox(program: &Path, tag: &str) -> Result<Vec<u8>, HarnessError> {
    let binary = fs::read(program).map_err(HarnessError::io("read", program))?;
    let mut layer = Layer::with_directories()?;
    layer.entry("bin/busybox", EntryType::Regular, 0o755, &binary)?;
    docker_archive(&layer.finish()?, tag)
}

/// A docker archive of one layer, tagged `tag`, with a shell as its command.
///
/// # Errors
/// Never, because the archive is in memory; the tar library's interface requires it.
pub fn docker_archive(layer: &[u8], tag: &str) -> Result<Vec<u8>, HarnessError> {
    archive(layer, &Sha256::digest(layer), tag, None)
}

/// The problem of a broken archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corruption {
    /// The layer's content does not have the digest that the image configuration names.
    WrongDigest,
    /// The archive ends in the middle of the layer.
    CutShort,
    /// The manifest names a missing layer.
    MissingLayer,
    /// The manifest is not JSON.
    BadManifest,
    /// Not a tar at all.
    Garbage,
    /// The path of a file leads out of the layer by `..`.
    EscapingPath,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WrongDigest,
        Self::CutShort,
        Self::MissingLayer,
        Self::BadManifest,
        Self::Garbage,
        Self::EscapingPath,
    ];
}

/// A docker archive tagged `broken:latest` that must be refused.
///
/// # Errors
/// Never, because the archive is in memory; the tar library's interface requires it.
pub fn corrupt_archive(corruption: Corruption) -> Result<Vec<u8>, HarnessError> {
    let tag = "broken:latest";
    let mut layer = Layer::new();
    let content = vec![b'x'; 1 << 20];
    layer.entry("file", EntryType::Regular, 0o644, &content)?;
    if corruption == Corruption::EscapingPath {
        layer.raw_name(b"../../../../escaped", b"escaped")?;
    }
    let layer = layer.finish()?;
    let digest = Sha256::digest(&layer);
    match corruption {
        Corruption::WrongDigest => archive(&layer, &Sha256::digest(b"other"), tag, None),
        Corruption::MissingLayer | Corruption::BadManifest => {
            archive(&layer, &digest, tag, Some(corruption))
        }
        Corruption::EscapingPath => docker_archive(&layer, tag),
        Corruption::Garbage => Ok((0..100_000_u32)
            .map(|n| n.wrapping_mul(193) as u8)
            .collect()),
        Corruption::CutShort => {
            let mut whole = docker_archive(&layer, tag)?;
            whole.truncate(whole.len() / 2);
            Ok(whole)
        }
    }
}

fn archive(
    layer: &[u8],
    diff_id: &[u8],
    tag: &str,
    corruption: Option<Corruption>,
) -> Result<Vec<u8>, HarnessError> {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(diff_id))] },
        "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": "test" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(config.as_bytes())));
    let layer_name = match corruption {
        Some(Corruption::MissingLayer) => "missing/layer.tar",
        _ => "layer/layer.tar",
    };
    let manifest = match corruption {
        Some(Corruption::BadManifest) => "[{\"Config\":".to_owned(),
        _ => json!([{ "Config": config_name, "RepoTags": [tag], "Layers": [layer_name] }])
            .to_string(),
    };
    let mut outer = Layer::new();
    outer.entry(&config_name, EntryType::Regular, 0o644, config.as_bytes())?;
    outer.entry("layer/", EntryType::Directory, 0o755, b"")?;
    outer.entry("layer/layer.tar", EntryType::Regular, 0o644, layer)?;
    outer.entry(
        "manifest.json",
        EntryType::Regular,
        0o644,
        manifest.as_bytes(),
    )?;
    outer.finish()
}

/// A tar in memory, with fixed owners and times so that it is the same every time.
struct Layer(Builder<Vec<u8>>);

impl Layer {
    /// One with the directories that every image has.
    fn with_directories() -> Result<Self, HarnessError> {
        let mut layer = Self::new();
        for (dir, mode) in [
            ("bin/", 0o755),
            ("dev/", 0o755),
            ("etc/", 0o755),
            ("proc/", 0o755),
            ("root/", 0o700),
            ("sys/", 0o755),
            ("tmp/", 0o1777),
            ("var/", 0o755),
        ] {
            layer.entry(dir, EntryType::Directory, mode, b"")?;
        }
        Ok(layer)
    }

    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_767_225_600);
        header.set_size(size as u64);
        header
    }

    fn entry(
        &mut self,
        name: &str,
        kind: EntryType,
        mode: u32,
        content: &[u8],
    ) -> Result<(), HarnessError> {
        let mut header = Self::header(kind, mode, content.len());
        self.0
            .append_data(&mut header, name, content)
            .map_err(failed)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<(), HarnessError> {
        let mut header = Self::header(EntryType::Symlink, 0o777, 0);
        self.0
            .append_link(&mut header, name, target)
            .map_err(failed)
    }

    /// A file whose name the tar library would refuse.
    fn raw_name(&mut self, name: &[u8], content: &[u8]) -> Result<(), HarnessError> {
        let mut header = Self::header(EntryType::Regular, 0o644, content.len());
        for (to, from) in header.as_old_mut().name.iter_mut().zip(name) {
            *to = *from;
        }
        header.set_cksum();
        self.0.append(&header, content).map_err(failed)
    }

    fn finish(self) -> Result<Vec<u8>, HarnessError> {
        self.0.into_inner().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn archive_names_its_layer_by_digest() {
        let archive = docker_archive(b"not looked into", "x:y").unwrap();
        let mut config = serde_json::Value::Null;
        let mut manifest = serde_json::Value::Null;
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            match path.as_str() {
                "manifest.json" => manifest = serde_json::from_str(&text).unwrap(),
                name if name.ends_with(".json") => config = serde_json::from_str(&text).unwrap(),
                _ => {}
            }
        }
        assert_eq!(manifest[0]["RepoTags"][0], "x:y");
        let digest = hex::encode(Sha256::digest(b"not looked into"));
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{digest}"));
    }

    #[test]
    fn broken_archives_are_broken_in_different_ways() {
        let all: Vec<_> = Corruption::ALL
            .iter()
            .map(|corruption| corrupt_archive(*corruption).unwrap())
            .collect();
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one));
        }
        let missing = corrupt_archive(Corruption::MissingLayer).unwrap();
        assert!(names(&missing).contains(&"layer/layer.tar".to_owned()));
    }

    #[test]
    fn busybox_layer_has_a_shell() {
        let layer = match busybox_layer() {
            Ok(layer) => layer,
            Err(error) => return keelson_testing::skip("static busybox", error),
        };
        let names = names(&layer);
        for name in ["bin/busybox", "bin/sh", "etc/passwd"] {
            assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
        }
    }
}

//! The measured image: files of this machine and made-up text, in five layers, the same each time
//! on the same machine. Kept as an OCI layout with the layers in gzip and in zstd, as plain tars,
//! and as the archive that `docker load` takes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use keelson_benches::tools;
use keelson_oci::digest::{Digest, Digester};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// Raised when the generated content changes.
const VERSION: u32 = 1;
/// Shares of the layers, in hundredths.
const SHARES: [u64; 5] = [34, 26, 20, 15, 5];
/// Where real files come from.
const SOURCES: [&str; 3] = ["/usr/lib", "/usr/share", "/usr/bin"];
/// With larger files, the content would depend on a few of them.
const LARGEST: u64 = 4 << 20;
/// Made-up files are as long as this on average.
const MADE_UP: u64 = 9 << 10;
/// Files of a directory.
const PER_DIRECTORY: u64 = 40;
const TIME: u64 = 1_600_000_000;
const CREATED: &str = "2020-09-13T12:26:40Z";

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `gzip -6`.
    Gzip,
    /// `zstd -3`.
    Zstd,
}

impl Form {
    pub(crate) const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    const fn compressor(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Gzip => ("gzip", &["-6", "-n", "-c"]),
            Self::Zstd => ("zstd", &["-3", "-q", "-c"]),
        }
    }
}

/// The size of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub name: &'static str,
    /// Bytes of all files.
    pub bytes: u64,
    pub files: u64,
}

/// A made image.
#[derive(Debug)]
pub(crate) struct Sample {
    directory: PathBuf,
    pub size: Size,
}

impl Sample {
    /// Makes the image below `cache`, unless it is there.
    pub(crate) fn make(cache: &Path, size: Size) -> Result<Self> {
        let directory = cache.join(format!("image-{}-v{VERSION}", size.name));
        let sample = Self { directory, size };
        if sample.directory.is_dir() {
            return Ok(sample);
        }
        eprintln!("making the image {:?}", size.name);
        let building = Self {
            directory: cache.join(format!("image-{}.new", size.name)),
            size,
        };
        if building.directory.exists() {
            fs::remove_dir_all(&building.directory)?;
        }
        fs::create_dir_all(building.blobs())?;
        building
            .fill()
            .with_context(|| format!("make an image in {}", building.directory.display()))?;
        fs::rename(&building.directory, &sample.directory)?;
        Ok(sample)
    }

    /// The OCI layout, whose images are named by [`Form::name`].
    pub(crate) fn layout(&self) -> PathBuf {
        self.directory.join("oci")
    }

    fn blobs(&self) -> PathBuf {
        self.layout().join("blobs/sha256")
    }

    /// The archive that `docker load` takes.
    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.join("archive.tar")
    }

    /// The layers' tars, lowest first.
    pub(crate) fn tars(&self) -> Vec<PathBuf> {
        (0..SHARES.len())
            .map(|layer| self.directory.join(format!("{layer}.tar")))
            .collect()
    }

    /// The layers' compressed blobs, lowest first.
    pub(crate) fn compressed(&self, form: Form) -> Vec<PathBuf> {
        (0..SHARES.len())
            .map(|layer| self.directory.join(format!("{layer}.{}", form.name())))
            .collect()
    }

    /// Bytes of files.
    pub(crate) fn bytes(files: &[PathBuf]) -> Result<u64> {
        files
            .iter()
            .map(|file| Ok(fs::metadata(file)?.len()))
            .sum::<Result<u64>>()
    }

    fn fill(&self) -> Result<()> {
        let mut real = real_files().into_iter();
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ self.size.bytes);
        let mut diff_ids = Vec::new();
        for (layer, (path, share)) in self.tars().iter().zip(SHARES).enumerate() {
            let mut writer = LayerWriter::create(path, layer)?;
            if layer == 0 {
                writer.add_shell()?;
            }
            let (bytes, files) = (self.size.bytes * share / 100, self.size.files * share / 100);
            writer.fill(bytes, files, &mut real, &mut random)?;
            writer.finish()?;
            diff_ids.push(digest_of(path)?.0);
        }
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": CREATED,
            "config": {"Cmd": ["/bin/busybox", "true"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids
                .iter()
                .map(|_| json!({"created": CREATED, "created_by": "benchmark"}))
                .collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        self.write_layout(&config)?;
        self.write_archive(&config)
    }

    fn write_layout(&self, config: &[u8]) -> Result<()> {
        let put = |bytes: &[u8]| -> Result<Value> {
            let digest = Digest::of(bytes);
            fs::write(self.blobs().join(digest.hex()), bytes)?;
            Ok(json!({"digest": digest, "size": bytes.len()}))
        };
        let mut config = put(config)?;
        config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
        let mut index = Vec::new();
        for form in Form::ALL {
            let mut layers = Vec::new();
            for (tar, blob) in self.tars().iter().zip(self.compressed(form)) {
                compress(form, tar, &blob)?;
                let (digest, size) = digest_of(&blob)?;
                fs::hard_link(&blob, self.blobs().join(digest.hex()))?;
                layers.push(json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar+{}", form.name()),
                    "digest": digest,
                    "size": size,
                }));
            }
            const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": layers,
            });
            let mut descriptor = put(manifest.to_string().as_bytes())?;
            descriptor["mediaType"] = json!(MANIFEST);
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": form.name()});
            index.push(descriptor);
        }
        let index = json!({"schemaVersion": 2, "manifests": index});
        fs::write(self.layout().join("index.json"), index.to_string())?;
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        fs::write(self.layout().join("oci-layout"), layout.to_string())?;
        Ok(())
    }

    fn write_archive(&self, config: &[u8]) -> Result<()> {
        let mut archive = Builder::new(BufWriter::new(File::create(self.archive())?));
        let mut names = Vec::new();
        for (layer, tar) in self.tars().iter().enumerate() {
            let name = format!("{layer}/layer.tar");
            let mut file = File::open(tar)?;
            let mut header = header(EntryType::Regular, file.metadata()?.len());
            archive.append_data(&mut header, &name, &mut file)?;
            names.push(name);
        }
        let id = Digest::of(config).hex();
        let manifest = json!([{
            "Config": format!("{id}.json"),
            "RepoTags": [self.name()],
            "Layers": names,
        }]);
        let manifest = manifest.to_string();
        for (name, bytes) in [
            (format!("{id}.json"), config),
            ("manifest.json".to_owned(), manifest.as_bytes()),
        ] {
            let mut header = header(EntryType::Regular, bytes.len() as u64);
            archive.append_data(&mut header, name, bytes)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// The image's name in the archive.
    pub(crate) fn name(&self) -> String {
        format!("localhost/sample:{}", self.size.name)
    }
}

fn compress(form: Form, from: &Path, to: &Path) -> Result<()> {
    let (program, arguments) = form.compressor();
    let status = Command::new(tools::require(program, program)?)
        .args(arguments)
        .stdin(File::open(from)?)
        .stdout(File::create(to)?)
        .status()?;
    if !status.success() {
        bail!("{program} failed");
    }
    Ok(())
}

fn digest_of(path: &Path) -> Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut digester = Digester::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok((digester.finish(), size));
        }
        size += length as u64;
        digester.update(buffer.get(..length).unwrap_or_default());
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory {
        0o755
    } else {
        0o644
    });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(size);
    header
}

/// One layer's tar.
struct LayerWriter {
    tar: Builder<BufWriter<File>>,
    layer: usize,
    directories: u64,
    files: u64,
    bytes: u64,
}

impl LayerWriter {
    fn create(path: &Path, layer: usize) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut writer = Self {
            tar: Builder::new(BufWriter::new(file)),
            layer,
            directories: 0,
            files: 0,
            bytes: 0,
        };
        writer.directory("data")?;
        writer.directory(&format!("data/{layer}"))?;
        Ok(writer)
    }

    /// What containers execute.
    fn add_shell(&mut self) -> Result<()> {
        let busybox = keelson_testing::busybox::bytes()?;
        self.directory("bin")?;
        let mut header = header(EntryType::Regular, busybox.len() as u64);
        header.set_mode(0o755);
        self.tar
            .append_data(&mut header, "bin/busybox", busybox.as_slice())?;
        Ok(())
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0);
        Ok(self.tar.append_data(&mut header, path, io::empty())?)
    }

    /// A name for the next file, in a directory that is made when the present one is full.
    fn place(&mut self) -> Result<String> {
        if self.files.is_multiple_of(PER_DIRECTORY) {
            self.directories += 1;
            let directory = format!("data/{}/{}", self.layer, self.directories);
            self.directory(&directory)?;
        }
        self.files += 1;
        Ok(format!(
            "data/{}/{}/file-{}",
            self.layer, self.directories, self.files
        ))
    }

    /// At most half of the bytes and files are real ones; the rest is generated.
    fn fill(
        &mut self,
        bytes: u64,
        files: u64,
        real: &mut impl Iterator<Item = (PathBuf, u64)>,
        random: &mut Random,
    ) -> Result<()> {
        while self.bytes < bytes / 2
            && self.files < files / 2
            && let Some((path, size)) = real.next()
        {
            // A file that changes while it is read is left out.
            let Ok(mut file) = File::open(&path) else {
                continue;
            };
            if self.bytes + size > bytes / 2 {
                continue;
            }
            let name = self.place()?;
            self.tar
                .append_data(&mut header(EntryType::Regular, size), name, &mut file)?;
            self.bytes += size;
        }
        let mut text = Vec::new();
        while self.files < files || self.bytes < bytes {
            let left = bytes.saturating_sub(self.bytes);
            let average = match files.saturating_sub(self.files) {
                0 => MADE_UP,
                files => left / files,
            };
            let length = random.below(2 * average + 1);
            random.text(length, &mut text);
            let name = self.place()?;
            let mut header = header(EntryType::Regular, text.len() as u64);
            self.tar.append_data(&mut header, name, &text[..])?;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let mut file = self.tar.into_inner()?;
        Ok(file.flush()?)
    }
}

/// This machine's files with their sizes, in an order that mixes them and is always the same.
fn real_files() -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut directories: Vec<PathBuf> = SOURCES.iter().map(PathBuf::from).collect();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.is_file() && metadata.nlink() == 1 && metadata.len() <= LARGEST {
                files.push((entry.path(), metadata.len()));
            }
        }
    }
    files.sort_by_cached_key(|(path, _)| {
        Digest::of(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
    });
    files
}

/// Numbers that look random and are always the same (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }

    /// Words of a small language, rare ones among common ones: it compresses about as source text
    /// does.
    fn text(&mut self, length: u64, into: &mut Vec<u8>) {
        into.clear();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        while into.len() < length {
            let common = self.below(4) > 0;
            let mut word = Self(1 + self.below(if common { 300 } else { 60_000 }));
            for _ in 0..2 + word.below(7) {
                into.push(b'a' + u8::try_from(word.below(26)).unwrap_or(0));
            }
            into.push(if self.below(9) == 0 { b'\n' } else { b' ' });
        }
        into.truncate(length);
    }
}

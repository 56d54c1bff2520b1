//! The best that the machine can do, measured in the same rounds as the engines.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use keelson_benches::{tools, usage};

use crate::registry::layout_reference;
use crate::sample::{Form, Sample};

/// A plain tool at work.
#[derive(Debug)]
pub(crate) struct Floor {
    pub name: String,
    work: Work,
    directory: PathBuf,
}

#[derive(Debug)]
enum Work {
    /// Copies an image from a registry to a directory, without looking into it.
    Download(String),
    /// Copies an image from a directory to a registry.
    Upload(PathBuf, Form),
    /// Decompresses layers one after the other, to a plain file each.
    Decompress(PathBuf, &'static [&'static str], Vec<PathBuf>),
    /// Compresses layers one after the other, to files.
    Compress(PathBuf, &'static [&'static str], Vec<PathBuf>),
    /// Unpacks layers' plain tars to directories.
    Unpack(Vec<PathBuf>),
    /// Copies a directory.
    CopyTree(PathBuf),
    /// Copies a file.
    CopyFile(PathBuf),
}

impl Floor {
    fn new(name: &str, work: Work, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            work,
            directory: directory.join("floor"),
        }
    }

    /// The limits of a pull: bytes over the wire, decompressed, made into files.
    pub(crate) fn of_pull(
        sample: &Sample,
        form: Form,
        image: &str,
        directory: &Path,
    ) -> Result<Vec<Self>> {
        let mut floors = vec![Self::new(
            "skopeo copy to a directory",
            Work::Download(image.to_owned()),
            directory,
        )];
        let programs: &[(&str, &str, &'static [&'static str])] = match form {
            Form::Gzip => &[("gzip", "gzip", &["-dc"]), ("igzip", "isal", &["-dc"])],
            Form::Zstd => &[("zstd", "zstd", &["-dcq"])],
        };
        for (program, package, arguments) in programs {
            let Some(path) = tools::optional(program, package) else {
                continue;
            };
            let work = Work::Decompress(path, arguments, sample.compressed(form));
            let name = format!("{program} -d to plain files");
            floors.push(Self::new(&name, work, directory));
        }
        let unpacked = directory.join("unpacked");
        if !unpacked.exists() {
            unpack(&sample.tars(), &unpacked)?;
        }
        floors.push(Self::new("tar x", Work::Unpack(sample.tars()), directory));
        floors.push(Self::new(
            "cp -a of the files",
            Work::CopyTree(unpacked),
            directory,
        ));
        Ok(floors)
    }

    /// The limits of a push.
    pub(crate) fn of_push(sample: &Sample, directory: &Path) -> Vec<Self> {
        let mut floors = vec![Self::new(
            "skopeo copy of compressed layers",
            Work::Upload(sample.layout(), Form::Gzip),
            directory,
        )];
        if let Some(path) = tools::optional("pigz", "pigz") {
            for (level, arguments) in [(1, &["-1nc"]), (6, &["-6nc"])] {
                let work = Work::Compress(path.clone(), arguments, sample.tars());
                floors.push(Self::new(&format!("pigz -{level}"), work, directory));
            }
        }
        floors
    }

    /// The limits of load and save.
    pub(crate) fn of_archive(sample: &Sample, directory: &Path) -> Vec<Self> {
        vec![Self::new(
            "cp of the archive",
            Work::CopyFile(sample.archive()),
            directory,
        )]
    }

    /// Its output directory is created again for each round.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.clean();
        Ok(fs::create_dir(&self.directory)?)
    }

    pub(crate) fn clean(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Does the work; `registry` is an empty one, for uploads.
    pub(crate) fn measure(&self, registry: &str) -> Result<usage::Cost> {
        let file = |layer: usize| self.directory.join(layer.to_string());
        let mut total = usage::Cost::default();
        match &self.work {
            Work::Download(image) => {
                total += usage::run(
                    skopeo()?
                        .arg("--src-tls-verify=false")
                        .arg(format!("docker://{image}"))
                        .arg(format!("dir:{}", file(0).display())),
                )?;
            }
            Work::Upload(layout, form) => {
                total += usage::run(
                    skopeo()?
                        .arg("--dest-tls-verify=false")
                        .arg(layout_reference(layout, *form))
                        .arg(format!("docker://{registry}")),
                )?;
            }
            Work::Decompress(program, arguments, blobs) => {
                for (layer, blob) in blobs.iter().enumerate() {
                    let target = File::create(file(layer))?;
                    let mut command = Command::new(program);
                    command.args(*arguments).stdin(File::open(blob)?);
                    total += usage::run(command.stdout(target))?;
                }
            }
            Work::Compress(program, arguments, tars) => {
                for (layer, tar) in tars.iter().enumerate() {
                    let mut command = Command::new(program);
                    command.args(*arguments).stdin(File::open(tar)?);
                    total += usage::run(command.stdout(File::create(file(layer))?))?;
                }
            }
            Work::Unpack(tars) => {
                for (layer, tar) in tars.iter().enumerate() {
                    fs::create_dir(file(layer))?;
                    total += usage::run(&mut untar(tar, &file(layer)))?;
                }
            }
            Work::CopyTree(tree) => {
                total += usage::run(Command::new("cp").arg("-a").arg(tree).arg(file(0)))?;
            }
            Work::CopyFile(from) => {
                total += usage::run(Command::new("cp").arg(from).arg(file(0)))?;
            }
        }
        Ok(total)
    }
}

fn skopeo() -> Result<Command> {
    let mut command = Command::new(tools::require("skopeo", "skopeo")?);
    command.args(["copy", "-q"]);
    Ok(command)
}

fn untar(tar: &Path, into: &Path) -> Command {
    let mut command = Command::new("tar");
    command.arg("-xf").arg(tar).arg("-C").arg(into);
    command
}

fn unpack(tars: &[PathBuf], into: &Path) -> Result<()> {
    fs::create_dir(into)?;
    for tar in tars {
        usage::run(&mut untar(tar, into))?;
    }
    Ok(())
}

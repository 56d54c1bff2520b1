//! Shared by the measurements: directories, the image, a registry that has it, the engines.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keelson_benches::build;
use keelson_linux::mountinfo;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

use crate::registry::Registry;
use crate::sample::{Form, Sample, Size};
use keelson_benches::engines::Engine;

/// How long all tables together may take.
#[derive(Debug)]
pub(crate) struct Budget {
    begin: Cell<Instant>,
    time: Duration,
    tables: Cell<u32>,
}

impl Budget {
    /// A budget of time for a number of tables.
    pub(crate) fn new(time: Duration, tables: u32) -> Self {
        Self {
            begin: Cell::new(Instant::now()),
            time,
            tables: Cell::new(tables),
        }
    }

    /// Starts the clock. Measured tables are kept for the next run.
    pub(crate) fn begin(&self) {
        self.begin.set(Instant::now());
    }

    fn left(&self) -> Duration {
        self.time.saturating_sub(self.begin.get().elapsed())
    }

    /// Whether the time is used up.
    pub(crate) fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// When the next table must be ready: tables share the remaining time.
    pub(crate) fn end_of_next(&self) -> Instant {
        let tables = self.tables.get().max(1);
        self.tables.set(tables - 1);
        Instant::now() + self.left() / tables
    }
}

/// Everything that measurements need. Nothing but the made images is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    // In the order in which they must be stopped.
    pub engines: Vec<Engine>,
    pub registry: Registry,
    pub sample: Sample,
    pub rounds: usize,
    pub budget: Budget,
    pause: Duration,
    directories: Directories,
}

#[derive(Debug)]
struct Directories {
    cache: PathBuf,
    /// Data of all engines, on one file system.
    disk: PathBuf,
    /// Sockets: the path must be short.
    run: TempDir,
}

impl Lab {
    pub(crate) fn open(size: Size, pause: Duration, rounds: usize, budget: Budget) -> Result<Self> {
        let cache = build::target_directory().join("benches");
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let sample = Sample::make(&cache, size)?;
        let directories = Directories {
            disk: cache.join("work"),
            run: tempfile::Builder::new().prefix("kb-").tempdir()?,
            cache,
        };
        // Left by a run that was killed.
        directories.clean();
        fs::create_dir_all(&directories.disk)?;
        let registry = Registry::start(directories.disk.join("registry"))?;
        Ok(Self {
            engines: Vec::new(),
            registry,
            sample,
            rounds,
            budget,
            pause,
            directories,
        })
    }

    /// Starts the engines, with `peers` those of others too.
    pub(crate) fn start_engines(&mut self, ours: &[(String, PathBuf)], peers: bool) -> Result<()> {
        let (disk, run) = (
            self.disk().to_owned(),
            self.directories.run.path().to_owned(),
        );
        for (name, program) in ours {
            self.engines
                .push(Engine::hostd(name, program, &disk, &run)?);
        }
        if peers {
            let peers = [
                Engine::dockerd(&disk, &run)?,
                Engine::podman(&disk, &run)?,
                Engine::containerd(&disk, &run)?,
            ];
            self.engines.extend(peers.into_iter().flatten());
        }
        Ok(())
    }

    /// Where temporary files go.
    pub(crate) fn disk(&self) -> &Path {
        &self.directories.disk
    }

    /// Another image.
    pub(crate) fn sample(&self, size: Size) -> Result<Sample> {
        Sample::make(&self.directories.cache, size)
    }

    /// The image's name in the registry.
    pub(crate) fn published(&self, sample: &Sample, form: Form) -> Result<String> {
        self.registry.take(sample, form)
    }

    /// An empty registry beside the one that has the image.
    pub(crate) fn empty_registry(&self) -> Result<Registry> {
        Registry::start(self.disk().join("empty-registry"))
    }

    /// Waits until the disk is idle.
    pub(crate) fn settle(&self) {
        rustix::fs::sync();
        std::thread::sleep(self.pause);
    }
}

impl Directories {
    fn clean(&self) {
        for directory in [&*self.disk, self.run.path()] {
            detach_below(directory);
        }
        let _ = fs::remove_dir_all(&self.disk);
    }
}

impl Drop for Directories {
    fn drop(&mut self) {
        self.clean();
    }
}

/// Unmounts what engines have left behind, the last mount first.
fn detach_below(directory: &Path) {
    let mounts = mountinfo::of_this_process().unwrap_or_default();
    for mount in mounts.iter().rev() {
        if mount.target.starts_with(directory) {
            let _ = unmount(&mount.target, UnmountFlags::DETACH);
        }
    }
}

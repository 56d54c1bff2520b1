//! One life of a container, measured by a small process of its own.
//!
//! The benchmark executes the program `driver` for every cycle. The driver is small and static,
//! because the kernel adds the memory of the process that starts a command to the command's peak.
//! It becomes the parent of everything that the runtime leaves behind, so that the processor time
//! of containers and shims is counted. In a mount namespace of its own, it hides the cgroup2 mount
//! of a hybrid host from runtimes that refuse such hosts, and makes the runtime's file read-only.

pub mod commands;
pub mod floor;
pub mod shim;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::usage::{self, Cost};

/// The job of a driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// How.
    pub way: Way,
    /// How often, one after the other.
    pub cycles: usize,
    /// A mount point that is hidden from the runtime.
    pub hidden: Option<PathBuf>,
    /// A file on a read-only mount, as for programs on our image.
    pub readonly: Option<PathBuf>,
}

/// How a container is started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Way {
    /// By an OCI runtime's commands `create`, `start` and `delete`.
    Commands {
        /// The runtime.
        program: PathBuf,
        /// Where it keeps its state.
        state: PathBuf,
        /// The bundle.
        bundle: PathBuf,
        /// The container's identifier.
        id: String,
    },
    /// By our shim, as hostd does.
    Shim {
        /// The runtime.
        program: PathBuf,
        /// The bundle.
        bundle: PathBuf,
    },
    /// By bare system calls.
    Floor {
        /// The bundle.
        bundle: PathBuf,
        /// The root file system.
        root: PathBuf,
    },
}

/// The measurements of one cycle.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Microseconds until the container is created and waits for its start.
    pub create: u64,
    /// Microseconds from the beginning until the container is gone.
    pub total: u64,
    /// Microseconds of processor time in user mode, including the container's own.
    pub user: u64,
    /// Microseconds of processor time in the kernel.
    pub system: u64,
    /// Most memory that one process held at a time, in bytes.
    pub peak_memory: u64,
}

impl Outcome {
    fn new(create: Duration, total: Duration, used: Cost) -> Self {
        let microseconds = |time: Duration| time.as_micros() as u64;
        Self {
            create: microseconds(create),
            total: microseconds(total),
            user: microseconds(used.user),
            system: microseconds(used.system),
            peak_memory: used.peak_memory,
        }
    }
}

/// The program `driver`: reports that it is ready, waits for a byte, does the job and writes its
/// measurements.
///
/// # Errors
/// The job fails.
pub fn main(job: &str) -> Result<()> {
    let job: Job = serde_json::from_str(job).context("the job")?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .context("make mounts private")?;
    if let Some(path) = &job.hidden {
        rustix::mount::unmount(path, UnmountFlags::DETACH)
            .with_context(|| format!("hide {}", path.display()))?;
    }
    if let Some(path) = &job.readonly {
        protect(path)?;
    }
    usage::adopt_orphans()?;
    let mut out = std::io::stdout().lock();
    out.write_all(b".")?;
    out.flush()?;
    std::io::stdin().lock().read_exact(&mut [0])?;
    let mut outcomes = Vec::with_capacity(job.cycles);
    for _ in 0..job.cycles {
        outcomes.push(match &job.way {
            Way::Commands {
                program,
                state,
                bundle,
                id,
            } => commands::cycle(program, state, bundle, id)?,
            Way::Shim { program, bundle } => shim::cycle(program, bundle)?,
            Way::Floor { bundle, root } => floor::cycle(bundle, root)?,
        });
    }
    serde_json::to_writer(&mut out, &outcomes)?;
    Ok(())
}

/// Mounts a file over itself, read-only.
fn protect(path: &Path) -> Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_bind(path, path)
        .and_then(|()| rustix::mount::mount_remount(path, flags, c""))
        .with_context(|| format!("protect {}", path.display()))
}

/// A driver that is ready.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Driver {
    /// Starts a driver with a command in front of it, which may be empty.
    ///
    /// # Errors
    /// It can't be executed or does not get ready.
    pub fn start(program: &Path, before: &[&str], job: &Job) -> Result<Self> {
        let mut words = before.iter().map(std::ffi::OsStr::new);
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        };
        let mut child = command
            .arg(serde_json::to_string(job)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("execute {}", program.display()))?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the driver has no pipes");
        };
        output
            .read_exact(&mut [0])
            .context("the driver did not get ready")?;
        Ok(Self {
            child,
            input,
            output,
        })
    }

    /// Lets it begin.
    ///
    /// # Errors
    /// It is gone.
    pub fn release(&mut self) -> Result<()> {
        self.input.write_all(b".").context("start the driver")
    }

    /// Its measurements.
    ///
    /// # Errors
    /// Its job failed; why stands on standard error.
    pub fn finish(mut self) -> Result<Vec<Outcome>> {
        let text = std::io::read_to_string(&mut self.output)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the driver ended with {status}");
        }
        serde_json::from_str(&text).context("what the driver measured")
    }
}

//! Executing shims, and collecting those that have ended.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use keelson_sys::{mount_attr, spawn};
use rustix::process::WaitOptions;
use tokio::signal::unix::{SignalKind, signal};

/// The program of shims, and where they run.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// A read-only copy of its mount, if it is on a writable one. Otherwise the program would have
    /// to make one and execute itself again.
    protected: Option<OwnedFd>,
    /// The directory of the cgroup of all shims, so that they are not stopped together with this
    /// process; made when it does not exist.
    cgroup: Option<PathBuf>,
    environment: Vec<CString>,
    collector: Collector,
}

impl Program {
    /// The present file: a later replacement is for another hostd. Must be called within a tokio
    /// runtime.
    pub(crate) fn new(path: PathBuf, cgroup: Option<PathBuf>) -> Self {
        let protected = match mount_attr::is_readonly(&path) {
            Ok(true) => None,
            _ => mount_attr::readonly_copy(&path)
                .inspect_err(|error| {
                    tracing::debug!(path = %path.display(), %error, "no read-only copy");
                })
                .ok(),
        };
        let environment = std::env::vars_os().filter_map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            CString::new(entry.into_encoded_bytes()).ok()
        });
        Self {
            path,
            protected,
            cgroup,
            environment: environment.collect(),
            collector: Collector::start(),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Executes it with arguments, output and standard error.
    pub(super) fn execute(
        &self,
        arguments: &[&OsStr],
        output: BorrowedFd<'_>,
        errors: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let string = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::other);
        let mut words = vec![string(self.path.as_os_str())?];
        for argument in arguments {
            words.push(string(argument)?);
        }
        let path = match &self.protected {
            Some(file) => string(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref())?,
            None => string(self.path.as_os_str())?,
        };
        let null = File::open("/dev/null")?;
        let cgroup = self.cgroup.as_deref().map(open_cgroup).transpose()?;
        let (pid, _) = spawn::spawn(&spawn::Program {
            path: &path,
            arguments: &words,
            environment: &self.environment,
            streams: [null.as_fd(), output, errors],
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
        })?;
        self.collector.add(pid);
        Ok(())
    }
}

fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path)?;
            File::open(path).map(OwnedFd::from)
        }
        other => other.map(OwnedFd::from),
    }
}

/// Collects shims that have ended. They may also outlive this process.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<BTreeSet<i32>>>);

impl Collector {
    /// Collects in the background whenever a child of this process's has ended.
    fn start() -> Self {
        let collector = Self::default();
        let background = collector.clone();
        tokio::spawn(async move {
            let mut ended = match signal(SignalKind::child()) {
                Ok(ended) => ended,
                Err(error) => return tracing::error!(%error, "shims are not collected"),
            };
            while ended.recv().await.is_some() {
                background.collect();
            }
        });
        collector
    }

    fn add(&self, pid: i32) {
        self.with(|children| children.insert(pid));
        // It may have ended before it was known.
        self.collect();
    }

    fn collect(&self) {
        self.with(|children| {
            children.retain(|pid| {
                let child = rustix::process::Pid::from_raw(*pid);
                // An error means that it is no child.
                matches!(
                    rustix::process::waitpid(child, WaitOptions::NOHANG),
                    Ok(None)
                )
            });
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! The program of the small init that containers get on request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keelson_shim_protocol::INIT_NAME;
use keelson_store::objects::remove_tree;
use keelson_store::{Durability, file};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags};

use crate::{EngineError, overlay};

/// A copy of the runtime's program, on an overlay without a writable layer. A container that may
/// change mounts could make a read-only bind writable again, and even its file system. The kernel
/// never makes this overlay writable.
#[derive(Debug)]
pub(crate) struct InitProgram {
    runtime: PathBuf,
    /// The path of the copy.
    files: PathBuf,
    /// The path of the mount that shows it.
    place: PathBuf,
    /// Whether the copy is of the current runtime.
    made: Mutex<bool>,
}

impl InitProgram {
    /// Prepares a copy of the program `runtime`, below `run`. The copy is made at the first use.
    pub(crate) fn new(runtime: &Path, run: &Path) -> Self {
        Self {
            runtime: runtime.to_owned(),
            files: run.join("init-files"),
            place: run.join("init"),
            made: Mutex::new(false),
        }
    }

    /// Returns the copy. Running containers keep an earlier one.
    pub(crate) fn path(&self) -> Result<PathBuf, EngineError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            self.clear();
            let (program, empty) = (self.files.join("program"), self.files.join("empty"));
            for directory in [&self.place, &program, &empty] {
                fs::create_dir_all(directory).map_err(EngineError::io("mkdir", directory))?;
            }
            let bytes = fs::read(&self.runtime).map_err(EngineError::io("read", &self.runtime))?;
            file::write(&program.join(INIT_NAME), &bytes, 0o555, Durability::Relaxed)?;
            let attach = || {
                // An overlay needs two layers.
                let tree = overlay::read_only(&[program, empty])?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
                rustix::mount::move_mount(&tree, "", CWD, &self.place, flags)
            };
            attach().map_err(|error| {
                EngineError::io("mount the init of containers at", &self.place)(error.into())
            })?;
            *made = true;
        }
        Ok(self.place.join(INIT_NAME))
    }

    /// Removes an existing copy, also that of an earlier engine. Running containers keep theirs.
    pub(crate) fn clear(&self) {
        while rustix::mount::unmount(&self.place, UnmountFlags::DETACH).is_ok() {}
        for directory in [&self.place, &self.files] {
            if let Err(error) = remove_tree(directory) {
                tracing::warn!(path = %directory.display(), %error, "init of containers not removed");
            }
        }
    }
}

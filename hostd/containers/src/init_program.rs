//! The program of the small init that containers have on request.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keelson_store::{Durability, file};

use crate::EngineError;

/// Its name, by which the runtime's program knows that it is to be an init.
const NAME: &str = "docker-init";

/// A copy of the runtime's program, which containers see read-only. A container that may change its
/// mounts could write to it all the same; so it is not the file that runs on the host.
#[derive(Debug)]
pub(crate) struct InitProgram {
    runtime: PathBuf,
    path: PathBuf,
    /// Whether the copy is that of the present runtime.
    made: Mutex<bool>,
}

impl InitProgram {
    /// Below `run`, of the program `runtime`. The copy is made when it is needed first.
    pub(crate) fn new(runtime: &Path, run: &Path) -> Self {
        Self {
            runtime: runtime.to_owned(),
            path: run.join(NAME),
            made: Mutex::new(false),
        }
    }

    /// The copy. Containers that run keep an earlier one.
    pub(crate) fn path(&self) -> Result<&Path, EngineError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            let program =
                fs::read(&self.runtime).map_err(EngineError::io("read", &self.runtime))?;
            file::write(&self.path, &program, 0o555, Durability::Relaxed)?;
            *made = true;
        }
        Ok(&self.path)
    }
}

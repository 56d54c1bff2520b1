//! The report of stage 1 to stage 2, in a file on /run, which stage 2 keeps.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// The file. Stage 1 and stage 2 come from the same build, so it carries no version.
pub(crate) const FILE: &str = "/run/keelson/stage1.json";

/// Content of the file. Times are seconds since the kernel started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// Name of the booted deployment.
    pub(crate) deployment: Option<String>,
    /// When stage 1 began.
    pub(crate) started: f64,
    /// When it executed stage 2.
    pub(crate) ended: f64,
    /// The problems of stage 1.
    pub(crate) problems: Vec<String>,
}

/// Writes the file.
pub(crate) fn write(handover: &Handover) -> io::Result<()> {
    let path = Path::new(FILE);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, serde_json::to_vec(handover)?)
}

/// Reads the file. `None` if the machine was booted without our stage 1.
pub(crate) fn read() -> Option<Handover> {
    serde_json::from_slice(&std::fs::read(FILE).ok()?).ok()
}

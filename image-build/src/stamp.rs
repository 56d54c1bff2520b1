//! Content-hash stamps: a stage runs again only when something that it depends on has changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// Collects everything that a stage depends on into one hash.
#[derive(Debug, Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Begins with the name of the stage and the version of its procedure. Raise the version if a
    /// change of the code changes the result for the same inputs.
    #[must_use]
    pub fn new(stage: &str, procedure: u32) -> Self {
        let mut inputs = Self::default();
        inputs.text(stage);
        inputs.text(&procedure.to_string());
        inputs
    }

    /// Adds a text.
    pub fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    /// Adds a file, or a directory with everything below it: names, permission bits and contents.
    ///
    /// # Errors
    /// Something cannot be read; the message names it.
    pub fn path(&mut self, path: &Path) -> Result<()> {
        let metadata =
            fs::symlink_metadata(path).with_context(|| format!("read {}", path.display()))?;
        self.text(&path.file_name().unwrap_or_default().to_string_lossy());
        self.text(&format!("{:o}", metadata.permissions().mode()));
        if metadata.is_symlink() {
            self.text(&fs::read_link(path)?.to_string_lossy());
        } else if metadata.is_dir() {
            let mut entries = fs::read_dir(path)
                .and_then(|entries| {
                    entries
                        .map(|entry| entry.map(|entry| entry.path()))
                        .collect::<std::io::Result<Vec<_>>>()
                })
                .with_context(|| format!("list {}", path.display()))?;
            entries.sort();
            self.text(&entries.len().to_string());
            for entry in entries {
                self.path(&entry)?;
            }
        } else {
            let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
            self.0.update((content.len() as u64).to_le_bytes());
            self.0.update(&content);
        }
        Ok(())
    }

    /// The hash, hexadecimal.
    #[must_use]
    pub fn finish(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// The record of a stage's last successful run.
#[derive(Debug)]
pub struct Stamp {
    file: PathBuf,
    key: String,
}

impl Stamp {
    /// The stamp of `stage` in the directory `stamps` for the given inputs.
    #[must_use]
    pub fn new(stamps: &Path, stage: &str, inputs: Inputs) -> Self {
        Self {
            file: stamps.join(stage),
            key: inputs.finish(),
        }
    }

    /// The hash of the inputs.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether the last successful run had the same inputs and all that it made is still there.
    #[must_use]
    pub fn is_current(&self, outputs: &[&Path]) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|text| text == self.key)
            && outputs.iter().all(|output| output.exists())
    }

    /// Forgets the last run; called before outputs are touched, so that an interrupted run is
    /// done again.
    ///
    /// # Errors
    /// The stamp cannot be removed.
    pub fn clear(&self) -> Result<()> {
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.file.display()))
            }
            _ => Ok(()),
        }
    }

    /// Records a successful run.
    ///
    /// # Errors
    /// The stamp cannot be written.
    pub fn set(&self) -> Result<()> {
        if let Some(directory) = self.file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&self.file, &self.key).with_context(|| format!("write {}", self.file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &Path) -> String {
        let mut inputs = Inputs::new("test", 1);
        inputs.path(path).unwrap();
        inputs.finish()
    }

    #[test]
    fn a_stamp_is_current_until_an_input_or_output_changes() {
        let directory = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        let tree = directory.join("tree");
        fs::create_dir_all(tree.join("sub")).unwrap();
        fs::write(tree.join("sub/file"), "1").unwrap();
        let output = directory.join("output");
        fs::write(&output, "").unwrap();
        let stamp = || {
            let mut inputs = Inputs::new("test", 1);
            inputs.path(&tree).unwrap();
            Stamp::new(&directory.join("stamps"), "test", inputs)
        };
        assert!(!stamp().is_current(&[&output]));
        stamp().set().unwrap();
        assert!(stamp().is_current(&[&output]));

        fs::write(tree.join("sub/file"), "2").unwrap();
        assert!(!stamp().is_current(&[&output]));
        stamp().set().unwrap();
        fs::remove_file(&output).unwrap();
        assert!(!stamp().is_current(&[&output]));
        stamp().clear().unwrap();
        stamp().clear().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn names_and_permissions_count() {
        let directory = std::env::temp_dir().join(format!("xtask-inputs-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("a");
        fs::write(&file, "x").unwrap();
        let before = key(&directory);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let executable = key(&directory);
        assert_ne!(before, executable);
        fs::rename(&file, directory.join("b")).unwrap();
        assert_ne!(executable, key(&directory));
        fs::remove_dir_all(&directory).unwrap();
    }
}

//! Which hostds are measured: the options for it, which several benchmarks have.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::build;

/// The options that name the measured hostds.
#[derive(Debug, clap::Args)]
pub struct Hostds {
    /// hostd, with its other programs in the same directory, instead of one that is built first.
    #[arg(long, value_name = "FILE")]
    hostd: Option<PathBuf>,
    /// Another hostd to be measured too, with its other programs in the same directory; for
    /// comparing versions.
    #[arg(long, value_name = "FILE")]
    beside: Vec<PathBuf>,
}

impl Hostds {
    /// All of them by name, the one of this source tree first: `hostd`, `hostd-2`, …. It is built,
    /// together with the programs `others`, unless another one is given.
    ///
    /// # Errors
    /// The caller is not root, or cargo fails.
    pub fn programs(&self, others: &[&str]) -> Result<Vec<(String, PathBuf)>> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "engines can only be started by root"
        );
        let first = match &self.hostd {
            Some(hostd) => hostd.clone(),
            None => {
                for program in others {
                    build::release(program, program)?;
                }
                build::release("hostd", "hostd")?
            }
        };
        let beside = (2..)
            .zip(&self.beside)
            .map(|(number, program)| (format!("hostd-{number}"), program.clone()));
        Ok(std::iter::once(("hostd".to_owned(), first))
            .chain(beside)
            .collect())
    }
}

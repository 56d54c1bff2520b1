//! Merges the layers of the host configuration, once at each boot.
//!
//! PID 1 runs this before the network starts, and again when provisioning has written the platform's
//! layer. In order: a change that nobody confirmed before the reboot is taken back; the start is
//! counted, and after too many that were not healthy the last good configuration is used; the result
//! is published for all programs; the files that it declares are written (`files`).

mod files;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use keelson_config::{LoadedConfig, Sources, change, count_start, load, publish};

const USAGE: &str = "\
usage: keelson-configure [--root DIR] [--quiet]

Merges the layers of the host configuration below DIR (/) into run/keelson/config/effective.toml, and
writes the files that it declares. Problems are in the result, and printed unless --quiet is given. Fails
only when the result can't be written.";

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1).map(PathBuf::from)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keelson-configure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = PathBuf>) -> Result<()> {
    let (mut root, mut quiet) = (PathBuf::from("/"), false);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--root") => root = arguments.next().context("--root needs a directory")?,
            Some("--quiet") => quiet = true,
            Some("--help") => {
                println!("{USAGE}");
                return Ok(());
            }
            Some("--version") => {
                println!("keelson-configure {}", env!("CARGO_PKG_VERSION"));
                return Ok(());
            }
            _ => bail!("unknown argument {}\n{USAGE}", argument.display()),
        }
    }
    let loaded = configure(&root)?;
    let problems = loaded.problems.iter().map(ToString::to_string);
    for line in problems.chain(loaded.notices).filter(|_| !quiet) {
        eprintln!("{line}");
    }
    Ok(())
}

fn configure(root: &Path) -> Result<LoadedConfig> {
    let sources = Sources::under(root);
    let mut notices = Vec::new();
    match change::expire(&sources) {
        Ok(None) => {}
        Ok(Some(back)) => notices.push(format!(
            "a change of {} was not confirmed and is taken back; its text is kept in {}",
            back.file.display(),
            sources.state.join("config/history").display()
        )),
        Err(error) => notices.push(format!("a change may wait for its confirmation: {error}")),
    }
    let boot = change::boot_id().unwrap_or_default();
    if let Err(error) = count_start(&sources, &load(&sources), &boot) {
        notices.push(format!("this start is not counted: {error}"));
    }
    // Read again, because the last good configuration is used after too many bad starts.
    let mut loaded = load(&sources);
    loaded.notices.extend(notices);
    let publish = |loaded: &LoadedConfig| {
        publish(&sources, loaded).context("the merged configuration can't be published")
    };
    // First without the files, because writing them may fail or take long.
    publish(&loaded)?;
    let failed = files::write_all(root, &loaded.config.file);
    if !failed.is_empty() {
        loaded.notices.extend(failed);
        publish(&loaded)?;
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_boot_publishes_reports_and_writes_files() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("etc/keelson")).unwrap();
        let text = "hostname = 'node-1'\n[[file]]\npath = '/etc/motd'\ncontents = 'hello'\n\
                    [[file]]\npath = '/etc/link/x'\ncontents = ''\n";
        fs::write(at("etc/keelson/host.toml"), text).unwrap();
        std::os::unix::fs::symlink("/tmp", at("etc/link")).unwrap();
        run([PathBuf::from("--root"), root.path().to_owned()].into_iter()).unwrap();
        let published = keelson_config::current(&Sources::under(root.path()));
        assert_eq!(published.config.hostname.as_deref(), Some("node-1"));
        assert_eq!(published.notices.len(), 1, "{:?}", published.notices);
        assert!(published.notices[0].contains("/etc/link/x"));
        assert_eq!(fs::read_to_string(at("etc/motd")).unwrap(), "hello");
        assert!(run([PathBuf::from("--rot")].into_iter()).is_err());
    }
}

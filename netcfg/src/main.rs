//! The netcfg daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use keelson_tracing::ToSupervisor;
use netcfg::Options;
use tracing::Level;

const USAGE: &str = "usage: netcfg [--config-root DIR] [--run DIR] [--state DIR] [--debug]";

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netcfg: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> anyhow::Result<()> {
    let (options, level) = arguments(std::env::args_os().skip(1))?;
    // The supervisor adds the time, and its log must not contain a terminal's colours.
    let lines = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_max_level(level);
    if keelson_tracing::has_supervisor() {
        lines.with_level(false).with_writer(ToSupervisor).init();
    } else {
        lines.with_writer(std::io::stderr).init();
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(netcfg::run(options))?;
    Ok(())
}

fn arguments(mut arguments: impl Iterator<Item = OsString>) -> anyhow::Result<(Options, Level)> {
    let mut options = Options {
        config_root: PathBuf::from("/"),
        run: PathBuf::from("/run/keelson"),
        state: PathBuf::from("/var/lib/keelson/host"),
    };
    let mut level = Level::INFO;
    while let Some(argument) = arguments.next() {
        let target = match argument.to_str() {
            Some("--config-root") => &mut options.config_root,
            Some("--run") => &mut options.run,
            Some("--state") => &mut options.state,
            Some("--debug") => {
                level = Level::DEBUG;
                continue;
            }
            _ => bail!("unknown argument {}; {USAGE}", argument.to_string_lossy()),
        };
        let value = arguments.next();
        *target = value
            .with_context(|| format!("{} needs a directory; {USAGE}", argument.to_string_lossy()))?
            .into();
    }
    Ok((options, level))
}

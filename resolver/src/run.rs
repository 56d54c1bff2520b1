//! Starts the program: command line, sockets, privileges, event loop.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use tokio::task::LocalSet;

use crate::control::Control;
use crate::privileges;
use crate::report::report;
use crate::server::Server;

/// The program's usage.
pub const USAGE: &str = "usage: keelson-resolver --socket PATH, by hostd only: standard input is \
     hostd's connection, standard output a socket bound to PATH";

/// When to release the memory of code that only the start needed.
const SETTLED: Duration = Duration::from_secs(2);
/// Length of the queue of connections: there is only one hostd.
const BACKLOG: i32 = 8;

/// The parsed command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The file of the socket that is standard output.
    pub socket: PathBuf,
}

impl Options {
    /// Parses the arguments, without the program's name.
    ///
    /// # Errors
    /// They differ from [`USAGE`].
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.into_iter();
        match (
            arguments.next().as_deref(),
            arguments.next(),
            arguments.next(),
        ) {
            (Some("--socket"), Some(path), None) => Ok(Self {
                socket: path.into(),
            }),
            _ => bail!(USAGE),
        }
    }
}

/// Serves until no container is left to serve.
///
/// # Errors
/// The process can't be set up, or its sockets have the wrong type.
pub fn run(options: &Options) -> Result<()> {
    // A session of its own lets it survive the end of hostd's. hostd may have made it a session
    // leader already.
    let _ = rustix::process::setsid();
    // Ten sockets for each container.
    let files = keelson_sys::open_files::raise().unwrap_or_default();
    let control = take_over(options).context(USAGE)?;
    // Creates what it needs now, such as a pair of sockets, because the filter forbids that later.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("make an event loop")?;
    privileges::give_up().context("give up privileges")?;
    report(format_args!(
        "version {}, process {}, {files} open files at most",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    ));
    let local = LocalSet::new();
    local.spawn_local(async {
        tokio::time::sleep(SETTLED).await;
        keelson_sys::idle::release_code();
    });
    let server = Server::new();
    local
        .block_on(&runtime, control.run(&server))
        .context("the sockets of hostd's connections")
}

/// Moves the sockets away from the standard streams, so that nothing is written to them by mistake.
fn take_over(options: &Options) -> io::Result<Control> {
    let first = rustix::stdio::stdin();
    let listener = rustix::stdio::stdout();
    let (first, listener): (OwnedFd, OwnedFd) =
        (first.try_clone_to_owned()?, listener.try_clone_to_owned()?);
    // This process must call `listen` itself, so that peers see its process id (unix(7),
    // SO_PEERCRED).
    rustix::net::listen(&listener, BACKLOG)?;
    let file = rustix::fs::open(
        &options.socket,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(Control {
        listener,
        first,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_what_hostd_says() {
        let parse = |words: &[&str]| Options::parse(words.iter().map(|&word| word.to_owned()));
        let socket = "/run/x.sock".into();
        assert_eq!(
            parse(&["--socket", "/run/x.sock"]).unwrap(),
            Options { socket }
        );
        for wrong in [
            &[][..],
            &["--socket"],
            &["--other", "x"],
            &["--socket", "a", "b"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}

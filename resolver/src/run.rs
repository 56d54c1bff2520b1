//! Puts the parts together.

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

/// How the program is called.
pub const USAGE: &str = "usage: keelson-resolver --socket PATH, by hostd only: standard input is \
     hostd's connection, standard output a socket bound to PATH";

/// When the start is over, and the memory of the code that only it needed is released.
const SETTLED: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted: there is one hostd.
const BACKLOG: i32 = 8;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The file of the socket that is standard output.
    pub socket: PathBuf,
}

impl Options {
    /// Reads arguments, without the program's name.
    ///
    /// # Errors
    /// They are others than [`USAGE`] says.
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

/// Serves until nothing is left to be served.
///
/// # Errors
/// The process can't be made what it should be, or its sockets are not what they should be.
pub fn run(options: &Options) -> Result<()> {
    // It is to live on when hostd's session ends. It leads one already when hostd has made it so.
    let _ = rustix::process::setsid();
    // Ten sockets for each container.
    let files = keelson_sys::open_files::raise().unwrap_or_default();
    let control = take_over(options).context(USAGE)?;
    // It makes what it needs now: a pair of sockets, for one, which is not allowed later.
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

/// Takes the sockets out of the standard streams, so that nothing can be written there by mistake.
fn take_over(options: &Options) -> io::Result<Control> {
    let first = rustix::stdio::stdin();
    let listener = rustix::stdio::stdout();
    let (first, listener): (OwnedFd, OwnedFd) =
        (first.try_clone_to_owned()?, listener.try_clone_to_owned()?);
    // Listening is this process's act, by which others learn its identifier (unix(7), SO_PEERCRED).
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

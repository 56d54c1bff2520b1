//! The Keelson engine daemon.
//!
//! Opens the stores, the engine and the system services, serves the Docker Engine API and the
//! host API on unix sockets and on TCP with mutual TLS, and stops everything in order on SIGTERM.
//! SIGKILL is harmless: containers live on under their shims, and the next start adopts them.

mod answers;
mod connection;
mod daemon;
mod handshakes;
mod listen;
mod notify;
mod options;
mod pace;
mod request_line;
mod tls;

use std::process::ExitCode;

use clap::Parser;
use keelson_http::audit;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::options::Options;

/// Threads that work. What is known to block runs elsewhere.
const WORKERS: usize = 2;
/// Threads that serve connections. Nothing there touches a file: when the disk stalls and all who work
/// wait for it, clients are still answered that hostd is there.
const FRONT: usize = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(std::io::stderr()));
    // What is logged is a choice; what callers changed is not.
    let filter = options.log.clone().with_target(audit::TARGET, Level::INFO);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    // A panic ends one request or one task, never the daemon; it must not go unnoticed, though.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "panic");
    }));
    if let Err(error) = keelson_sys::open_files::raise() {
        tracing::warn!(%error, "the limit of open files can't be raised");
    }
    let threads = |name: &str, count| {
        tokio::runtime::Builder::new_multi_thread()
            .thread_name(name)
            .worker_threads(count)
            .enable_all()
            .build()
    };
    let (front, work) = match (threads("front", FRONT), threads("work", WORKERS)) {
        (Ok(front), Ok(work)) => (front, work),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "threads can't be started");
            return ExitCode::FAILURE;
        }
    };
    let result = work.block_on(daemon::run(options, front.handle()));
    // Open connections may be in the middle of anything; they end with the process.
    front.shutdown_background();
    work.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

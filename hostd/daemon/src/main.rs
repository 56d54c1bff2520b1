//! The Keelson engine daemon.
//!
//! It opens the stores, the engine and the system services. It serves the Docker Engine API and the
//! host API on unix sockets, and on TCP with mutual TLS. On SIGTERM it stops everything in order.
//! SIGKILL does no harm: containers live on under their shims, and the next start adopts them.
//!
//! From the start of the daemon to the answer of a request:
//!
//! - `options`: the command line.
//! - `daemon`: puts the parts together, and takes them apart again.
//! - `notify`: reports to the supervisor.
//! - `health`: whether the machine is healthy after its start.
//! - `listen`: the sockets, and who may connect.
//! - `tls`: the server's certificate on TCP.
//! - `handshakes`: bounds the clients that have not proved yet who they are.
//! - `connection`: serves one connection.
//! - `pace`: closes a connection whose client reads nothing.
//! - `request_line`: accepts request lines as Docker's clients write them.
//! - `answers`: bounds the memory of answers that clients have not read yet.

mod answers;
mod connection;
mod daemon;
mod handshakes;
mod health;
mod listen;
mod notify;
mod options;
mod pace;
mod request_line;
mod tls;

use std::process::ExitCode;

use clap::Parser;
use hostd_logs::own::{OwnLines, own_lines};
use keelson_http::audit;
use keelson_tracing::ToSupervisor;
use tracing::Level;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::options::Options;

/// Threads that do the work of requests. Blocking work runs elsewhere.
const WORKERS: usize = 2;
/// Threads that serve connections. Nothing on them touches a file. So `/_ping` is answered even when
/// the disk stalls and every working thread waits for it.
const FRONT: usize = 2;

/// Sets where log lines go. Returns those that the daemon itself has to store: under Keelson's PID 1
/// they are in the kernel's log, where they are read with all others.
fn log_to(options: &Options) -> Option<OwnLines> {
    // The operator chooses what is logged, but the audit log is always on.
    let filter = options.log.clone().with_target(audit::TARGET, Level::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    if keelson_tracing::has_supervisor() {
        // PID 1 adds the time and the word for the priority.
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .without_time()
            .with_level(false)
            .with_writer(ToSupervisor);
        registry.with(lines).init();
        return None;
    }
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(rustix::termios::isatty(std::io::stderr()));
    let (writer, own) = own_lines();
    let stored = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_level(false)
        .with_writer(writer);
    registry.with(lines).with(stored).init();
    Some(own)
}

fn main() -> ExitCode {
    let options = Options::parse();
    let own = log_to(&options);
    // A panic ends one request or one task, never the daemon. The log must show it.
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
    let result = work.block_on(daemon::run(options, own, front.handle()));
    // Open connections may be in the middle of something. They end with the process.
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

//! The shim: parent of one container, from its creation to the collection of its exit status.
//!
//! `keelson-runtime shim --dir DIR --ready-fd N` (protocol: `keelson_model::shim`). The process
//! that was executed forks once and exits at once with code 0, so hostd reaps it without delay;
//! the shim proper is the copy: in a session of its own, adopted by init, with every descriptor
//! closed but the one it reports on. It blocks the signals that end other processes, because it
//! must be the last to go; SIGKILL ends it and, by PR_SET_PDEATHSIG, the container.
//!
//! Everything happens in one thread around one epoll descriptor. Output is written to the log as
//! soon as it is read; attached clients are served *from the log*, each at its own position, so
//! that the slowest of them neither holds the container up nor loses anything that the log has.

mod client;
mod server;
mod stdio;

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use keelson_model::shim::{Hello, SPEC_FILE, ShimSpec};
use keelson_sys::{clone, sandbox};
use nix::sys::signal::SigSet;
use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};

/// Arguments of `keelson-runtime shim`.
struct Arguments {
    folder: PathBuf,
    ready: i32,
}

/// Runs the shim; the arguments are those behind `shim`.
pub(crate) fn main(arguments: &[String]) -> Result<(), Failure> {
    let arguments = parse(arguments)?;
    // SAFETY: nothing was opened yet but what was inherited, which nothing here owns.
    #[allow(unsafe_code)]
    let ready = unsafe { clone::adopt(arguments.ready) }.step(|| "--ready-fd")?;
    let mut ready = std::fs::File::from(ready);
    if arguments.ready < 3 {
        let own = ready.try_clone().step(|| "--ready-fd")?;
        // Not closed here: its number must stay taken until /dev/null takes it over.
        let _ = std::mem::replace(&mut ready, own).into_raw_fd();
    }
    match detach(&ready) {
        Ok(true) => {}
        // The process that was executed.
        Ok(false) => return Ok(()),
        Err(failure) => return Err(report(&mut ready, failure)),
    }
    match server::Server::create(&arguments.folder) {
        Ok(mut server) => {
            if !hello(&mut ready, &server.hello()) {
                server.abandon();
            }
            drop(ready);
            server.run();
            // Nothing is left to be done in order; the kernel closes faster.
            clone::exit_now(0)
        }
        Err(failure) => Err(report(&mut ready, failure)),
    }
}

/// Tells hostd of a failure.
fn report(ready: &mut std::fs::File, failure: Failure) -> Failure {
    let reason = failure.reason;
    let message = failure.message.clone();
    hello(ready, &Hello::Failed { message, reason });
    failure
}

fn parse(arguments: &[String]) -> Result<Arguments, Failure> {
    let usage = || Failure::invalid("usage: keelson-runtime shim --dir DIR --ready-fd N");
    let (mut folder, mut ready) = (None, None);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let value = rest.next().ok_or_else(usage)?;
        match name.as_str() {
            "--dir" => folder = Some(PathBuf::from(value)),
            "--ready-fd" => ready = value.parse().ok().filter(|fd| *fd == 1 || *fd > 2),
            _ => return Err(usage()),
        }
    }
    Ok(Arguments {
        folder: folder.ok_or_else(usage)?,
        ready: ready.ok_or_else(usage)?,
    })
}

/// Cuts the ties to whoever executed the program. False: this is the process that was executed,
/// and it has nothing more to do.
fn detach(ready: &std::fs::File) -> Result<bool, Failure> {
    crate::sandbox::executable::ensure_readonly()?;
    // SAFETY: this program never starts a thread.
    #[allow(unsafe_code)]
    let forked = unsafe { clone::fork() };
    if let ForkResult::Parent { .. } = forked.step(|| "fork the shim")? {
        return Ok(false);
    }
    let number = ready.as_raw_fd() as u32;
    // SAFETY: nothing was opened yet but what was inherited, which nothing here owns.
    #[allow(unsafe_code)]
    unsafe {
        if number > 3 {
            clone::close_range(3, number - 1).step(|| "close inherited descriptors")?;
        }
        clone::close_range(number + 1, u32::MAX).step(|| "close inherited descriptors")?;
    }
    clone::close_on_exec_from(3).step(|| "mark descriptors close-on-exec")?;
    leave_session()?;
    Ok(true)
}

/// Becomes independent of the caller's session, standard streams, folder and signals.
fn leave_session() -> Result<(), Failure> {
    nix::unistd::setsid().step(|| "start a session")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .step(|| "open /dev/null")?;
    for number in 0..3 {
        sandbox::set_standard(&null, number).step(|| "connect to /dev/null")?;
    }
    rustix::process::chdir("/").step(|| "change to /")?;
    // Blocked, not ignored: that is one call, and those who are executed get an empty mask anyway.
    SigSet::all().thread_block().step(|| "block signals")?;
    // The file may have been executed by descriptor, which leaves a number as name.
    sandbox::set_name(c"keelson-shim").step(|| "set the process's name")?;
    sandbox::set_subreaper().step(|| "become subreaper")?;
    sandbox::set_undumpable().step(|| "hide the process from others")
}

/// Reports on the ready descriptor. False: nobody listens any more, for example because hostd was
/// killed meanwhile.
fn hello(ready: &mut std::fs::File, hello: &Hello) -> bool {
    let Ok(mut line) = serde_json::to_vec(hello) else {
        return false;
    };
    line.push(b'\n');
    rustix::io::write(ready.as_fd(), &line).is_ok()
}

/// Reads `shim.json`.
fn load_spec(folder: &Path) -> Result<ShimSpec, Failure> {
    let path = folder.join(SPEC_FILE);
    let bytes = crate::files::read(&path).step(|| format!("read {}", path.display()))?;
    let spec: ShimSpec = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("{}: {error}", path.display())))?;
    if spec.version != 1 {
        return Err(Failure::invalid(format!(
            "{}: version {} is not known",
            path.display(),
            spec.version
        )));
    }
    Ok(spec)
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64)
}

//! The shim: the parent of one container, from its creation until its exit status is read.
//!
//! `keelson-runtime shim [--stay] --dir DIR --ready-fd N` (protocol: `keelson_shim_protocol`). The
//! executed process forks once and exits at once with code 0, so its parent does not have to wait
//! for it. The copy is the shim: it has a session of its own, init adopts it, and every descriptor
//! is closed but the one that it reports on. With `--stay` it does not fork, which takes less time;
//! then its parent must reap it at the end. It blocks the signals that end other processes, because
//! it must be the last to go. SIGKILL ends it and, through PR_SET_PDEATHSIG, the container.
//!
//! Everything happens in one thread around one epoll descriptor. Output is written to the log as
//! soon as it is read; attached clients are served *from the log*, each at its own position, so
//! that a slow client neither blocks the container nor loses anything that the log has.

mod client;
mod foreign;
mod recorder;
mod server;
mod stdio;

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use keelson_shim_protocol::{Hello, SPEC_FILE, ShimSpec};
use keelson_sys::{clone, sandbox};
use nix::sys::signal::SigSet;
use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Step};

/// Arguments of `keelson-runtime shim`.
struct Arguments {
    directory: PathBuf,
    ready: i32,
    /// Whether the executed process is the shim itself.
    stay: bool,
}

/// Runs the shim. `arguments` are those after `shim`.
pub(crate) fn main(arguments: &[String]) -> Result<(), Failure> {
    let arguments = parse(arguments)?;
    // SAFETY: only inherited descriptors are open yet, and nothing here owns those.
    #[allow(unsafe_code)]
    let ready = unsafe { clone::adopt(arguments.ready) }.step(|| "--ready-fd")?;
    let mut ready = std::fs::File::from(ready);
    if arguments.ready < 3 {
        let own = ready.try_clone().step(|| "--ready-fd")?;
        // Not closed here: its number must stay in use until /dev/null takes it over.
        let _ = std::mem::replace(&mut ready, own).into_raw_fd();
    }
    match detach(&ready, arguments.stay) {
        Ok(true) => {}
        // This is the executed process.
        Ok(false) => return Ok(()),
        Err(failure) => return Err(report(&mut ready, failure)),
    }
    match server::Server::create(&arguments.directory) {
        Ok(mut server) => {
            if !hello(&mut ready, &server.hello()) {
                server.abandon();
            }
            drop(ready);
            server.run();
            // No order matters any more, and the kernel closes the descriptors faster.
            clone::exit_now(0)
        }
        Err(failure) => Err(report(&mut ready, failure)),
    }
}

/// Reports a failure to hostd.
fn report(ready: &mut std::fs::File, failure: Failure) -> Failure {
    let reason = failure.told_reason();
    let message = failure.message.clone();
    hello(ready, &Hello::Failed { message, reason });
    failure
}

fn parse(arguments: &[String]) -> Result<Arguments, Failure> {
    let usage = || Failure::invalid("usage: keelson-runtime shim [--stay] --dir DIR --ready-fd N");
    let (mut directory, mut ready, mut stay) = (None, None, false);
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        if name == "--stay" {
            stay = true;
            continue;
        }
        let value = rest.next().ok_or_else(usage)?;
        match name.as_str() {
            "--dir" => directory = Some(PathBuf::from(value)),
            "--ready-fd" => ready = value.parse().ok().filter(|fd| *fd == 1 || *fd > 2),
            _ => return Err(usage()),
        }
    }
    Ok(Arguments {
        directory: directory.ok_or_else(usage)?,
        ready: ready.ok_or_else(usage)?,
        stay,
    })
}

/// Detaches the process from its caller. False: this is the executed process, and it has nothing
/// more to do.
fn detach(ready: &std::fs::File, stay: bool) -> Result<bool, Failure> {
    crate::sandbox::executable::ensure_readonly()?;
    if !stay {
        // SAFETY: this program never starts a thread.
        #[allow(unsafe_code)]
        let forked = unsafe { clone::fork() };
        if let ForkResult::Parent { .. } = forked.step(|| "fork the shim")? {
            return Ok(false);
        }
    }
    leave_descriptors(ready)?;
    // The leader of a process group could not do this. This process is none: it is a copy, or its
    // parent does not make groups.
    nix::unistd::setsid().step(|| "start a session")?;
    rustix::process::chdir("/").step(|| "change to /")?;
    // Blocked, not ignored: blocking is one call, and executed programs get an empty mask anyway.
    SigSet::all().thread_block().step(|| "block signals")?;
    // The file may have been executed through a descriptor; then the name is a number.
    sandbox::set_name(c"keelson-shim").step(|| "set the process's name")?;
    sandbox::set_subreaper().step(|| "become subreaper")?;
    sandbox::set_undumpable().step(|| "hide the process from others")?;
    Ok(true)
}

/// Closes all descriptors but the one to report on, and opens the null device as standard streams.
fn leave_descriptors(ready: &std::fs::File) -> Result<(), Failure> {
    let number = ready.as_raw_fd() as u32;
    // SAFETY: nothing was opened yet but what was inherited, which nothing here owns.
    #[allow(unsafe_code)]
    unsafe {
        clone::close_range(0, number - 1)
            .and_then(|()| clone::close_range(number + 1, u32::MAX))
            .step(|| "close inherited descriptors")?;
    }
    rustix::io::fcntl_setfd(ready, rustix::io::FdFlags::CLOEXEC)
        .step(|| "mark the ready descriptor close-on-exec")?;
    // It gets the lowest number, 0.
    let null =
        rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).step(|| "open /dev/null")?;
    for number in 1..3 {
        sandbox::set_standard(&null, number).step(|| "connect to /dev/null")?;
    }
    // Nothing owns the standard descriptors.
    let _ = null.into_raw_fd();
    Ok(())
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
fn load_spec(directory: &Path) -> Result<ShimSpec, Failure> {
    let path = directory.join(SPEC_FILE);
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

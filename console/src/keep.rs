//! Prepares the console and keeps it going.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;

use keelson_config::{Sources, current};
use rustix::fs::inotify;

use crate::accounts::{self, API_SOCKET, Places, directory};
use crate::error::ConsoleError;
use crate::{host_keys, terminals};

/// Where people and programs look for the socket. Only its directory can be mounted here: hostd makes
/// the socket anew when it starts.
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/run/keelson/docker.sock"];

pub(crate) fn run() -> Result<ExitCode, ConsoleError> {
    directory(Path::new("/run/sshd"), 0o755)?;
    for link in SOCKETS {
        // It may be there from an earlier run in the same container.
        let _ = fs::remove_file(link);
        symlink(API_SOCKET, link).map_err(ConsoleError::io("link", link))?;
    }
    let places = Places::of_console();
    let watch = Watch::new(&Sources::machine());
    if let Err(error) = take_users(&places) {
        // Better a console with the users of the last time than none.
        eprintln!("console: users: {error}");
    }
    for print in host_keys::ensure()? {
        println!("console: host key {print}");
    }
    for name in terminals::active() {
        println!("console: logins on {name}");
        terminals::serve(name);
    }
    match watch {
        Ok(watch) => {
            thread::spawn(move || watch.follow(&places));
        }
        Err(error) => eprintln!("console: changes of users need a restart: {error}"),
    }
    let program = "sshd";
    let ended = Command::new("/usr/sbin/sshd")
        .args(["-D", "-e"])
        .status()
        .map_err(|source| ConsoleError::Execute { program, source })?;
    Err(ConsoleError::SshdEnded(ended.to_string()))
}

fn take_users(places: &Places) -> Result<(), ConsoleError> {
    let loaded = current(&Sources::machine());
    let users = &loaded.config.user;
    for note in accounts::apply(places, users)? {
        eprintln!("console: {note}");
    }
    println!("console: {} users", users.len());
    Ok(())
}

/// Waits for changes of the configuration.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn new(sources: &Sources) -> Result<Self, ConsoleError> {
        let directory = sources.effective.parent().unwrap_or(Path::new("/"));
        let failed = |errno: rustix::io::Errno| ConsoleError::io("watch", directory)(errno.into());
        let handle = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(failed)?;
        let failed = |errno: rustix::io::Errno| ConsoleError::io("watch", directory)(errno.into());
        let flags = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&handle, directory, flags).map_err(failed)?;
        Ok(Self(handle))
    }

    fn follow(self, places: &Places) {
        let mut buffer = [0; 4096];
        // Which file it was does not matter: what is as it should be is not written.
        while rustix::io::read(&self.0, &mut buffer).is_ok() {
            if let Err(error) = take_users(places) {
                eprintln!("console: users: {error}");
            }
        }
    }
}

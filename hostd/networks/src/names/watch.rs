//! Notices changes of the host's resolv.conf.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::client::watch;
use super::resolv_conf::{MAX_FILE, ResolvConf};

/// How often the file is read if the kernel does not report changes.
const POLL: Duration = Duration::from_secs(5);
/// How long to wait until a change is complete.
const SETTLE: Duration = Duration::from_millis(50);

/// Reads and parses the file. A missing file counts as empty.
pub(super) fn read(path: &Path) -> io::Result<ResolvConf> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX);
            file.take(most).read_to_end(&mut bytes)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(ResolvConf::parse(&String::from_utf8_lossy(&bytes)))
}

/// Waits for changes of a file that may be replaced, and that may be a symbolic link.
#[derive(Debug)]
pub(super) struct ResolvConfWatch {
    path: PathBuf,
    descriptor: Option<AsyncFd<OwnedFd>>,
}

impl ResolvConfWatch {
    pub(super) fn new(path: PathBuf) -> Self {
        let descriptor = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(io::Error::from)
            .and_then(|descriptor| watch(descriptor, Interest::READABLE))
            .inspect_err(|error| tracing::warn!(%error, "resolv.conf is read every few seconds"))
            .ok();
        Self { path, descriptor }
    }

    /// Watches the directories of the file and of the files to which it links. Call this again
    /// after each change, because links may have changed.
    pub(super) fn arm(&self) {
        let Some(descriptor) = &self.descriptor else {
            return;
        };
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        let real = std::fs::canonicalize(&self.path).ok();
        for path in [Some(self.path.as_path()), real.as_deref()]
            .into_iter()
            .flatten()
        {
            if let Some(directory) = path.parent() {
                // The same directory again is the same watch (inotify_add_watch(2)).
                let _ = inotify::add_watch(descriptor.get_ref(), directory, flags);
            }
        }
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self) {
        let Some(descriptor) = &self.descriptor else {
            return sleep(POLL).await;
        };
        loop {
            let Ok(mut ready) = descriptor.readable().await else {
                return sleep(POLL).await;
            };
            if self.drain(descriptor.get_ref()) {
                sleep(SETTLE).await;
                self.drain(descriptor.get_ref());
                return;
            }
            ready.clear_ready();
        }
    }

    /// Reads the pending reports, and returns whether one is about a file of these names.
    fn drain(&self, descriptor: impl AsFd) -> bool {
        let mut space = [MaybeUninit::uninit(); 1024];
        let mut reader = Reader::new(descriptor, &mut space);
        let mut relevant = false;
        loop {
            match reader.next() {
                Ok(event) => {
                    let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    let name = event.file_name().map(|name| name.to_string_lossy());
                    relevant |= lost || name.is_some_and(|name| name.contains("resolv"));
                }
                Err(Errno::INTR) => {}
                Err(_) => return relevant,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_file_replaced_behind_a_link_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (etc, run) = (directory.path().join("etc"), directory.path().join("run"));
        for path in [&etc, &run] {
            fs::create_dir(path).unwrap();
        }
        let real = run.join("resolv.conf");
        let link = etc.join("resolv.conf");
        fs::write(&real, "nameserver 192.0.2.1\n").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let watch = ResolvConfWatch::new(link.clone());
        watch.arm();
        assert_eq!(read(&link).unwrap().servers.len(), 1);
        assert_eq!(read(&etc.join("none")).unwrap(), ResolvConf::default());

        fs::write(run.join("other"), "").unwrap();
        let nothing = timeout(Duration::from_millis(200), watch.changed()).await;
        assert!(nothing.is_err());
        fs::write(
            run.join("resolv.conf.new"),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\n",
        )
        .unwrap();
        fs::rename(run.join("resolv.conf.new"), &real).unwrap();
        timeout(Duration::from_secs(5), watch.changed())
            .await
            .unwrap();
        assert_eq!(read(&link).unwrap().servers.len(), 2);
        // A change of the link itself is noticed, too.
        fs::remove_file(&link).unwrap();
        timeout(Duration::from_secs(5), watch.changed())
            .await
            .unwrap();
    }
}

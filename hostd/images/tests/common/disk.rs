//! A small separate file system, on a loop device.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::is_root;

/// How long other processes may use the file system.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the kernel may keep an unmounted file system.
const RELEASE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// A mounted ext4 file system in a file. Dropping it removes it.
pub(crate) struct SmallDisk {
    directory: tempfile::TempDir,
    mounted: bool,
}

impl SmallDisk {
    /// A disk of this many MiB. `None`, with a clear message, if there are no loop devices.
    pub(crate) fn new(mebibytes: u64) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let image = directory.path().join("image");
        File::create(&image)
            .and_then(|file| file.set_len(mebibytes << 20))
            .unwrap();
        let options = ["-q", "-m", "0", "-E", "lazy_itable_init=1", "-N", "4096"];
        run(Command::new("mkfs.ext4").args(options).arg(&image)).unwrap();
        std::fs::create_dir(directory.path().join("disk")).unwrap();
        let mut disk = Self {
            directory,
            mounted: false,
        };
        match disk.try_mount() {
            Ok(()) => Some(disk),
            Err(error) => {
                keelson_testing::skip("loop device", error);
                None
            }
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// A directory beside it, which no power cut touches.
    pub(crate) fn beside(&self) -> PathBuf {
        self.directory.path().join("beside")
    }

    fn try_mount(&mut self) -> Result<(), String> {
        let image = self.directory.path().join("image");
        run(Command::new("mount")
            .args(["-t", "ext4", "-o", "loop"])
            .arg(image)
            .arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Loses all data that is not on the disk, as in a power failure. Every user sees errors from
    /// now on.
    pub(crate) fn cut_power(&self) {
        let directory = File::open(self.path()).unwrap();
        keelson_sys::filesystem::cut_off(directory.as_fd()).unwrap();
    }

    /// Mounts the disk again, and replays the journal. Nobody may be using it.
    pub(crate) fn mount_again(&mut self) {
        self.unmount().unwrap();
        self.mount_what_is_there();
    }

    /// Whether the kernel still has the file system. Mounting it then would return the old file
    /// system, not the contents of the disk.
    fn is_in_use(&self) -> bool {
        let image = self.directory.path().join("image");
        let output = Command::new("losetup").arg("-j").arg(image).output();
        !output.unwrap().stdout.is_empty()
    }

    /// Becomes read-only while files are open, as the kernel does after an error of the disk.
    pub(crate) fn fail(&self) {
        run(Command::new("mount")
            .args(["-o", "remount,abort"])
            .arg(self.path()))
        .unwrap();
    }

    /// Checks its structures with e2fsck, and returns the output. Nobody may be using it.
    pub(crate) fn check(&mut self) {
        let directory = File::open(self.path()).unwrap();
        rustix::fs::syncfs(&directory).unwrap();
        drop(directory);
        self.unmount().unwrap();
        self.take_what_is_there();
        let image = self.directory.path().join("image");
        // If another process still uses it, it was not unmounted, and the journal has the last
        // changes.
        let replay = ["-E", "journal_only", "-y"];
        run(Command::new("e2fsck").args(replay).arg(&image)).unwrap();
        run(Command::new("e2fsck").arg("-fn").arg(&image)).unwrap();
        self.try_mount().unwrap();
    }

    /// A process that another thread is starting has copies of our descriptors for a moment.
    fn unmount(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut result = run(Command::new("umount").arg(self.path()));
        while result.is_err() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            result = run(Command::new("umount").arg(self.path()));
        }
        self.mounted = result.is_err();
        result
    }

    /// Mounts what is on the disk.
    fn mount_what_is_there(&mut self) {
        self.take_what_is_there();
        self.try_mount().unwrap();
    }

    /// Another process with its own mount namespace may keep the file system in use. Then a copy of
    /// the disk replaces it.
    fn take_what_is_there(&self) {
        let deadline = Instant::now() + RELEASE;
        while self.is_in_use() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        if self.is_in_use() {
            let copy = self.directory.path().join("copy");
            let image = self.directory.path().join("image");
            run(Command::new("cp")
                .args(["--sparse=always"])
                .arg(&image)
                .arg(&copy))
            .unwrap();
            std::fs::rename(copy, image).unwrap();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = self.unmount()
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

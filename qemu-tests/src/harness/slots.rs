//! Limits how many virtual machines run at once, over all test programs of this checkout.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

use super::error::HarnessError;

/// Permission to run one virtual machine. It ends on drop, and when the program dies.
#[derive(Debug)]
pub struct Slot {
    /// Locked files.
    _held: Vec<File>,
}

/// How many machines may run at once: `KEELSON_VM_SLOTS`, else half the processors.
fn count() -> usize {
    let asked = std::env::var("KEELSON_VM_SLOTS").ok();
    let asked = asked.and_then(|value| value.parse().ok());
    asked.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (processors / 2).max(1)
    })
}

impl Slot {
    /// Waits for permission to run one machine. The lock files are in `dir`.
    ///
    /// # Errors
    /// The lock files can't be made, or nothing becomes free within an hour.
    pub fn acquire(dir: &Path) -> Result<Self, HarnessError> {
        Self::acquire_one(dir, count(), Duration::from_secs(3600))
    }

    /// Waits for permission to run alone, for measurements.
    ///
    /// # Errors
    /// The lock files can't be made.
    pub fn exclusive(dir: &Path) -> Result<Self, HarnessError> {
        let held = (0..count()).map(|index| {
            let file = open(dir, index)?;
            file.lock().map_err(HarnessError::io("lock in", dir))?;
            Ok(file)
        });
        Ok(Self {
            _held: held.collect::<Result<_, HarnessError>>()?,
        })
    }

    fn acquire_one(dir: &Path, slots: usize, limit: Duration) -> Result<Self, HarnessError> {
        let deadline = Instant::now() + limit;
        loop {
            for index in 0..slots {
                let file = open(dir, index)?;
                match file.try_lock() {
                    Ok(()) => return Ok(Self { _held: vec![file] }),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(e)) => {
                        return Err(HarnessError::io("lock in", dir)(e));
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(HarnessError::Missing {
                    object: format!("free one of {slots} places for virtual machines"),
                    remedy: format!("see who holds the locks in {}", dir.display()),
                });
            }
            // flock(2) can wait for one file, not for whichever of several comes first.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn open(dir: &Path, index: usize) -> Result<File, HarnessError> {
    fs::create_dir_all(dir).map_err(HarnessError::io("create", dir))?;
    let path = dir.join(format!("slot-{index}.lock"));
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(HarnessError::io("open", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_out_as_many_as_there_are_and_takes_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let now = Duration::ZERO;
        let first = Slot::acquire_one(dir.path(), 2, now).unwrap();
        let second = Slot::acquire_one(dir.path(), 2, now).unwrap();
        assert!(Slot::acquire_one(dir.path(), 2, now).is_err());
        drop(first);
        let _third = Slot::acquire_one(dir.path(), 2, now).unwrap();
        drop(second);
    }
}

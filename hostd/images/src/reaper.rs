//! Deletes objects that were moved out of sight. Freeing the blocks of a large layer takes a
//! second, and of an unpacked one many seconds. Nobody waits for that, and the store's lock is not
//! held meanwhile. The next process deletes what this one leaves.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::disk::Staging;
use crate::reserve::Reserve;

/// The deleting thread. Dropping this waits until everything is deleted.
#[derive(Debug)]
pub(crate) struct Reaper {
    queue: Option<Sender<Staging>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread. Freed space fills the reserve first.
    pub(crate) fn start(reserve: Reserve) -> std::io::Result<Self> {
        let (queue, directories) = channel::<Staging>();
        let thread = std::thread::Builder::new()
            .name("image-reaper".to_owned())
            .spawn(move || {
                for directory in directories {
                    drop(directory);
                    reserve.restore();
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Queues the directory for deletion.
    pub(crate) fn take(&self, directory: Staging) {
        if let Some(queue) = &self.queue {
            // If the thread is gone, the channel returns the directory, and it is deleted here.
            let _ = queue.send(directory);
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

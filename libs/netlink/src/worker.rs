//! A thread that changes the network in its own namespace and in others, which it visits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::sched::{CloneFlags, setns};
use tokio::sync::{mpsc, oneshot};

use crate::{Batches, Namespace, NetlinkError};

/// Length of the queue of jobs. A caller with a further job waits for room.
const WAITING: usize = 64;

type Job = Box<dyn FnOnce(&mut Site) + Send>;

/// A thread with a connection to the kernel, which executes one job after the other. It is kept,
/// because a new thread and a new connection cost more than most jobs.
///
/// A job that has begun is finished even when nobody waits for it any more.
pub struct Worker {
    name: &'static str,
    home: Arc<Namespace>,
    jobs: Mutex<mpsc::Sender<Job>>,
}

/// Where a job runs.
pub struct Site {
    home: Arc<Namespace>,
    /// The connection in the worker's own namespace.
    pub batches: Batches,
}

impl Worker {
    /// Starts a thread in the network namespace of the calling thread. `name` is the thread's name,
    /// at most 15 bytes.
    ///
    /// # Errors
    /// No thread could be started, or no socket could be opened.
    pub fn start(name: &'static str) -> Result<Self, NetlinkError> {
        let home = Arc::new(Namespace::current()?);
        let jobs = Mutex::new(spawn(name, &home)?);
        Ok(Self { name, home, jobs })
    }

    /// Executes a job on the thread and waits for its result.
    ///
    /// # Errors
    /// The job panicked, or the thread of an earlier panic could not be replaced.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Site) -> T + Send + 'static,
    ) -> Result<T, NetlinkError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |site| {
            // The caller may have stopped waiting.
            drop(done.send(job(site)));
        });
        let sent = self.sender()?.send(job).await;
        sent.map_err(|_| NetlinkError::Worker)?;
        result.await.map_err(|_| NetlinkError::Worker)
    }

    /// Returns the queue of the thread, and starts a new thread if it has ended.
    fn sender(&self) -> Result<mpsc::Sender<Job>, NetlinkError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.is_closed() {
            *jobs = spawn(self.name, &self.home)?;
        }
        Ok(jobs.clone())
    }
}

fn spawn(name: &'static str, home: &Arc<Namespace>) -> Result<mpsc::Sender<Job>, NetlinkError> {
    let (jobs, mut receiver) = mpsc::channel::<Job>(WAITING);
    let (ready, started) = std::sync::mpsc::channel();
    let home = Arc::clone(home);
    let work = move || {
        let site = enter(home.as_fd()).and_then(|()| {
            let batches = Batches::open()?;
            Ok(Site { home, batches })
        });
        let mut site = match site {
            Ok(site) => {
                drop(ready.send(Ok(())));
                site
            }
            Err(error) => {
                drop(ready.send(Err(error)));
                return;
            }
        };
        while let Some(job) = receiver.blocking_recv() {
            job(&mut site);
        }
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|source| NetlinkError::Namespace {
        operation: "start a thread for",
        source,
    })?;
    started.recv().map_err(|_| NetlinkError::Worker)??;
    Ok(jobs)
}

impl Site {
    /// Runs a function in another network namespace and returns to the worker's own. The function
    /// gets the connection in the worker's own namespace. Sockets that it opens belong to the other
    /// namespace, and so do the files below `/proc/sys/net` that it opens.
    ///
    /// # Errors
    /// The thread may not enter the namespace.
    ///
    /// # Panics
    /// If the thread can't return: every later job would run in the wrong namespace.
    pub fn visit<T>(
        &mut self,
        namespace: BorrowedFd<'_>,
        function: impl FnOnce(&mut Batches) -> T,
    ) -> Result<T, NetlinkError> {
        enter(namespace)?;
        // If the function panics, the thread ends, so it need not return.
        let result = function(&mut self.batches);
        if let Err(error) = enter(self.home.as_fd()) {
            panic!("leave a network namespace: {error}");
        }
        Ok(result)
    }
}

fn enter(namespace: BorrowedFd<'_>) -> Result<(), NetlinkError> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| NetlinkError::Namespace {
        operation: "enter",
        source: io::Error::from(errno),
    })
}

//! Files of a container for clients: one object's properties, an archive of the object at a path,
//! and an archive extracted into a directory.
//!
//! Nothing here holds a lock that others wait for while a client reads or writes. Files that a
//! container's processes replace meanwhile never lead out of the container ([`root`]).

mod root;
mod unpack;
mod view;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hostd_images::Owners;
use hostd_images::pipe::{PipeReader, feed, pipe};
use jiff::Timestamp;
use keelson_blocking::{TaskDied, blocking};
use keelson_shim_protocol::{OciStatus, Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, oneshot};

use crate::container::Container;
use crate::copy_error::CopyError;
use crate::engine::Inner;
use crate::types::{ContainerAction, Receiver, Scope, WaitCondition};
use crate::{Engine, EngineError};
use root::Root;
pub use unpack::ExtractOptions;
use view::ViewPurpose;

/// How many pieces of an archive wait for a slow client.
const DEPTH: usize = 2;
/// How often an operation is repeated if the container starts or ends meanwhile.
const TRIES: usize = 5;
/// How long it may take until the end of a process is recorded.
const END_TIME: Duration = Duration::from_secs(2);

/// One object in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// The last component of its path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Type and permissions, in the kernel's numbers.
    pub mode: u32,
    /// When its content was changed.
    pub modified: Timestamp,
    /// Its target, if it is a link: an absolute path in the container without further links.
    pub link_target: String,
}

/// The object at a path of a container, as an archive.
#[derive(Debug)]
pub struct PathArchive {
    /// The object.
    pub stat: PathStat,
    /// The archive; ends after an error.
    pub pieces: Receiver<Result<Bytes, EngineError>>,
}

impl Engine {
    /// The object's properties.
    ///
    /// # Errors
    /// [`CopyError::NotFound`] and others.
    pub async fn path_stat(
        &self,
        scope: Scope,
        name: &str,
        path: &str,
    ) -> Result<PathStat, EngineError> {
        let container = self.reachable(scope, name)?;
        let view = self.inner.view(&container, ViewPurpose::Read).await?;
        let asked = Asked::new(name, path);
        Ok(blocking(move || asked.look(&view).map(|(stat, _)| stat)).await??)
    }

    /// The object at a path as a tar archive. `held` is kept until the work has ended.
    ///
    /// # Errors
    /// [`CopyError::NotFound`] and others.
    pub async fn path_archive(
        &self,
        scope: Scope,
        name: &str,
        path: &str,
        held: Box<dyn Send>,
    ) -> Result<PathArchive, EngineError> {
        let container = self.reachable(scope, name)?;
        let view = self.inner.view(&container, ViewPurpose::Read).await?;
        let asked = Asked::new(name, path);
        let look = move || {
            let (stat, object) = asked.look(&view)?;
            Ok::<_, CopyError>((stat, object, asked, view))
        };
        let (stat, object, asked, view) = blocking(look).await??;
        self.inner.emit(&container, ContainerAction::CopyOut);
        let (sender, pieces) = mpsc::channel(DEPTH);
        let work = move || {
            let _held = held;
            let mut send = |piece| sender.blocking_send(Ok(piece)).is_ok();
            let name = root::base(&asked.clean).as_bytes();
            let packed = hostd_images::pack_tree(object, name, view.owners(), &mut send);
            if let Err(error) = packed {
                // Without a reader there is nobody to report it to.
                let _ = sender.blocking_send(Err(error.into()));
            }
        };
        // A separate thread, because the client decides how long it runs.
        spawn("archive", work)?;
        Ok(PathArchive {
            stat,
            pieces: Receiver(pieces),
        })
    }

    /// Extracts an archive into a directory. `held` is kept until nothing works on it any more.
    ///
    /// # Errors
    /// [`CopyError`]; then a part of the archive may have been extracted.
    pub async fn path_extract<R: AsyncRead + Unpin + Send>(
        &self,
        scope: Scope,
        name: &str,
        path: &str,
        options: ExtractOptions,
        archive: R,
        held: Box<dyn Send>,
    ) -> Result<(), EngineError> {
        let container = self.reachable(scope, name)?;
        let (pass, stop) = container.gate.enter().await;
        let view = self.inner.view(&container, ViewPurpose::Write).await?;
        let asked = Asked::new(name, path);
        let (inner, of) = (Arc::clone(&self.inner), Arc::clone(&container));
        let check = move || {
            asked.check_destination(&view, &of)?;
            let owner = match options.own_by_user {
                true => inner.owner_of_files(&of)?,
                false => None,
            };
            Ok::<_, EngineError>((asked, view, owner))
        };
        let (asked, view, owner) = blocking(check).await??;
        let (sender, reader) = pipe();
        let (report, result) = oneshot::channel();
        let work = move || {
            let destination = asked.directory().as_bytes().to_vec();
            let keep_kinds = options.keep_kinds;
            let result = extract(view, &destination, keep_kinds, owner, reader);
            drop((pass, held));
            // The client may have left.
            let _ = report.send(result);
        };
        spawn("extract", work)?;
        let interrupted = tokio::select! {
            () = feed(archive, sender) => false,
            () = stop => true,
        };
        let result = result.await.unwrap_or(Err(TaskDied::Cancelled.into()));
        match result {
            Err(_) if interrupted => Err(CopyError::Interrupted(container.id.clone()).into()),
            Err(error) => Err(error),
            Ok(()) => {
                self.inner.emit(&container, ContainerAction::CopyIn);
                Ok(())
            }
        }
    }

    /// A container whose files can be read.
    fn reachable(&self, scope: Scope, name: &str) -> Result<Arc<Container>, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        crate::engine::require_readable(&container)?;
        Ok(container)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), CopyError> {
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    started.map(drop).map_err(|source| CopyError::Io {
        operation: "start a thread for",
        path: PathBuf::from(name),
        source,
    })
}

/// Drops the view before the result is returned. On a separate thread.
fn extract(
    view: Root,
    destination: &[u8],
    keep_kinds: bool,
    owner: Option<(u32, u32)>,
    reader: PipeReader,
) -> Result<(), EngineError> {
    let work = || {
        view.act_as_root()?;
        unpack::unpack(&view, destination, keep_kinds, owner, reader)
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(result) => Ok(result?),
        Err(panic) => Err(TaskDied::of_panic(&*panic).into()),
    }
}

/// A path that a client asks for.
struct Asked {
    container: String,
    path: String,
    clean: String,
}

impl Asked {
    fn new(container: &str, path: &str) -> Self {
        Self {
            container: container.to_owned(),
            path: path.to_owned(),
            clean: root::clean(path),
        }
    }

    /// Removes the trailing parts of a path that only mean "directory".
    fn directory(&self) -> &str {
        let clean = self.clean.as_str();
        clean
            .strip_suffix("/.")
            .unwrap_or(clean)
            .trim_end_matches('/')
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> CopyError + '_ {
        move |error| match error {
            Errno::NOENT | Errno::NOTDIR => CopyError::NotFound {
                path: self.path.clone(),
                container: self.container.clone(),
            },
            error => CopyError::io(operation, Path::new(&self.clean))(error),
        }
    }

    /// Opens the object, and reads its properties. Blocks.
    fn look(&self, view: &Root) -> Result<(PathStat, OwnedFd), CopyError> {
        let object = view
            .open(self.clean.as_bytes(), false)
            .map_err(self.failed("open"))?;
        let stat = rustix::fs::fstat(&object).map_err(self.failed("stat"))?;
        let link_target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => view
                .evaluate(Path::new(&self.clean))
                .map_err(self.failed("follow"))?
                .to_string_lossy()
                .into_owned(),
            _ => String::new(),
        };
        let nanoseconds = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let stat = PathStat {
            name: root::base(&self.clean).to_owned(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode,
            modified: Timestamp::new(stat.st_mtime, nanoseconds).unwrap_or_default(),
            link_target,
        };
        Ok((stat, object))
    }

    /// Whether an archive can be extracted there. Blocks.
    fn check_destination(&self, view: &Root, container: &Container) -> Result<(), CopyError> {
        let object = view
            .open(self.clean.as_bytes(), true)
            .map_err(self.failed("open"))?;
        let stat = rustix::fs::fstat(&object).map_err(self.failed("stat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(CopyError::NotDirectory);
        }
        let on_root = view.is_on_root(&object).map_err(self.failed("stat"))?;
        let status = rustix::fs::fstatvfs(&object).map_err(self.failed("stat"))?;
        let read_only = status.f_flag.contains(StatVfsMountFlags::RDONLY);
        match on_root {
            true if read_only || container.snapshot().spec.root.read_only() => {
                Err(CopyError::ReadOnlyRoot)
            }
            false if read_only => Err(CopyError::ReadOnlyMount),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// A container's files as it sees them now.
    async fn view(
        self: &Arc<Self>,
        container: &Arc<Container>,
        purpose: ViewPurpose,
    ) -> Result<Root, EngineError> {
        for _ in 0..TRIES {
            // Register before checking, so that the end of the process can't be missed.
            let ended = container.wait(WaitCondition::NextExit).ok();
            let snapshot = container.snapshot();
            if !snapshot.state.status.has_process() {
                let (inner, of) = (Arc::clone(self), Arc::clone(container));
                let make = move || {
                    let layers = inner.layers(&of, &snapshot)?;
                    // The view has copies of the mounts, so the use ends once the view is created.
                    inner.with_volumes(&snapshot, |volumes| {
                        Ok(view::stopped(&snapshot, &layers, volumes, purpose)?)
                    })
                };
                return blocking(make).await?;
            }
            if let Some(view) = running(container, snapshot.state.pid).await? {
                return Ok(view);
            }
            // It has just ended, and its end will soon be recorded. Do not wait for a start: it may
            // itself wait for the caller.
            if let Some(ended) = ended {
                let _ = tokio::time::timeout(END_TIME, ended).await;
            }
        }
        Err(CopyError::Restless(container.id.clone()).into())
    }

    /// The owner for files that should belong to the container's user; `None`: it has none.
    fn owner_of_files(&self, container: &Container) -> Result<Option<(u32, u32)>, EngineError> {
        let snapshot = container.snapshot();
        let name = &snapshot.spec.process.user;
        if name.is_empty() {
            return Ok(None);
        }
        let user = self.exec_user(name, container)?;
        Ok(Some((user.uid, user.gid)))
    }
}

/// The root of a running container; `None` when its process has ended.
async fn running(container: &Container, pid: i32) -> Result<Option<Root>, EngineError> {
    let Some(number) = Pid::from_raw(pid) else {
        return Ok(None);
    };
    let handle = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(CopyError::io("pidfd_open", Path::new("/proc"))(error).into()),
    };
    // Its parent shows whether this is the container's process. If so, the descriptor is the right
    // one.
    let Some(mut shim) = container.shim().connect_if_alive().await? else {
        return Ok(None);
    };
    match shim.request(&Request::State).await {
        Ok(Response::State {
            status, pid: of, ..
        }) if of == pid && matches!(status, OciStatus::Running | OciStatus::Paused) => {}
        _ => return Ok(None),
    }
    let owners = Owners::from(container.snapshot().spec.namespaces.users);
    let opened = blocking(move || view::running(pid, owners)).await?;
    // While it lives, no other process has its number.
    let mut ended = [PollFd::new(&handle, PollFlags::IN)];
    match poll(&mut ended, Some(&Timespec::default())) {
        Ok(0) => Ok(Some(opened?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_clients() {
        for (path, wanted) in [
            ("/", ""),
            ("/.", ""),
            ("/a.", "/a."),
            ("/a/.", "/a"),
            ("/a/b/", "/a/b"),
            ("..", ""),
        ] {
            assert_eq!(Asked::new("it", path).directory(), wanted, "{path}");
        }
    }
}

//! Namespaces of other containers that a run joins. Each is held by a descriptor from before it is
//! known to be the right one until the container is made, so that no other process can take the
//! place of the donor's.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keelson_shim_protocol::{Request, Response};

use crate::EngineError;
use crate::container::Container;
use crate::engine::Inner;
use crate::types::{Snapshot, Status};

/// A namespace that is held open.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The container that it is of.
    pub(crate) donor: Arc<Snapshot>,
    /// Keeps the namespace, and the path below valid.
    _held: File,
    /// By which every process of the host can open it.
    path: PathBuf,
}

impl Joined {
    /// The path in config.json.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What a run joins.
#[derive(Debug, Default)]
pub(crate) struct JoinedAll {
    pub(crate) network: Option<Joined>,
    pub(crate) pid: Option<Joined>,
}

impl Inner {
    /// Opens the namespaces that a container joins.
    pub(crate) async fn join_donors(
        &self,
        container: &Container,
    ) -> Result<JoinedAll, EngineError> {
        let snapshot = container.snapshot();
        let donors = &snapshot.spec.namespaces.donors;
        let mut all = JoinedAll::default();
        if let Some(name) = &donors.network {
            let words = format!("cannot join network namespace of a non running container: {name}");
            all.network = Some(self.join(&snapshot, name, "net", words).await?);
        }
        if let Some(name) = &donors.pid {
            let words = format!("can't join PID namespace of container {name}");
            all.pid = Some(self.join(&snapshot, name, "pid", words).await?);
        }
        Ok(all)
    }

    async fn join(
        &self,
        joining: &Snapshot,
        name: &str,
        kind: &str,
        refusal: String,
    ) -> Result<Joined, EngineError> {
        let container = self.resolve(joining.scope, name)?;
        let donor = container.snapshot();
        if donor.id == joining.id {
            return Err(EngineError::Conflict(format!(
                "{refusal}: a container cannot join its own namespace"
            )));
        }
        if donor.state.status == Status::Restarting {
            return Err(EngineError::Conflict(format!(
                "Container {} is restarting, wait until the container is running",
                donor.id
            )));
        }
        let pid = donor.state.pid;
        let not_running =
            || EngineError::Conflict(format!("{refusal}: container {} is not running", donor.id));
        if pid == 0 {
            return Err(not_running());
        }
        let of_process = PathBuf::from(format!("/proc/{pid}/ns/{kind}"));
        let held = match fs::File::open(&of_process) {
            Ok(held) => held,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(not_running()),
            Err(error) => return Err(EngineError::io("open", &of_process)(error)),
        };
        // Only its shim reaps it: as long as that reports the process, the number is still its.
        match container.shim().request(&Request::State).await {
            Ok(Response::State {
                pid: reported,
                exit: None,
                ..
            }) if reported == pid => {}
            Ok(_) | Err(_) => return Err(not_running()),
        }
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            held.as_raw_fd()
        ));
        Ok(Joined {
            donor,
            _held: held,
            path,
        })
    }
}

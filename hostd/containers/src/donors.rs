//! Namespaces of other containers that a run joins. Each is held by a descriptor from before it is
//! known to be the right one until the container is made, so that no other process can take the
//! place of the donor's.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use keelson_model::spec::Donors;
use keelson_shim_protocol::{Request, Response};

use crate::EngineError;
use crate::container::Container;
use crate::engine::Inner;
use crate::types::{Snapshot, Status};

/// How long a start waits for a container whose namespaces it joins.
const DONOR_TIME: Duration = Duration::from_secs(10);

/// Containers that join each other's network in a row.
const LONGEST_ROW: usize = 32;

/// A namespace that is held open.
#[derive(Debug)]
pub(crate) struct Joined {
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
    /// The container whose names are those of the network: the one that joins no other.
    pub(crate) names: Option<Arc<Snapshot>>,
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
        if *donors == Donors::default() {
            return Ok(all);
        }
        // Until then it is not known of all containers that they exist, and whether they run.
        let mut settled = self.settled.subscribe();
        let _ = tokio::time::timeout(DONOR_TIME, settled.wait_for(|settled| *settled)).await;
        if let Some(name) = &donors.network {
            let words = format!("cannot join network namespace of a non running container: {name}");
            all.network = Some(self.join(&snapshot, name, "net", words).await?);
            all.names = Some(self.owner_of_network(&snapshot, name)?);
        }
        if let Some(name) = &donors.pid {
            let words = format!("can't join PID namespace of container {name}");
            all.pid = Some(self.join(&snapshot, name, "pid", words).await?);
        }
        Ok(all)
    }

    /// The container whose network a donor has, which may have joined it itself.
    fn owner_of_network(
        &self,
        joining: &Snapshot,
        name: &str,
    ) -> Result<Arc<Snapshot>, EngineError> {
        let mut owner = self.resolve(joining.scope, name)?.snapshot();
        for _ in 0..LONGEST_ROW {
            let Some(next) = &owner.spec.namespaces.donors.network else {
                return Ok(owner);
            };
            owner = self.resolve(joining.scope, next)?.snapshot();
        }
        Err(EngineError::Conflict(format!(
            "container {} joins the network of {name}, which leads over more than {LONGEST_ROW} others",
            joining.id
        )))
    }

    /// A donor when it runs, or will not run soon. One that is being started, or will be by its policy,
    /// is waited for: after a reboot all are started at once.
    async fn donor(&self, container: &Container, joining: &Snapshot) -> Arc<Snapshot> {
        if container.id == joining.id {
            return container.snapshot();
        }
        let runs = async {
            loop {
                let mut over = pin!(container.start_over.notified());
                // From here on it is told, however late it looks.
                over.as_mut().enable();
                let soon = container.is_starting()
                    || container.snapshot().state.status == Status::Restarting;
                if !soon {
                    return;
                }
                over.await;
            }
        };
        // What it is then is what counts.
        let _ = tokio::time::timeout(DONOR_TIME, runs).await;
        container.snapshot()
    }

    async fn join(
        &self,
        joining: &Snapshot,
        name: &str,
        kind: &str,
        refusal: String,
    ) -> Result<Joined, EngineError> {
        let container = self.resolve(joining.scope, name)?;
        let donor = self.donor(&container, joining).await;
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
            Ok(_) => return Err(not_running()),
            Err(error) => return Err(error),
        }
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            held.as_raw_fd()
        ));
        Ok(Joined { _held: held, path })
    }
}

//! Namespaces of other containers that a run joins. Each is held by a descriptor, which is opened
//! before it is checked and kept until the container is created. So no other process can take the
//! place of the donor's.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelson_model::spec::{Donors, IpcMode};
use keelson_shim_protocol::{Request, Response};

use crate::EngineError;
use crate::container::Container;
use crate::engine::Inner;
use crate::spec::HOST_MEMORY;
use crate::types::{Snapshot, Status};
use crate::volumes::places;

/// How long a start waits for a container whose namespaces it joins.
const DONOR_TIME: Duration = Duration::from_secs(10);

/// Longest chain of containers that join each other's network.
const LONGEST_ROW: usize = 32;

/// An open namespace.
#[derive(Debug)]
pub(crate) struct Joined {
    /// Keeps the namespace, and the path below valid.
    held: File,
    /// A path by which every process of the host can open it.
    path: PathBuf,
}

impl Joined {
    /// The path in config.json.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the other one is the same namespace.
    fn is_same(&self, other: &Self) -> Result<bool, EngineError> {
        let number = |joined: &Self| {
            let status = joined.held.metadata();
            status.map(|status| (status.dev(), status.ino()))
        };
        let number = |joined| number(joined).map_err(EngineError::io("stat", &self.path));
        Ok(number(self)? == number(other)?)
    }
}

/// The namespaces that a run joins.
#[derive(Debug, Default)]
pub(crate) struct JoinedAll {
    pub(crate) network: Option<Joined>,
    /// The container that owns the network, and so its names: the one that joins no other.
    pub(crate) names: Option<Arc<Snapshot>>,
    pub(crate) pid: Option<Joined>,
    pub(crate) ipc: Option<Joined>,
    /// The user namespace that owns these, if the container has one: only its members may set up a
    /// container in them.
    pub(crate) users: Option<Joined>,
    /// The shared memory of the IPC namespace, on the host.
    pub(crate) shared_memory: Option<PathBuf>,
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
        // Before that, the engine does not know all containers and their states.
        let mut settled = self.settled.subscribe();
        let _ = tokio::time::timeout(DONOR_TIME, settled.wait_for(|settled| *settled)).await;
        if let Some(name) = &donors.network {
            let words = format!("cannot join network namespace of a non running container: {name}");
            all.network = Some(self.join(&snapshot, name, "net", words).await?);
            all.names = Some(
                self.owner(&snapshot, name, |donors| &donors.network)?
                    .snapshot(),
            );
        }
        if let Some(name) = &donors.pid {
            let words = format!("can't join PID namespace of container {name}");
            all.pid = Some(self.join(&snapshot, name, "pid", words).await?);
        }
        if let Some(name) = &donors.ipc {
            let (joined, memory) = self.join_ipc(&snapshot, name).await?;
            all.ipc = Some(joined);
            all.shared_memory = Some(memory);
        }
        all.users = self.join_users(&snapshot).await?;
        Ok(all)
    }

    /// The user namespace of all donors.
    async fn join_users(&self, joining: &Snapshot) -> Result<Option<Joined>, EngineError> {
        let Some(users) = joining.spec.namespaces.users else {
            return Ok(None);
        };
        let Donors { network, pid, ipc } = &joining.spec.namespaces.donors;
        let mut joined: Option<Joined> = None;
        for name in [network, pid, ipc].into_iter().flatten() {
            let refusal = format!("cannot join the namespaces of container {name}");
            let donor = self.resolve(joining.scope, name)?.snapshot();
            if donor.spec.namespaces.users != Some(users) {
                return Err(EngineError::Conflict(format!(
                    "{refusal}: its users are others on the host; make both containers anew with the same --userns"
                )));
            }
            let found = self.join(joining, name, "user", refusal.clone()).await?;
            match &joined {
                Some(first) if !first.is_same(&found)? => {
                    return Err(EngineError::Conflict(format!(
                        "{refusal}: another container whose namespaces are joined has another user namespace; use --userns=host for all of them, or let one join the other"
                    )));
                }
                _ => joined = Some(found),
            }
        }
        Ok(joined)
    }

    /// The container that owns a donor's namespace, which the donor may itself have joined.
    fn owner(
        &self,
        joining: &Snapshot,
        name: &str,
        of: fn(&Donors) -> &Option<String>,
    ) -> Result<Arc<Container>, EngineError> {
        let mut owner = self.resolve(joining.scope, name)?;
        for _ in 0..LONGEST_ROW {
            match of(&owner.snapshot().spec.namespaces.donors) {
                None => return Ok(owner),
                Some(next) => owner = self.resolve(joining.scope, next)?,
            }
        }
        Err(EngineError::Conflict(format!(
            "container {} joins a namespace of {name}, which leads over more than {LONGEST_ROW} others",
            joining.id
        )))
    }

    /// The IPC namespace of a container that shares it, and its shared memory.
    async fn join_ipc(
        &self,
        joining: &Snapshot,
        name: &str,
    ) -> Result<(Joined, PathBuf), EngineError> {
        const REFUSAL: &str = "failed to join IPC namespace";
        let unknown = |error| match error {
            EngineError::NoSuchContainer(_) => EngineError::Invalid(format!("{REFUSAL}: {error}")),
            error => error,
        };
        let owner = self
            .owner(joining, name, |donors| &donors.ipc)
            .map_err(unknown)?;
        let joined = self.join(joining, name, "ipc", REFUSAL.to_owned()).await?;
        let unshared = || {
            EngineError::Invalid(format!(
                "{REFUSAL}: container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            ))
        };
        match owner.snapshot().spec.namespaces.ipc {
            IpcMode::Shareable => {}
            IpcMode::Host => return Ok((joined, PathBuf::from(HOST_MEMORY))),
            IpcMode::Private | IpcMode::None => return Err(unshared()),
        }
        // The owner may have ended, or have been restarted, since the donor joined it.
        let first = self
            .join(joining, &owner.id, "ipc", REFUSAL.to_owned())
            .await?;
        if !joined.is_same(&first)? {
            return Err(EngineError::Conflict(format!(
                "{REFUSAL}: container {name} shares that of an earlier run of container {}; restart it",
                owner.id
            )));
        }
        let memory = places(&owner).shared_memory();
        // A container started by an engine without sharing has none.
        match memory.is_dir() {
            true => Ok((joined, memory)),
            false => Err(unshared()),
        }
    }

    /// Waits for a donor that is being started, or that its policy will start, because after a
    /// reboot all are started at once. Returns it when it runs or will not run soon.
    async fn donor(&self, container: &Container, joining: &Snapshot) -> Arc<Snapshot> {
        if container.id == joining.id {
            return container.snapshot();
        }
        // Its state at that time matters.
        let _ = tokio::time::timeout(DONOR_TIME, container.decided()).await;
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
        // Only its shim reaps the process. As long as the shim reports it, the process id is valid.
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
        Ok(Joined { held, path })
    }
}

//! Opens the engine with what an earlier one has left, and closes it when the machine shuts down.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hostd_images::{Holder, ImageLease};
use hostd_networks::{
    AddressPool, DefaultBridge, FilterOptions, NetworkOptions, Networks, ResolverOptions,
};
use hostd_volumes::{StoreOptions, VolumeStore};
use keelson_blocking::blocking;
use keelson_model::init::{SYSTEM_STOP_SHARE, USER_STOP_SHARE};
use keelson_store::{Objects, document, objects::remove_tree};

use crate::container::Container;
use crate::create::DOCUMENT;
use crate::document::{ContainerDocument, Identity, STATE, StateDocument, boot_id};
use crate::engine::{Inner, off_workers};
use crate::host::{self, HostFacts};
use crate::lifecycle::stop_signal;
use crate::machine::{Ask, Boot, Found, Stopper};
use crate::shim::Shim;
use crate::types::{EngineOptions, Scope};
use crate::{Engine, EngineError, names};

/// How long the opening waits for shims. They answer within milliseconds, and a stopped shim must
/// not block clients of other containers.
const SETTLE_TIME: Duration = Duration::from_millis(400);

/// How long containers have, after their share of a shutdown, to be recorded and cleaned up.
const SHUTDOWN_KILL_GRACE: Duration = Duration::from_secs(3);

impl Engine {
    /// Opens the engine: adopts running shims, reads the exit records of containers that ended
    /// while no engine ran, and starts containers in the background according to their restart
    /// policies.
    ///
    /// # Errors
    /// When the directories cannot be made or read. A container that can't be read is no
    /// error: it is shown as dead, with the reason, and its files are not changed.
    pub async fn open(options: EngineOptions) -> Result<Self, EngineError> {
        let run = options.run.join("containers");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&run)
            .map_err(EngineError::io("mkdir", &run))?;
        let base = options.root.join("engine/containers");
        let parent = options.cgroup_parent.clone();
        let volumes = StoreOptions {
            base: options.root.join("engine/volumes"),
            uses: options.run.join("volume-uses"),
            boot: boot_id(),
            era: options.images.era(),
            plugins: options.plugins.clone(),
        };
        let mut networks = network_options(&options)?;
        let ((objects, volumes), facts) = blocking(move || {
            let objects = Objects::open(&base, DOCUMENT, &volumes.boot)?;
            let volumes = VolumeStore::open(volumes)?;
            Ok::<_, EngineError>(((objects, volumes), HostFacts::detect(&parent)))
        })
        .await??;
        networks.resolver.cgroup = facts.shim_cgroup(&options.cgroup_parent);
        let networks = Networks::open(networks).await?;
        let engine = Self::new(options, (objects, volumes, networks), facts);
        engine.inner.restore().await?;
        Ok(engine)
    }

    /// Stops all containers of a scope at the same time, each with its own stop signal and time,
    /// but at most `limit`. Containers that do not end then are killed, and those that survive this
    /// are left. From the first call on no container is started any more. For restart policies at
    /// the next boot, containers that are stopped here count as running.
    pub async fn shutdown_scope(&self, scope: Scope, limit: Duration) {
        self.inner.shutting_down.store(true, Ordering::Release);
        let given_up = tokio::time::Instant::now() + limit + SHUTDOWN_KILL_GRACE;
        let containers = self.inner.with(scope, |registry| {
            registry.values().cloned().collect::<Vec<_>>()
        });
        let mut stopping = tokio::task::JoinSet::new();
        for container in containers {
            let inner = Arc::clone(&self.inner);
            stopping.spawn(async move {
                inner.stop_at_shutdown(&container, limit).await;
            });
        }
        let all = async { while stopping.join_next().await.is_some() {} };
        if tokio::time::timeout_at(given_up, all).await.is_err() {
            tracing::error!(
                count = stopping.len(),
                "containers do not end after SIGKILL and are left behind"
            );
            stopping.abort_all();
        }
        self.inner.flusher.now().await;
    }

    /// Stops one container because the machine shuts down, within `limit` and the time of a kill.
    /// From the first call on no container is started any more.
    pub async fn stop_for_shutdown(&self, scope: Scope, name: &str, limit: Duration) {
        self.inner.shutting_down.store(true, Ordering::Release);
        let Ok(container) = self.inner.resolve(scope, name) else {
            return;
        };
        let stop = self.inner.stop_at_shutdown(&container, limit);
        if tokio::time::timeout(limit + SHUTDOWN_KILL_GRACE, stop)
            .await
            .is_err()
        {
            tracing::error!(
                name,
                "container does not end after SIGKILL and is left behind"
            );
        }
    }

    /// Stops all containers, those of clients first, and removes their common cgroups.
    pub async fn shutdown(&self) {
        self.shutdown_scope(Scope::User, USER_STOP_SHARE).await;
        self.shutdown_scope(Scope::System, SYSTEM_STOP_SHARE).await;
        let inner = Arc::clone(&self.inner);
        let _ = keelson_blocking::blocking(move || inner.init.clear()).await;
        self.inner.networks.close().await;
        let parent = self.inner.cgroup_parent.clone();
        if let Some(mount) = self.inner.facts.cgroup_mount.clone() {
            let removal = move || host::remove_cgroups(&mount, &parent);
            let _ = keelson_blocking::blocking(removal).await;
        }
    }
}

/// The settings with which networks are opened.
fn network_options(options: &EngineOptions) -> Result<NetworkOptions, EngineError> {
    let config = &options.defaults.networks;
    let prefix = |text: &Option<String>| {
        let read = text.as_ref().map(|text| {
            text.parse().map_err(|error| {
                EngineError::Invalid(format!("address of the default bridge: {text:?}: {error}"))
            })
        });
        read.transpose()
    };
    let pools = config.address_pools.iter().map(|pool| {
        let base = pool.base.parse().map_err(|error| {
            EngineError::Invalid(format!("address pool {:?}: {error}", pool.base))
        })?;
        AddressPool::new(base, pool.size)
            .map_err(|error| EngineError::Invalid(format!("address pool {:?}: {error}", pool.base)))
    });
    let accept_mark = config.accept_mark.as_ref().map(|text| {
        let mark = text.parse();
        mark.map_err(|error| EngineError::Invalid(format!("accept_mark: {error}")))
    });
    let accept_mark = accept_mark.transpose()?;
    for (range, address, name) in [
        (&config.range, &config.address, "range"),
        (&config.range_ipv6, &config.address_ipv6, "range_ipv6"),
    ] {
        if range.is_some() && address.is_none() {
            return Err(EngineError::Invalid(format!(
                "{name} of the default bridge: it is a part of the subnet that address says: give that, too"
            )));
        }
    }
    let default_bridge = match config.bridge.as_str() {
        "none" => None,
        link => Some(DefaultBridge {
            link: link.to_owned(),
            address: prefix(&config.address)?,
            address_ipv6: prefix(&config.address_ipv6)?,
            range: prefix(&config.range)?,
            range_ipv6: prefix(&config.range_ipv6)?,
            ipv6: config.address_ipv6.is_some(),
            inter_container: config.inter_container,
            masquerade: config.masquerade,
            mtu: config.mtu,
            publish_address: config.publish_address,
        }),
    };
    Ok(NetworkOptions {
        base: options.root.join("engine/networks"),
        run: options.run.join("networks"),
        boot: boot_id(),
        era: options.images.era(),
        engine: options.id.clone(),
        pools: pools.collect::<Result<_, _>>()?,
        default_options: config.default_options.clone(),
        default_bridge,
        filter: FilterOptions {
            direct_routing: config.direct_routing,
            accept_mark,
        },
        resolver: ResolverOptions {
            program: options.resolver.clone(),
            run: options.run.join("resolver"),
            cgroup: None,
            resolv_conf: "/etc/resolv.conf".into(),
        },
    })
}

impl Inner {
    /// Stops a container with its own stop time, or `limit` if that is shorter.
    async fn stop_at_shutdown(self: &Arc<Self>, container: &Arc<Container>, limit: Duration) {
        let snapshot = container.snapshot();
        let own = self.patience_of(&snapshot, None);
        let most = limit.max(Duration::from_secs(1));
        let stop = Ask::Stop {
            by: Stopper::Shutdown,
            signal: stop_signal(&snapshot, None),
            patience: Some(own.map_or(most, |own| own.min(most))),
        };
        match self.ask(container, stop).await {
            Ok(()) => {}
            // It does not run, or is gone.
            Err(EngineError::Refused(refused)) if !refused.is_failure() => {}
            Err(error) => tracing::error!(id = container.id, %error, "container not stopped"),
        }
        // The exit is recorded under this lock.
        drop(container.operation.lock().await);
    }

    async fn restore(self: &Arc<Self>) -> Result<(), EngineError> {
        // An object without leases is unused only after all containers have taken theirs.
        let all = self.images.lease_again(None, Holder::start());
        let mut known = HashSet::new();
        let mut settling = tokio::task::JoinSet::new();
        for id in self.objects.names()? {
            known.insert(id.clone());
            if !names::is_id(&id) {
                tracing::warn!(id, "not a container's directory; left alone");
                continue;
            }
            match self.restore_one(&id) {
                Ok((container, boot)) => {
                    let inner = Arc::clone(self);
                    settling.spawn(async move { inner.settle(&container, boot).await });
                }
                Err(error) => self.quarantine(&id, &error),
            }
        }
        drop(all);
        off_workers(|| {
            self.unmount_unused_volumes();
            // Search now: later there are shims of new containers, too.
            if let Err(error) = self.end_strays(&known) {
                tracing::error!(%error, "shims without a container were not searched");
            }
        });
        // Slow shims are awaited while the engine already serves.
        let all = async { while settling.join_next().await.is_some() {} };
        if tokio::time::timeout(SETTLE_TIME, all).await.is_err() {
            self.tell_unknown();
        }
        settling.detach_all();
        self.settle_networks().await;
        self.settled.send_replace(true);
        Ok(())
    }

    /// Holds a container's image again, if it is known. A system container may have none.
    pub(crate) fn lease_again(&self, document: &ContainerDocument) -> Option<ImageLease> {
        if document.scope == Scope::System && document.image_id.is_empty() {
            return None;
        }
        let image = document.image_id.parse().ok();
        let holder = Holder::container(&document.id);
        Some(self.images.lease_again(image, holder))
    }

    /// Restores one container from its documents.
    fn restore_one(&self, id: &str) -> Result<(Arc<Container>, Boot), EngineError> {
        let path = self.objects.document(id)?;
        let Some(document): Option<ContainerDocument> = document::read(&path)? else {
            return Err(EngineError::MissingDocument(path));
        };
        if document.id != id {
            return Err(EngineError::ForeignDocument {
                path,
                id: document.id,
            });
        }
        let (found, boot) = self.read_state(id);
        let (scope, name) = (document.scope, document.name.clone());
        let lease = self.lease_again(&document);
        let container = Arc::new(self.load(document, found)?);
        container.hold(lease);
        container.restore_health();
        self.hold_volumes_again(&container);
        self.hold_images_again(&container);
        self.with_mut(scope, |registry| {
            registry.reserve(&name, id)?;
            registry.insert(id, Arc::clone(&container));
            Ok::<_, EngineError>(())
        })?;
        if !self.objects.is_settled(id) {
            // The engine that created it was killed at that moment.
            let (objects, id) = (Arc::clone(&self.objects), id.to_owned());
            self.flusher.then(path, move || objects.settle(&id));
        }
        self.configure_networks(&container.snapshot());
        let directory = self.objects.directory(id)?;
        if Identity::read(&directory).is_none()
            && let Err(error) = ContainerDocument::of(&container.snapshot())
                .and_then(|document| Identity::write(&directory, &document))
        {
            tracing::warn!(id, %error, "identity of a container not written");
        }
        Ok((container, boot))
    }

    /// Reads the state. A state torn by a power cut only shows that the container may have run. An
    /// unreadable one shows nothing, and is not changed. Also returns whether it was written in
    /// this boot.
    fn read_state(&self, id: &str) -> (Found, Boot) {
        let read = self.objects.directory(id).map_err(EngineError::from);
        let read = read.map(|directory| document::read::<StateDocument>(&directory.join(STATE)));
        let why = match read {
            Ok(Ok(found)) => {
                let (boot, state) = found.unwrap_or_default().into_parts();
                let boot = match boot == self.boot {
                    true => Boot::This,
                    false => Boot::Earlier,
                };
                return (Found::Written(state), boot);
            }
            Ok(Err(error)) if error.is_damage() => {
                tracing::warn!(id, %error, "state was torn, probably by a power cut");
                return (Found::Torn, Boot::Earlier);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(id, error = why, "state of a container can't be read");
        let why = format!("the container's state can't be read: {why}");
        (Found::Unreadable(why), Boot::This)
    }

    /// Ends shims without a container, in the background: their container was removed, or its
    /// creation was interrupted.
    fn end_strays(&self, known: &HashSet<String>) -> Result<(), EngineError> {
        let run = &self.run;
        for entry in fs::read_dir(run).map_err(EngineError::io("read directory", run))? {
            let entry = entry.map_err(EngineError::io("read directory", run))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            if known.contains(&id) {
                continue;
            }
            tracing::warn!(id, "shim without container");
            let path = entry.path();
            tokio::spawn(async move {
                Shim::new(&id, &path).end().await;
                remove_stray(&path);
            });
        }
        Ok(())
    }
}

fn remove_stray(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(%error, "run directory not removed");
    }
}

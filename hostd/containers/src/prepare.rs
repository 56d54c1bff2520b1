//! Prepares what a shim needs: layers, files, directories and `config.json`.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hostd_images::RootfsLayers;
use keelson_model::host::EngineConfig;
use keelson_model::spec::{
    self as model, BindMount, Confinement, ContainerSpec, IpcMode, MountKind, MountSpec,
    Propagation, ReadOnly, RootSpec, Stdin,
};
use keelson_model::users::UserRange;
use keelson_shim_protocol::{LogFiles, OtherRuntime, Rootfs, SPEC_FILE, ShimSpec};
use keelson_store::objects::remove_tree;

use crate::container::Container;
use crate::create::check_binds;
use crate::donors::{Joined, JoinedAll};
use crate::engine::Inner;
use crate::name_files::made_resolv_conf;
use crate::rootfs::{Kind, Merged};
use crate::spec::{self, HostFiles};
use crate::types::Snapshot;
use crate::user::{self, User};
use crate::volumes::places;
use crate::{EngineError, cdi, devices, propagation};

impl Inner {
    /// Prepares a run. All files are written again for each run. Files that only the shim and this
    /// process write to are below the run directory; files that the container may write to are
    /// below the container's own directory.
    pub(crate) fn prepare(
        &self,
        container: &Container,
        joined: &JoinedAll,
    ) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        let layers = self.layers(container, &snapshot)?;
        let run = &snapshot.run_directory;
        remove_tree(run)?;
        let bundle = run.join("bundle");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&bundle)
            .map_err(EngineError::io("mkdir", &bundle))?;

        let upper = snapshot.directory.join("upper");
        let mut visible = vec![upper.clone()];
        visible.extend(layers.lower.iter().cloned());
        let merged = Merged::new(&visible);
        make_bind_sources(&snapshot.spec)?;
        propagation::check(&snapshot.spec.mounts, &self.root)?;
        let mut volumes = volume_directories(&snapshot, &merged)?;
        volumes.extend(self.use_volumes(container, &snapshot)?);
        let user = find_user(&snapshot.spec.process.user, &snapshot, &visible, &volumes)?;
        let described = cdi::find(
            &self.defaults.cdi_directories,
            &snapshot.spec.described_devices,
        )?;
        let mut nodes = device_nodes(&snapshot)?;
        nodes.extend(cdi::nodes(&described, (user.uid, user.gid))?);
        let limited = snapshot.spec.limits.io.devices.iter();
        let limited = limited.map(|device| devices::block(&device.node));
        let block_devices: Vec<_> = limited.collect::<Result<_, _>>()?;
        self.weigh_disks(&snapshot.spec.limits.io, &block_devices);
        let own = snapshot.files();
        remove_tree(&own)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&own)
            .map_err(EngineError::io("mkdir", &own))?;
        // A container that joins a network shares its names.
        let named = joined.names.as_ref();
        let etc = named.map_or(own, |donor| donor.files());
        let names = ["hostname", "hosts", "resolv.conf"].map(|name| etc.join(name));
        let [hostname, hosts, resolv_conf] = &names;
        let host_name = named.unwrap_or(&snapshot).host_name();
        let linked = self.linked(&snapshot)?;
        if named.is_none() {
            write(hostname, format!("{host_name}\n").as_bytes())?;
            let texts = self.name_texts(&snapshot, &linked);
            write(hosts, texts.hosts.as_bytes())?;
            write(resolv_conf, texts.resolv_conf.as_bytes())?;
            write(&made_resolv_conf(&snapshot), texts.resolv_conf.as_bytes())?;
            give_to_root(&names, snapshot.spec.namespaces.users)?;
        }
        let linked = linked.iter();
        let link_variables: Vec<_> = linked
            .flat_map(|linked| linked.variables(&snapshot.name))
            .collect();

        let init = match snapshot.spec.process.init {
            true => Some(self.init.path()?),
            false => None,
        };
        let shared_memory = match snapshot.spec.namespaces.ipc {
            IpcMode::Shareable => {
                let size = snapshot.spec.limits.shm_size;
                Some(places(container).mount_shared_memory(size)?)
            }
            _ => joined.shared_memory.clone(),
        };
        let mut config = spec::build(&spec::Input {
            spec: &snapshot.spec,
            host_name: &host_name,
            link_variables: &link_variables,
            user: &user,
            files: HostFiles {
                hostname,
                hosts,
                resolv_conf,
            },
            volumes: &volumes,
            devices: &nodes,
            block_devices: &block_devices,
            cgroup: &snapshot.cgroup,
            joined: spec::JoinedPaths {
                users: joined.users.as_ref().map(Joined::path),
                network: joined.network.as_ref().map(Joined::path),
                pid: joined.pid.as_ref().map(Joined::path),
                ipc: joined.ipc.as_ref().map(Joined::path),
            },
            shared_memory: shared_memory.as_deref(),
            init: init.as_deref(),
            facts: &self.facts,
        });
        cdi::apply(&described, &mut config);
        write_json(&bundle.join("config.json"), &config)?;
        let stdin = snapshot.spec.process.stdin;
        let shim = ShimSpec {
            version: 1,
            id: snapshot.id.clone(),
            bundle,
            rootfs: Rootfs::Overlay {
                lower: layers.lower.clone(),
                upper: Some(upper),
                work: Some(snapshot.directory.join("work")),
            },
            open_stdin: stdin != Stdin::Closed,
            stdin_once: stdin == Stdin::OpenOnce,
            log: log(&snapshot, &self.defaults),
            // The shim starts in this directory.
            shim_cgroup: None,
            runtime: self.other_runtime(&snapshot)?,
        };
        write_json(&run.join(SPEC_FILE), &shim)
    }

    /// The runtime of a container, if it is not our own.
    fn other_runtime(&self, snapshot: &Snapshot) -> Result<Option<OtherRuntime>, EngineError> {
        let Some(name) = &snapshot.spec.runtime else {
            return Ok(None);
        };
        let configured = self.defaults.runtimes.get(name).ok_or_else(|| {
            EngineError::Invalid(format!(
                "unknown or invalid runtime name: {name}; name it in the host's configuration again ([engine.runtimes.{name}]), or make container {} anew",
                snapshot.id
            ))
        })?;
        Ok(Some(OtherRuntime {
            path: configured.path.clone(),
            arguments: configured.arguments.clone(),
        }))
    }

    /// Resolves the user of a further process by the container's current files.
    pub(crate) fn exec_user(&self, name: &str, container: &Container) -> Result<User, EngineError> {
        let snapshot = container.snapshot();
        let mut visible = vec![snapshot.directory.join("upper")];
        visible.extend(self.layers(container, &snapshot)?.lower);
        let mut volumes = volume_directories(&snapshot, &Merged::new(&visible))?;
        volumes.extend(self.volume_mounts(&snapshot)?);
        find_user(name, &snapshot, &visible, &volumes)
    }

    /// Mounts the image's layers until the container is removed.
    pub(crate) fn layers(
        &self,
        container: &Container,
        snapshot: &Snapshot,
    ) -> Result<RootfsLayers, EngineError> {
        if let Some(layers) = &container.live().layers {
            return Ok(layers.clone());
        }
        let layers = match &snapshot.spec.root {
            RootSpec::System { path, lower, .. } => {
                let files: Vec<&Path> = [path].into_iter().chain(lower).map(|p| &**p).collect();
                self.images.system_image(&files)?
            }
            RootSpec::Image { id, .. } => {
                let id = id
                    .parse()
                    .map_err(EngineError::image_id(&snapshot.id, id))?;
                self.images.mount(&id)?
            }
        };
        container.live().layers = Some(layers.clone());
        Ok(layers)
    }
}

/// Resolves a user by the files that the container sees: those of its root file system, unless
/// something is mounted over them.
fn find_user(
    name: &str,
    snapshot: &Snapshot,
    visible: &[PathBuf],
    volumes: &[MountSpec],
) -> Result<User, EngineError> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mounts = spec::by_depth(snapshot.spec.mounts.iter().chain(volumes));
    let mounts = mounts.into_iter().map(|mount| {
        let source = match &mount.kind {
            MountKind::Bind(bind) => Some(bind.source.clone()),
            MountKind::Tmpfs(_) => None,
        };
        (source, text(&mount.target))
    });
    let merged = Merged::with_mounts(visible, mounts);
    let read = |path: &str| {
        merged
            .read(path, user::MAX_FILE)
            .map(Option::unwrap_or_default)
            .map_err(EngineError::io("read in the container", Path::new(path)))
    };
    user::resolve(
        name,
        &snapshot.spec.process.groups,
        &read("/etc/passwd")?,
        &read("/etc/group")?,
    )
}

fn make_bind_sources(spec: &ContainerSpec) -> Result<(), EngineError> {
    check_binds(&spec.mounts)?;
    for mount in &spec.mounts {
        if let MountKind::Bind(bind) = &mount.kind
            && bind.create_source
            && fs::symlink_metadata(&bind.source).is_err()
        {
            let missing = bind.source.ancestors();
            let missing = missing.take_while(|path| fs::symlink_metadata(path).is_err());
            let missing: Vec<_> = missing.map(Path::to_owned).collect();
            fs::create_dir_all(&bind.source).map_err(EngineError::io("mkdir", &bind.source))?;
            give_to_root(&missing, spec.namespaces.users)?;
        }
    }
    Ok(())
}

/// Changes the owner of files to the container's root user, if that is not the host's.
fn give_to_root(paths: &[PathBuf], users: Option<UserRange>) -> Result<(), EngineError> {
    let Some(UserRange { base, .. }) = users else {
        return Ok(());
    };
    paths.iter().try_for_each(|path| {
        std::os::unix::fs::lchown(path, Some(base), Some(base))
            .map_err(EngineError::io("chown", path))
    })
}

/// Volumes of containers that an engine without a volume store has created. If the image has the
/// path, the files stay in the container's writable layer, with their owners. Otherwise a directory
/// of the container is mounted. In both cases they live as long as the container.
fn volume_directories(
    snapshot: &Snapshot,
    merged: &Merged<'_>,
) -> Result<Vec<MountSpec>, EngineError> {
    let mut directories = Vec::new();
    for (index, path) in snapshot.spec.anonymous_volumes.iter().enumerate() {
        let kind = merged
            .kind(&path.to_string_lossy())
            .map_err(EngineError::io("look up in the image", path))?;
        let directory = snapshot.directory.join("volumes").join(index.to_string());
        if directory.is_dir() || kind == Kind::Absent {
            fs::create_dir_all(&directory).map_err(EngineError::io("mkdir", &directory))?;
            directories.push(MountSpec {
                target: path.clone(),
                kind: MountKind::Bind(BindMount {
                    source: directory,
                    create_source: false,
                    recursive: true,
                    read_only: ReadOnly::No,
                    propagation: Propagation::RecursivePrivate,
                    mapped: true,
                }),
            });
        } else if snapshot.spec.root.read_only() {
            return Err(EngineError::NotImplemented(format!(
                "a volume with content of the image in a container with a read-only root is not implemented: {}; mount a directory or a tmpfs there",
                path.display()
            )));
        }
    }
    Ok(directories)
}

fn device_nodes(snapshot: &Snapshot) -> Result<Vec<devices::DeviceNode>, EngineError> {
    let mut nodes = match snapshot.spec.security.confinement {
        Confinement::Privileged => devices::all(),
        Confinement::Confined => Vec::new(),
    };
    for device in &snapshot.spec.devices {
        nodes.extend(devices::resolve(device)?);
    }
    Ok(nodes)
}

/// Size at which the log file is rotated if the container's output is not kept, in bytes.
const UNKEPT_SIZE: u64 = 4 << 20;
/// The number of such files.
const UNKEPT_FILES: u32 = 2;

/// The container's log, with the host's limits unless it has its own.
fn log(snapshot: &Snapshot, defaults: &EngineConfig) -> LogFiles {
    let (max_size, max_files) = match &snapshot.spec.log {
        model::LogSpec::Files {
            max_size,
            max_files,
            ..
        } => (*max_size, *max_files),
        model::LogSpec::Syslog { .. } => (None, None),
        // Attached clients are served from there.
        model::LogSpec::Nowhere => (Some(UNKEPT_SIZE), Some(UNKEPT_FILES)),
    };
    LogFiles {
        path: snapshot.log_path.clone(),
        max_size: max_size.unwrap_or(defaults.log_max_size),
        max_files: max_files.unwrap_or(defaults.log_max_files.max(1)),
    }
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), EngineError> {
    let bytes = serde_json::to_vec(value).map_err(EngineError::json(path))?;
    write(path, &bytes)
}

/// A plain write is enough: the run directory is created for each run, so an incomplete file is
/// never read.
fn write(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    fs::write(path, bytes).map_err(EngineError::io("write", path))?;
    // hostd's umask must not hide these files from the container's users.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(EngineError::io("chmod", path))
}

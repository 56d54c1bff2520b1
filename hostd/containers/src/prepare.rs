//! What must lie ready before a shim is started: layers, files, folders and `config.json`.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hostd_images::RootfsLayers;
use keelson_shim_protocol::{LogSpec, Rootfs, SPEC_FILE, ShimSpec};
use keelson_store::objects::remove_tree;

use crate::container::Container;
use crate::create::check_binds;
use crate::engine::Inner;
use crate::rootfs::{Kind, Merged};
use crate::spec::mounts::{self, Wanted, WantedKind};
use crate::spec::{self, HostFiles};
use crate::types::{Scope, Snapshot};
use crate::user::{self, User};
use crate::{EngineError, devices, files, validate};

impl Inner {
    /// Prepares a run. What it writes is made anew for each run: below the run folder what only the
    /// shim and this process write to, below the container's own folder what the container may.
    pub(crate) fn prepare(&self, container: &Container) -> Result<(), EngineError> {
        let snapshot = container.snapshot();
        let layers = self.layers(container, &snapshot)?;
        let run = &snapshot.run_folder;
        remove_tree(run)?;
        let bundle = run.join("bundle");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&bundle)
            .map_err(EngineError::io("mkdir", &bundle))?;

        let upper = snapshot.folder.join("upper");
        let mut visible = vec![upper.clone()];
        visible.extend(layers.lower.iter().cloned());
        let merged = Merged::new(&visible);
        let wanted = self.mounts(&snapshot.host_config)?;
        make_bind_sources(&wanted)?;
        let volumes = volume_folders(&snapshot, &merged, &wanted)?;
        let user = find_user(
            &snapshot.config.user,
            &snapshot,
            &visible,
            &wanted,
            &volumes,
        )?;
        let nodes = device_nodes(&snapshot)?;
        let own = snapshot.files();
        remove_tree(&own)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&own)
            .map_err(EngineError::io("mkdir", &own))?;
        let names = ["hostname", "hosts", "resolv.conf"].map(|name| own.join(name));
        let [hostname, hosts, resolv_conf] = &names;
        write_files(&snapshot, hostname, hosts, resolv_conf)?;

        let mut args = vec![snapshot.path.clone()];
        args.extend(snapshot.args.iter().cloned());
        let config = spec::build(&spec::Input {
            config: &snapshot.config,
            host: &snapshot.host_config,
            args: &args,
            user: &user,
            files: HostFiles {
                hostname,
                hosts,
                resolv_conf,
            },
            mounts: &wanted,
            volumes: &volumes,
            devices: &nodes,
            cgroup: &snapshot.cgroup,
            facts: &self.facts,
        })?;
        write_json(&bundle.join("config.json"), &config)?;
        let limits = validate::log_limits(&snapshot.host_config.log_config, &self.defaults)?;
        let shim = ShimSpec {
            version: 1,
            id: snapshot.id.clone(),
            bundle,
            rootfs: Rootfs::Overlay {
                lower: layers.lower.clone(),
                upper: Some(upper),
                work: Some(snapshot.folder.join("work")),
            },
            open_stdin: snapshot.config.open_stdin,
            stdin_once: snapshot.config.stdin_once,
            log: LogSpec {
                path: snapshot.log_path.clone(),
                max_size: limits.max_size,
                max_files: limits.max_files,
            },
            // It is started in it.
            shim_cgroup: None,
        };
        write_json(&run.join(SPEC_FILE), &shim)
    }

    /// The user of a further process, by the files that the container sees now.
    pub(crate) fn exec_user(&self, name: &str, container: &Container) -> Result<User, EngineError> {
        let snapshot = container.snapshot();
        let mut visible = vec![snapshot.folder.join("upper")];
        visible.extend(self.layers(container, &snapshot)?.lower);
        let wanted = self.mounts(&snapshot.host_config)?;
        let volumes = volume_folders(&snapshot, &Merged::new(&visible), &wanted)?;
        find_user(name, &snapshot, &visible, &wanted, &volumes)
    }

    /// The image's layers, mounted, and kept so until the container is removed.
    pub(crate) fn layers(
        &self,
        container: &Container,
        snapshot: &Snapshot,
    ) -> Result<RootfsLayers, EngineError> {
        if let Some(layers) = &container.live().layers {
            return Ok(layers.clone());
        }
        let layers = match snapshot.scope {
            Scope::System if snapshot.image_id.is_empty() => self
                .images
                .system_image(Path::new(&snapshot.image), &snapshot.name)?,
            _ => {
                let id = snapshot.image_id.parse().map_err(|error| {
                    EngineError::Internal(format!(
                        "container {}: image identifier {:?}: {error}",
                        snapshot.id, snapshot.image_id
                    ))
                })?;
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
    wanted: &[Wanted],
    volumes: &[(PathBuf, String)],
) -> Result<User, EngineError> {
    let mounts = wanted.iter().map(|mount| {
        let source = match &mount.kind {
            WantedKind::Bind { source, .. } => Some(source.clone()),
            WantedKind::Tmpfs { .. } => None,
        };
        (source, mount.destination.clone())
    });
    let volumes = volumes
        .iter()
        .map(|(source, destination)| (Some(source.clone()), destination.clone()));
    let merged = Merged::with_mounts(visible, volumes.chain(mounts));
    let read = |path: &str| {
        merged
            .read(path, user::MAX_FILE)
            .map(Option::unwrap_or_default)
            .map_err(EngineError::io("read in the container", Path::new(path)))
    };
    user::resolve(
        name,
        snapshot
            .host_config
            .group_add
            .as_deref()
            .unwrap_or_default(),
        &read("/etc/passwd")?,
        &read("/etc/group")?,
    )
}

fn make_bind_sources(wanted: &[Wanted]) -> Result<(), EngineError> {
    check_binds(wanted)?;
    for mount in wanted {
        if let WantedKind::Bind {
            source,
            create: true,
            ..
        } = &mount.kind
            && fs::symlink_metadata(source).is_err()
        {
            fs::create_dir_all(source).map_err(EngineError::io("mkdir", source))?;
        }
    }
    Ok(())
}

/// Volumes without a mount of their own. A path that the image has stays in the container's own
/// writable layer, content and owner included; for one that it does not have, a folder of the
/// container is mounted. Either way it lives as long as the container.
fn volume_folders(
    snapshot: &Snapshot,
    merged: &Merged<'_>,
    wanted: &[Wanted],
) -> Result<Vec<(PathBuf, String)>, EngineError> {
    let mut folders = Vec::new();
    for (index, path) in mounts::volumes(&snapshot.config, wanted)?
        .into_iter()
        .enumerate()
    {
        let kind = merged
            .kind(&path)
            .map_err(EngineError::io("look up in the image", Path::new(&path)))?;
        let folder = snapshot.folder.join("volumes").join(index.to_string());
        if folder.is_dir() || kind == Kind::Absent {
            fs::create_dir_all(&folder).map_err(EngineError::io("mkdir", &folder))?;
            folders.push((folder, path));
        } else if snapshot.host_config.readonly_rootfs {
            return Err(EngineError::NotImplemented(format!(
                "a volume with content of the image in a container with a read-only root is not implemented: {path}; mount a folder or a tmpfs there"
            )));
        }
    }
    Ok(folders)
}

fn device_nodes(snapshot: &Snapshot) -> Result<Vec<devices::DeviceNode>, EngineError> {
    let mut nodes = if snapshot.host_config.privileged {
        devices::all()
    } else {
        Vec::new()
    };
    for mapping in snapshot.host_config.devices.iter().flatten() {
        nodes.extend(devices::resolve(mapping)?);
    }
    Ok(nodes)
}

fn write_files(
    snapshot: &Snapshot,
    hostname: &Path,
    hosts: &Path,
    resolv_conf: &Path,
) -> Result<(), EngineError> {
    let host = &snapshot.host_config;
    // A host without these files is a host without these entries.
    let of_host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts_of_host = if host.network_mode == "host" {
        of_host("/etc/hosts")
    } else {
        String::new()
    };
    write(hostname, files::hostname(&snapshot.config).as_bytes())?;
    write(hosts, files::hosts(host, &hosts_of_host)?.as_bytes())?;
    write(
        resolv_conf,
        files::resolv_conf(host, &of_host("/etc/resolv.conf")).as_bytes(),
    )
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), EngineError> {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        EngineError::Internal(format!("{}: not serializable: {error}", path.display()))
    })?;
    write(path, &bytes)
}

/// A plain write: the run folder is made anew for each run, so half a file is never read.
fn write(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    fs::write(path, bytes).map_err(EngineError::io("write", path))?;
    // The umask of whoever started hostd must not hide these files from the container's users.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(EngineError::io("chmod", path))
}

//! Archives and registries between ours and other engines: docker, podman, skopeo.

mod common;

use std::path::Path;

use common::peers::{Dockerd, Podman, manifest_digest, skopeo};
use common::registry::{Registry, Wants};
use common::{Host, is_root};

/// A host, and images in a registry: `gzip` as we push it, `zstd` as others do.
struct Lab {
    registry: Registry,
    host: Host,
    id: String,
}

impl Lab {
    fn new() -> Self {
        let registry = Registry::start(&Wants::default());
        let host = Host::start();
        host.load_busybox();
        let name = registry.name("gzip");
        host.docker(&["tag", "busybox", &name]).ok();
        host.docker(&["push", &name]).ok();
        let id = image_id(&host, &name);
        host.docker(&["rmi", "-f", &id]).ok();
        let lab = Self { registry, host, id };
        let layout = format!("oci:{}:zstd", lab.path("layout"));
        let from = format!("docker://{name}");
        skopeo(&[
            "copy",
            "--src-tls-verify=false",
            "--dest-compress",
            "--dest-compress-format=zstd",
            "--dest-decompress=false",
            &from,
            &layout,
        ])
        .ok();
        let to = format!("docker://{}", lab.registry.name("zstd"));
        skopeo(&["copy", "--dest-tls-verify=false", &layout, &to]).ok();
        lab
    }

    fn path(&self, name: &str) -> String {
        self.host.path().join(name).display().to_string()
    }

    /// Pulls an image and saves it to an archive, whose path is given.
    fn saved(&self, repository: &str) -> String {
        let name = self.registry.name(repository);
        self.host.docker(&["pull", &name]).ok();
        let file = self.path(&format!("{repository}.tar"));
        self.host.docker(&["save", "-o", &file, &name]).ok();
        file
    }

    fn forget(&self) {
        self.host.docker(&["image", "prune", "-af"]).ok();
        assert_eq!(self.host.docker(&["images", "-q"]).ok(), "");
    }

    /// The digest of the manifest that the registry has.
    fn remote_digest(&self, repository: &str) -> String {
        let name = format!("docker://{}", self.registry.name(repository));
        let format = "--format={{.Digest}}";
        skopeo(&["inspect", "--tls-verify=false", format, &name]).ok()
    }
}

/// The digest of the configuration that a manifest names.
fn config_of(image: &str) -> String {
    let manifest = skopeo(&["inspect", "--raw", image]).ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

fn image_id(host: &Host, name: &str) -> String {
    host.docker(&["image", "inspect", "-f", "{{.Id}}", name])
        .ok()
}

#[test]
fn what_we_save_others_load() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let dockerd = Dockerd::start();
    let podman = Podman::new();
    for repository in ["gzip", "zstd"] {
        let name = lab.registry.name(repository);
        let file = lab.saved(repository);
        let id = image_id(&lab.host, &name);
        // Byte for byte the same as in the registry.
        let copy = lab.path(&format!("{repository}-dir"));
        let (from, to) = (format!("oci-archive:{file}"), format!("dir:{copy}"));
        skopeo(&["copy", &from, &to]).ok();
        assert_eq!(
            manifest_digest(Path::new(&copy)),
            lab.remote_digest(repository)
        );
        let archive = format!("docker-archive:{file}");
        skopeo(&["copy", &archive, &format!("dir:{copy}-2")]).ok();
        // Docker 20.10 does not know zstd.
        if repository == "gzip" {
            dockerd.docker(&["load", "-i", &file]).ok();
            assert_eq!(dockerd.id(&name), id);
            dockerd.docker(&["rmi", &name]).ok();
        }
        podman.run(&["load", &podman.policy(), "-i", &file]).ok();
        assert_eq!(podman.id(&name), id);
        podman.run(&["rmi", &name]).ok();
        lab.forget();
    }
    // Plain layers: an image that never was in a registry.
    lab.host.load_busybox();
    let file = lab.path("plain.tar");
    lab.host.docker(&["save", "-o", &file, "busybox"]).ok();
    dockerd.docker(&["load", "-i", &file]).ok();
    assert_eq!(dockerd.id("busybox"), lab.id);
    podman.run(&["load", &podman.policy(), "-i", &file]).ok();
    assert_eq!(podman.id("docker.io/library/busybox"), lab.id);
}

#[test]
fn what_others_save_we_load() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let dockerd = Dockerd::start();
    let podman = Podman::new();
    let file = lab.saved("gzip");
    let name = lab.registry.name("gzip");
    dockerd.docker(&["load", "-i", &file]).ok();
    podman.run(&["load", &podman.policy(), "-i", &file]).ok();
    let mut archives = Vec::new();
    let mut path = |what: &str| {
        let path = lab.path(&format!("from-{what}.tar"));
        archives.push((what.to_owned(), path.clone()));
        path
    };
    dockerd.docker(&["save", "-o", &path("docker"), &name]).ok();
    for format in ["docker-archive", "oci-archive"] {
        let to = path(&format!("podman-{format}"));
        podman
            .run(&["save", "--format", format, "-o", &to, &name])
            .ok();
        let to = path(&format!("skopeo-{format}"));
        let from = format!("docker-archive:{file}");
        skopeo(&["copy", &from, &format!("{format}:{to}:{name}")]).ok();
    }
    let zstd = format!("oci-archive:{}:{name}", path("skopeo-zstd"));
    let from = format!("docker://{}", lab.registry.name("zstd"));
    skopeo(&["copy", "--src-tls-verify=false", &from, &zstd]).ok();
    for (what, file) in archives {
        lab.forget();
        let loaded = lab.host.docker(&["load", "-i", &file]);
        assert_eq!(loaded.code, 0, "{what}: {}", loaded.stderr);
        // In the other form the configuration is another one.
        let id = match what.contains("docker") && !what.contains("oci") {
            true => lab.id.clone(),
            false => config_of(&format!("oci-archive:{file}")),
        };
        assert_eq!(image_id(&lab.host, &name), id, "{what}");
        let said = lab
            .host
            .docker(&["run", "--rm", "--network=none", &name, "echo", "runs"]);
        assert_eq!(said.ok(), "runs", "{what}");
    }
    // The last one came with its blobs.
    let copy = lab.registry.name("copy");
    lab.host.docker(&["tag", &name, &copy]).ok();
    lab.host.docker(&["push", &copy]).ok();
    assert_eq!(lab.remote_digest("copy"), lab.remote_digest("zstd"));
}

#[test]
fn what_we_push_others_pull_and_run() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    let podman = Podman::new();
    // Pulled and pushed elsewhere, it is the same for others, too.
    for repository in ["gzip", "zstd"] {
        let (name, copy) = (
            lab.registry.name(repository),
            lab.registry.name(&format!("copy/{repository}")),
        );
        lab.host.docker(&["pull", &name]).ok();
        let id = image_id(&lab.host, &name);
        lab.host.docker(&["tag", &name, &copy]).ok();
        lab.host.docker(&["push", &copy]).ok();
        assert_eq!(
            lab.remote_digest(&format!("copy/{repository}")),
            lab.remote_digest(repository)
        );
        podman
            .run(&["pull", &podman.policy(), "--tls-verify=false", &copy])
            .ok();
        assert_eq!(podman.id(&copy), id);
        let said = podman.run(&[
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            &copy,
            "echo",
            "there",
        ]);
        assert_eq!(said.ok(), "there");
        podman.run(&["rmi", &copy]).ok();
        lab.forget();
    }
}

#[test]
fn skopeo_speaks_to_the_daemon() {
    if !is_root() {
        return;
    }
    let lab = Lab::new();
    lab.host.load_busybox();
    let (layout, url) = (lab.path("daemon-layout"), lab.host.url());
    let to = format!("oci:{layout}:1");
    let daemon = format!("--src-daemon-host={url}");
    skopeo(&["copy", &daemon, "docker-daemon:busybox:latest", &to]).ok();
    let daemon = format!("--dest-daemon-host={url}");
    skopeo(&["copy", &daemon, &to, "docker-daemon:back:1"]).ok();
    let from = format!("docker://{}", lab.registry.name("gzip"));
    let source = "--src-tls-verify=false";
    skopeo(&["copy", source, &daemon, &from, "docker-daemon:fetched:1"]).ok();
    for name in ["back:1", "fetched:1"] {
        let said = lab
            .host
            .docker(&["run", "--rm", "--network=none", name, "echo", "runs"]);
        assert_eq!(said.ok(), "runs", "{name}");
    }
    assert_eq!(image_id(&lab.host, "fetched:1"), lab.id);
}

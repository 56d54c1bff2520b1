//! Image archives made from the machine's own static busybox.

use serde_json::json;
use sha2::{Digest, Sha256};

/// Applets that get a name of their own in the image.
const APPLETS: &[&str] = &[
    "cat", "chmod", "cp", "date", "dd", "df", "echo", "env", "false", "grep", "head", "hostname",
    "id", "kill", "ls", "mkdir", "mount", "printf", "ps", "pwd", "rm", "seq", "sh", "sleep",
    "stty", "tail", "touch", "tr", "true", "tty", "umount", "uname", "wc", "whoami", "yes",
];

fn add(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    header.set_entry_type(match path.ends_with('/') {
        true => tar::EntryType::Directory,
        false => tar::EntryType::Regular,
    });
    archive.append_data(&mut header, path, data).unwrap();
}

/// The tar of a root file system with busybox.
pub fn rootfs() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for directory in ["bin/", "dev/", "etc/", "proc/", "root/", "sys/", "tmp/"] {
        let mode = if directory == "tmp/" { 0o1777 } else { 0o755 };
        add(&mut archive, directory, mode, b"");
    }
    add(
        &mut archive,
        "bin/busybox",
        0o755,
        &keelson_testing::busybox::bytes().unwrap(),
    );
    for applet in APPLETS {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        archive
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    add(
        &mut archive,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    );
    add(&mut archive, "etc/group", 0o644, b"root:x:0:\n");
    add(&mut archive, "etc/not-a-program", 0o644, b"text\n");
    archive.into_inner().unwrap()
}

/// The archive of `docker save` for an image with this name.
pub fn busybox(name: &str) -> Vec<u8> {
    archive(name, &rootfs(), None)
}

/// An image archive of one layer. `diff_id` replaces the layer's true digest.
pub fn archive(name: &str, layer: &[u8], diff_id: Option<&str>) -> Vec<u8> {
    let digest = hex::encode(Sha256::digest(layer));
    let diff_id = diff_id.map_or_else(|| format!("sha256:{digest}"), str::to_owned);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "2024-05-06T07:08:09Z",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
            "Labels": {"made.by": "test"},
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": "2024-05-06T07:08:09Z", "created_by": "COPY busybox"}],
    })
    .to_string();
    let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
    let layer_name = format!("{digest}/layer.tar");
    let manifest = json!([{
        "Config": config_name, "RepoTags": [name], "Layers": [layer_name],
    }])
    .to_string();
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, &layer_name, 0o644, layer);
    add(&mut archive, &config_name, 0o644, config.as_bytes());
    add(&mut archive, "manifest.json", 0o644, manifest.as_bytes());
    archive.into_inner().unwrap()
}

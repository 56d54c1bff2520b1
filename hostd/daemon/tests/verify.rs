//! `hostctl image verify` on a running daemon.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, Host, hostctl, is_root, run};

fn verify(host: &Host, hostctl: &Path, arguments: &[&str]) -> Done {
    run(
        Command::new(hostctl)
            .args(["--host", &host.url()])
            .args(["image", "verify"])
            .args(arguments),
        b"",
    )
}

/// The largest layer's archive.
fn archive(host: &Host) -> PathBuf {
    let layers = host.path().join("root/engine/layers");
    fs::read_dir(layers)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("layer.tar"))
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap()
}

#[test]
fn a_flipped_bit_is_found_and_loading_again_heals_it() {
    let Some(hostctl) = is_root().then(hostctl).flatten() else {
        return;
    };
    let host = Host::start();
    host.load_busybox();
    let clean = verify(&host, &hostctl, &[]).ok();
    assert_eq!(clean, "1 images and 1 layers checked, 0 damaged");
    let name = ["run", "-d", "--name", "user", "busybox", "sleep", "1000"];
    host.docker(&name).ok();

    let path = archive(&host);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"\xff", 5000).unwrap();
    drop(file);
    let found = verify(&host, &hostctl, &["busybox"]);
    assert_eq!(found.code, 1, "{}", found.stderr);
    assert!(found.stderr.contains("1 damaged"), "{}", found.stderr);
    for part in ["layer sha256:", "layer.tar", "busybox:latest", "load"] {
        assert!(found.stdout.contains(part), "{}", found.stdout);
    }
    let json = verify(&host, &hostctl, &["--format", "json"]);
    assert_eq!(json.code, 1);
    let list: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(list[0]["kind"], "layer");

    host.load_busybox();
    verify(&host, &hostctl, &["busybox:latest"]).ok();
    let new = host.docker(&["run", "--rm", "busybox", "echo", "runs"]);
    assert_eq!(new.ok(), "runs");
    let missing = verify(&host, &hostctl, &["missing"]);
    assert_eq!(missing.code, 3);
    assert!(missing.stderr.contains("No such image"));
    host.docker(&["rm", "-f", "user"]).ok();
}

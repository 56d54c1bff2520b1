//! Podman, as its users call it with another runtime.

mod common;

use std::process::{Command, Stdio};

#[test]
fn podman_runs_a_container() {
    if !common::can_run() {
        return;
    }
    let installed = Command::new("podman")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("SKIPPED: needs podman");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    common::make_root(&path("rootfs"));
    // Podman asks by the program's name whether it can do without cgroups, which it must on a
    // machine whose controllers belong to version 1.
    std::os::unix::fs::symlink(common::RUNTIME, path("crun")).unwrap();
    let output = Command::new("podman")
        .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
        .arg("--root")
        .arg(path("storage"))
        .arg("--runroot")
        .arg(path("run"))
        .arg("--runtime")
        .arg(path("crun"))
        .args([
            "run",
            "--rm",
            "--cgroups=disabled",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
        ])
        .args(["--log-driver=none", "--rootfs"])
        .arg(path("rootfs"))
        .args(["sh", "-c", "cat; id -u; hostname; exit 7"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{error}");
    assert!(output.stdout.starts_with(b"0\n"), "{error}");
}

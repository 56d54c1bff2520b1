//! Binds with propagation need a source mount with propagation.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::{Host, run};

/// A directory with mounts, which are removed at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// Adds a mount on top. `kind` is its propagation.
    fn put(&self, kind: &str) {
        let make = Path::new("mount");
        run(
            Command::new(make).args(["-t", "tmpfs", "own"]).arg(&self.0),
            b"",
        )
        .ok();
        run(Command::new(make).arg(kind).arg(&self.0), b"").ok();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        while run(Command::new("umount").arg("-l").arg(&self.0), b"").code == 0 {}
    }
}

#[test]
fn the_topmost_mount_of_the_source_counts() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let path = host.path().join("mounted");
    std::fs::create_dir(&path).unwrap();
    let mounted = Mounted(path);
    let bind = |propagation: &str| {
        let bind = format!("{}:/x:{propagation}", mounted.0.display());
        host.docker(&["run", "--rm", "-v", &bind, "busybox", "true"])
    };
    let shown = mounted.0.display();
    let unshared = format!("path {shown} is mounted on {shown} but it is not a shared mount");
    let alone = format!("path {shown} is mounted on {shown} but it is not a shared or slave mount");

    mounted.put("--make-private");
    for (propagation, words) in [
        ("rshared", &unshared),
        ("shared", &unshared),
        ("rslave", &alone),
        ("slave", &alone),
    ] {
        bind(propagation).fails_with(words);
    }
    bind("rprivate").ok();
    mounted.put("--make-shared");
    for propagation in ["rshared", "shared", "rslave", "slave"] {
        bind(propagation).ok();
    }
    mounted.put("--make-private");
    bind("shared").fails_with(&unshared);
    bind("slave").fails_with(&alone);
}

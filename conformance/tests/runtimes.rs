//! Runs every case against our runtime and those of the distribution. `KEELSON_BIN_DIR` names the
//! folder of keelson-runtime (default: where cargo put this package's program).

use std::path::{Path, PathBuf};
use std::process::Command;

fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
}

#[test]
fn our_runtime_passes_what_another_passes() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_conformance"));
    let folder = match std::env::var_os("KEELSON_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => program.parent().unwrap().to_owned(),
    };
    let ours = folder.join("keelson-runtime");
    assert!(ours.is_file(), "{} is missing: build it", ours.display());
    let mut command = Command::new(program);
    for name in ["runc", "crun"] {
        match installed(name) {
            Some(path) => {
                command.arg("--runtime").arg(path);
            }
            None => eprintln!("{name} is not installed; not compared"),
        }
    }
    let output = command.arg("--runtime").arg(ours).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    println!("{table}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "see the table");
    // A run in which nothing could be checked is no success.
    assert!(table.contains("keelson-runtime passes every case"));
}

//! Runs every case against our runtime and those of the distribution, and against two programs that
//! are no runtimes. `KEELSON_BIN_DIR` names the directory of keelson-runtime (default: where cargo put
//! this package's program).

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keelson_testing::is_root;
use serde_json::Value;

fn conformance() -> Command {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
}

fn installed(name: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn ours() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_conformance"));
    let directory = match std::env::var_os("KEELSON_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => program.parent().unwrap().to_owned(),
    };
    let ours = directory.join("keelson-runtime");
    assert!(ours.is_file(), "{} is missing: build it", ours.display());
    ours
}

#[test]
fn our_runtime_passes_every_case() {
    if !is_root() {
        return;
    }
    let mut command = conformance();
    // Most of the time is spent waiting for programs that don't answer.
    command.args(["--jobs", "4"]);
    for name in ["runc", "crun"] {
        match installed(name) {
            Some(path) => {
                command.arg("--runtime").arg(path);
            }
            None => eprintln!("{name} is not installed; not compared"),
        }
    }
    let output = command.arg("--runtime").arg(ours()).output().unwrap();
    let table = shown(&output);
    println!("{table}");
    assert!(output.status.success(), "see the table");
    // A run in which nothing could be checked must not succeed.
    assert!(table.contains("keelson-runtime passes every case"));
}

/// Runs the suite against a shell script instead of a runtime, and returns the cases that it
/// passes.
fn passed_by(script: &str) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("impostor");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let json = directory.path().join("results.json");
    let output = conformance()
        .args(["--subject", "impostor", "--deadline", "1", "--jobs", "24"])
        .arg("--runtime")
        .arg(&program)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let results: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let cases = results.as_array().unwrap();
    assert!(cases.len() > 400, "{} cases", cases.len());
    let path = program.to_str().unwrap();
    cases
        .iter()
        .filter(|case| case["results"][path]["verdict"] == "pass")
        .map(|case| case["case"].as_str().unwrap().to_owned())
        .collect()
}

const NONE: [String; 0] = [];

#[test]
fn a_program_that_always_fails_passes_nothing() {
    if is_root() {
        assert_eq!(passed_by("exit 1"), NONE);
        // A text that many errors contain proves nothing either.
        let script = "echo \"container does not exist: $*\" >&2; exit 1";
        assert_eq!(passed_by(script), NONE);
    }
}

#[test]
fn a_program_that_always_succeeds_passes_nothing() {
    if is_root() {
        assert_eq!(passed_by("exit 0"), NONE);
        assert_eq!(passed_by("echo \"{}\"; exit 0"), NONE);
    }
}

#[test]
fn a_subject_that_is_not_there_is_no_success() {
    if is_root() {
        let output = conformance()
            .args(["--runtime", "/bin/true", "--filter", "cli.list.empty"])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{}", shown(&output));
        assert!(shown(&output).contains("--subject"), "{}", shown(&output));
    }
}

#[test]
fn our_runtime_passes_what_applies_to_an_ordinary_user() {
    if !is_root() {
        return;
    }
    let mut command = conformance();
    // The other runtimes are left out: only the page needs them, and they would take time.
    command.args(["--rootless", "--jobs", "4"]);
    let output = command.arg("--runtime").arg(ours()).output().unwrap();
    let table = shown(&output);
    println!("{table}");
    assert!(output.status.success(), "see the table");
    assert!(table.contains("keelson-runtime passes every case"));
    assert!(table.contains("rootless.state.below-runtime-dir"));
}

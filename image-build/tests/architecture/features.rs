//! Programs and tests use the same dependencies with the same features. Otherwise cargo compiles
//! half of them twice, because everything that depends on a different package is different, too.

use std::collections::BTreeSet;
use std::process::Command;

use image_build::binaries::BINARIES;
use image_build::workspace::MUSL_TARGET;

use super::root;

/// Packages that may differ.
const EXCEPTIONS: [&str; 1] = [
    // Its full tables, which the generators of tests turn on, would make programs larger.
    "regex-syntax",
];

/// Packages with their versions and features, as the resolver chooses them for a build.
fn resolved(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--prefix",
            "none",
            "--format",
            "{p} [{f}]",
        ])
        .args(["--target", MUSL_TARGET])
        .args(arguments)
        .output()
        .expect("start cargo tree");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn tests_and_programs_share_their_dependencies() {
    let mut programs = vec!["--edges", "normal,build"];
    for binary in BINARIES {
        programs.extend(["--package", binary.name]);
    }
    let programs = resolved(&programs);
    // The build tool runs on the building machine and is compiled for that.
    let tests = resolved(&["--workspace", "--exclude", "image-build"]);
    assert!(programs.len() > 100, "only {} packages", programs.len());
    let differing: Vec<&String> = programs
        .difference(&tests)
        .filter(|line| !EXCEPTIONS.contains(&line.split(' ').next().unwrap_or_default()))
        .collect();
    assert!(
        differing.is_empty(),
        "with tests these have other features (see the note in Cargo.toml): {differing:#?}"
    );
}

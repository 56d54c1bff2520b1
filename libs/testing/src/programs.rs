//! Executables of other packages of the workspace, which a test runs.

use std::path::PathBuf;

/// The executable of a package: the file that an environment variable names (`KEELSON_RUNTIME` for
/// `keelson-runtime`), or the one that cargo built for the same profile as the running test.
///
/// # Panics
/// Cargo has not built it.
#[must_use]
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let variable = name.to_ascii_uppercase().replace('-', "_");
    if let Some(path) = std::env::var_os(&variable) {
        return path.into();
    }
    let own = std::env::current_exe().unwrap_or_default();
    // Tests are in a directory beside the executables.
    let directory = own.ancestors().nth(2).unwrap_or(&own);
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} does not exist: run `cargo build -p {name}`, or set {variable}",
        path.display()
    );
    path
}

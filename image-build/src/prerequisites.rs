//! Installs what this machine lacks for building, running and testing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::distribution::Distribution;
use crate::install;
pub use crate::needs::Purpose;
use crate::needs::{self, Missing, explain};
use crate::progress::{self, Step};
use crate::tools;
use crate::workspace::{MUSL_TARGET, Workspace};

/// Installs the missing packages for `purpose`, after it has printed them with the reasons, and
/// checks again.
///
/// # Errors
/// The distribution's packages are unknown, the installation fails, or something is still missing.
/// The message says what to do.
pub fn ensure(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    let survey = needs::survey(purpose);
    if !survey.missing.is_empty() {
        let distribution = Distribution::detect()?;
        if !distribution.has_debian_packages() {
            bail!(
                "{} is not known here (Debian 12, 13 and Ubuntu 22.04 and later are). Install \
                 what brings these, and try again:\n{}",
                distribution.name,
                explain(&survey.missing)
            );
        }
        if !distribution.is_supported() {
            progress::say(&format!(
                "{} is not tested; its packages are tried.",
                distribution.name
            ));
        }
        install::install(workspace, &distribution, &survey)?;
        let missing = needs::survey(purpose).missing;
        if !missing.is_empty() {
            bail!(still_missing(&missing));
        }
    }
    rust_target()?;
    if purpose >= Purpose::Test {
        rust_components()?;
    }
    Ok(())
}

fn still_missing(missing: &[Missing]) -> String {
    format!(
        "these packages were installed, and what they are to bring is still missing (is it in a \
         directory that PATH does not name?):\n{}",
        explain(missing)
    )
}

/// Whether Rust has a standard library for static executables.
fn has_rust_target() -> bool {
    Command::new("rustc")
        .args(["--print", "target-libdir", "--target", MUSL_TARGET])
        .output()
        .is_ok_and(|output| {
            let directory = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success() && Path::new(&directory).is_dir()
        })
}

/// The standard library for static executables.
fn rust_target() -> Result<()> {
    if has_rust_target() {
        return Ok(());
    }
    if tools::in_path("rustup").is_none() {
        bail!(
            "Rust's standard library for {MUSL_TARGET} is missing, and there is no rustup to add it"
        );
    }
    let step = Step::begin(format!("rustup target add {MUSL_TARGET}"));
    progress::output(Command::new("rustup").args(["target", "add", MUSL_TARGET]))?;
    if !has_rust_target() {
        bail!(
            "rustup added {MUSL_TARGET}, but to another toolchain than that of `rustc` in PATH; \
             see `rustup show` and `which rustc`"
        );
    }
    step.done("");
    Ok(())
}

/// The formatter and the linter.
fn rust_components() -> Result<()> {
    let cargo =
        |name: &str| progress::output(Command::new("cargo").args([name, "--version"])).is_ok();
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| !cargo(command))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let step = Step::begin(format!("rustup component add {}", missing.join(" ")));
    progress::output(
        Command::new("rustup")
            .args(["component", "add"])
            .args(&missing),
    )
    .context("cargo test needs rustfmt and clippy")?;
    step.done("");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_after_all_is_named() {
        let text = still_missing(&[Missing {
            package: "qemu-utils",
            reason: "qemu-img makes and checks disk images".to_owned(),
        }]);
        assert!(
            text.contains("qemu-utils") && text.contains("qemu-img makes"),
            "{text}"
        );
    }
}

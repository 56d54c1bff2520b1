//! `cargo xtask test`: everything in order, with a summary of what failed.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, TargetKind};

use crate::prerequisites::is_root;
use crate::workspace::Workspace;
use crate::{binaries, image, progress, tools};

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Formatting.
    Fmt,
    /// Lints of all targets, warnings being errors.
    Clippy,
    /// Licences, sources and forbidden dependencies, by cargo-deny where it is installed.
    Deny,
    /// Tests beside the code, and those in documentation.
    Unit,
    /// Tests of our programs on this machine, which need root.
    Host,
    /// Building the image.
    Image,
    /// Tests that boot the image in QEMU.
    Vm,
}

const ALL: [Stage; 7] = [
    Stage::Fmt,
    Stage::Clippy,
    Stage::Deny,
    Stage::Unit,
    Stage::Image,
    Stage::Host,
    Stage::Vm,
];

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Unit => "unit",
            Self::Host => "host",
            Self::Image => "image",
            Self::Vm => "vm",
        }
    }
}

/// How long one test program may run. It is many times what the slowest takes, so only one that
/// hangs meets it; the stages after it are run all the same.
const PROGRAM_LIMIT: &str = "1200";

/// The package whose tests boot virtual machines.
const VM_PACKAGE: &str = "qemu-tests";

/// How a stage ended.
#[derive(Debug)]
struct Outcome {
    stage: Stage,
    time: Duration,
    error: Option<String>,
}

/// Runs the stages in `only`, or all. A failed stage does not keep the others from running, but
/// for those that need what it makes.
///
/// # Errors
/// A stage failed; the summary has been printed then.
pub fn run(workspace: &Workspace, only: &[Stage]) -> Result<()> {
    let started = Instant::now();
    let runner = Runner::new(workspace)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for stage in ALL {
        if !only.is_empty() && !only.contains(&stage) {
            continue;
        }
        progress::say(&format!("\n== {} ==", stage.name()));
        let begun = Instant::now();
        let image_failed = outcomes
            .iter()
            .any(|outcome| outcome.stage == Stage::Image && outcome.error.is_some());
        let result = if image_failed && matches!(stage, Stage::Host | Stage::Vm) {
            Err(anyhow::anyhow!("not run, since there is no image"))
        } else {
            runner.stage(stage)
        };
        if let Err(error) = &result {
            progress::say(&format!("error: {error:#}"));
        }
        outcomes.push(Outcome {
            stage,
            time: begun.elapsed(),
            error: result.err().map(|error| format!("{error:#}")),
        });
    }
    progress::say(&summary(&outcomes, started.elapsed()));
    let failed: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| outcome.error.is_some())
        .map(|outcome| outcome.stage.name())
        .collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn summary(outcomes: &[Outcome], total: Duration) -> String {
    let mut text = String::from("\n== summary ==\n");
    for outcome in outcomes {
        let verdict = match &outcome.error {
            None => "ok",
            Some(error) => error.lines().next().unwrap_or("failed"),
        };
        text.push_str(&format!(
            "{:<8} {:>7.1} s  {verdict}\n",
            outcome.stage.name(),
            outcome.time.as_secs_f64()
        ));
    }
    text.push_str(&format!("{:<8} {:>7.1} s", "together", total.as_secs_f64()));
    text
}

struct Runner<'a> {
    workspace: &'a Workspace,
    cargo: OsString,
    metadata: Metadata,
}

impl<'a> Runner<'a> {
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .current_dir(workspace.root())
            .no_deps()
            .exec()
            .context("cargo metadata")?;
        Ok(Self {
            workspace,
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            metadata,
        })
    }

    fn stage(&self, stage: Stage) -> Result<()> {
        match stage {
            Stage::Fmt => self.cargo("fmt", &["fmt", "--all", "--check"]),
            Stage::Clippy => self.cargo(
                "clippy",
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ],
            ),
            Stage::Deny => self.deny(),
            Stage::Unit => {
                self.cargo(
                    "test-unit",
                    &["test", "--workspace", "--no-fail-fast", "--lib", "--bins"],
                )?;
                self.cargo(
                    "test-doc",
                    &["test", "--workspace", "--no-fail-fast", "--doc"],
                )
            }
            Stage::Image => image::build(self.workspace, image::Options::default()).map(drop),
            Stage::Host => self.integration("test-host", |package| package != VM_PACKAGE),
            Stage::Vm => {
                if !self.workspace.image().join("disk.raw").exists() {
                    image::build(self.workspace, image::Options::default())?;
                }
                binaries::build_testers(self.workspace)?;
                self.integration("test-vm", |package| package == VM_PACKAGE)
            }
        }
    }

    /// cargo-deny takes minutes to compile, so it is not installed for this; what matters most, the
    /// licences of what is linked, is held by a test of this package too. Advisories are a matter
    /// of the day and not of the sources: `cargo deny check advisories`, by whoever releases.
    fn deny(&self) -> Result<()> {
        let present = Command::new(&self.cargo)
            .args(["deny", "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !present {
            progress::say("cargo-deny is not installed (cargo install cargo-deny); passed over.");
            return Ok(());
        }
        self.cargo("deny", &["deny", "check", "bans", "licenses", "sources"])
    }

    /// The integration tests of the packages that `wanted` chooses. The whole workspace stays
    /// selected, since cargo would otherwise build dependencies with another choice of features
    /// once more.
    fn integration(&self, log: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
        for package in &self.metadata.packages {
            if !wanted(package.name.as_ref()) {
                continue;
            }
            for target in &package.targets {
                if target.kind.contains(&TargetKind::Test) {
                    arguments.extend(["--test", target.name.as_str()]);
                }
            }
        }
        if !arguments.contains(&"--test") {
            progress::say("There are no such tests.");
            return Ok(());
        }
        if !self.workspace.binaries().join("hostd").exists() {
            binaries::build(self.workspace)?;
        }
        self.cargo(log, &arguments)
    }

    fn cargo(&self, log: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(self.workspace.root())
            .args(arguments)
            .env("KEELSON_BIN_DIR", self.workspace.binaries())
            .env("KEELSON_DOCKER", tools::docker(self.workspace)?);
        if log == "test-vm" {
            command.env("KEELSON_IMAGE_DIR", self.workspace.image());
        }
        if log.starts_with("test-") {
            command.env(
                "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER",
                test_runner(
                    !is_root() && matches!(log, "test-host" | "test-vm"),
                    progress::interactive(),
                ),
            );
        }
        let log = progress::log_file(&self.workspace.log(), log);
        run_shown(&mut command, &log)
    }
}

/// What cargo calls a test program by.
fn test_runner(by_sudo: bool, interactive: bool) -> String {
    let mut words = Vec::new();
    if by_sudo {
        // The tests need root, the compiler does not.
        words.extend(["sudo", "--preserve-env"]);
    }
    words.extend(["timeout", "--kill-after=10"]);
    if interactive {
        // Else it makes a process group of its own, which Ctrl-C does not reach; that group is
        // ended as a whole.
        words.push("--foreground");
    }
    words.push(PROGRAM_LIMIT);
    words.join(" ")
}

fn run_shown(command: &mut Command, log: &Path) -> Result<()> {
    progress::say(&format!("$ {}", progress::shown(command)));
    progress::run_shown(command, log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_is_limited() {
        assert_eq!(
            test_runner(true, true),
            "sudo --preserve-env timeout --kill-after=10 --foreground 1200"
        );
        assert_eq!(test_runner(false, false), "timeout --kill-after=10 1200");
    }

    #[test]
    fn the_summary_names_what_failed() {
        let outcome = |stage, error: Option<&str>| Outcome {
            stage,
            time: Duration::from_secs(3),
            error: error.map(str::to_owned),
        };
        let text = summary(
            &[
                outcome(Stage::Fmt, None),
                outcome(Stage::Vm, Some("no QEMU\nmore")),
            ],
            Duration::from_secs(6),
        );
        assert!(text.contains("fmt          3.0 s  ok"), "{text}");
        assert!(text.contains("vm           3.0 s  no QEMU"), "{text}");
        assert!(!text.contains("more"));
    }
}

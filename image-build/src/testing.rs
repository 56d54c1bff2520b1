//! `cargo xtask test`: all tests in order, with a summary of the failures and of the time of each
//! part.
//!
//! Everything is compiled for the machine's target with the profile "quick", so that lints, tests
//! and the image's executables share compiled crates. Only this tool and its own tests are compiled
//! for the building machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cargo_metadata::{Metadata, MetadataCommand, Package, TargetKind};

use crate::privilege::is_root;
use crate::spent::Spent;
use crate::workspace::{MUSL_TARGET, Workspace};
use crate::{binaries, clients, image, progress, tools};

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Formatting.
    Fmt,
    /// Lints of all targets, warnings being errors.
    Clippy,
    /// Tests beside the code, and those in documentation.
    Unit,
    /// Building the image.
    Image,
    /// Tests of our programs on this machine, which need root.
    Host,
    /// The runtime's tests of security against the executable that is shipped.
    Security,
    /// Some seconds of each fuzz target.
    Fuzz,
    /// Tests that boot the image in QEMU.
    Vm,
}

const ALL: [Stage; 8] = [
    Stage::Fmt,
    Stage::Clippy,
    Stage::Unit,
    Stage::Image,
    Stage::Host,
    Stage::Security,
    Stage::Fuzz,
    Stage::Vm,
];

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Unit => "unit",
            Self::Image => "image",
            Self::Host => "host",
            Self::Security => "security",
            Self::Fuzz => "fuzz",
            Self::Vm => "vm",
        }
    }
}

/// How long one test program may run. It is many times the duration of the slowest, so only a
/// hanging one reaches it. The later stages run anyway.
const PROGRAM_LIMIT: &str = "1200";

/// The package whose tests boot virtual machines.
const VM_PACKAGE: &str = "qemu-tests";

/// The package of this tool. It does not run on the machine.
const TOOL_PACKAGE: &str = "image-build";

/// The package of the fuzz targets.
const FUZZ_PACKAGE: &str = "keelson-fuzz";

/// How long each fuzz target runs, in seconds.
const FUZZ_SECONDS: &str = "3";

/// The runtime's tests of a container's restrictions.
const SECURITY_TESTS: [&str; 7] = [
    "create_failures",
    "idmap",
    "isolation",
    "mounts",
    "notify",
    "security",
    "user_namespaces",
];

/// How a stage ended.
#[derive(Debug)]
struct Outcome {
    stage: Stage,
    time: Duration,
    processor: Duration,
    error: Option<String>,
}

/// Runs the stages in `only`, or all. If a stage fails, the others still run, except those that
/// need its result.
///
/// # Errors
/// A stage failed; the summary has been printed then.
pub fn run(workspace: &Workspace, only: &[Stage]) -> Result<()> {
    let whole = Spent::begin();
    let runner = Runner::new(workspace)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for stage in ALL {
        if !only.is_empty() && !only.contains(&stage) {
            continue;
        }
        progress::say(&format!("\n== {} ==", stage.name()));
        let spent = Spent::begin();
        let image_failed = outcomes
            .iter()
            .any(|outcome| outcome.stage == Stage::Image && outcome.error.is_some());
        let result = if image_failed && stage == Stage::Vm {
            Err(anyhow::anyhow!("not run, since there is no image"))
        } else {
            runner.stage(stage)
        };
        if let Err(error) = &result {
            progress::say(&format!("error: {error:#}"));
        }
        outcomes.push(Outcome {
            stage,
            time: spent.time(),
            processor: spent.processor(),
            error: result.err().map(|error| format!("{error:#}")),
        });
    }
    progress::say(&summary(&outcomes, whole.time(), whole.processor()));
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

fn summary(outcomes: &[Outcome], time: Duration, processor: Duration) -> String {
    let line = |name: &str, time: Duration, processor: Duration, verdict: &str| {
        let line = format!(
            "{name:<9} {:>7.1} s {:>9.1} s  {verdict}",
            time.as_secs_f64(),
            processor.as_secs_f64()
        );
        line.trim_end().to_owned() + "\n"
    };
    let mut text = format!(
        "\n== summary ==\n{:<9} {:>9} {:>11}\n",
        "", "clock", "processor"
    );
    for outcome in outcomes {
        let verdict = match &outcome.error {
            None => "ok",
            Some(error) => error.lines().next().unwrap_or("failed"),
        };
        text += &line(
            outcome.stage.name(),
            outcome.time,
            outcome.processor,
            verdict,
        );
    }
    text += &line("together", time, processor, "");
    text.trim_end().to_owned()
}

/// Names of a package's integration tests.
fn tests_of(package: &Package) -> impl Iterator<Item = &str> {
    (package.targets.iter())
        .filter(|target| target.kind.contains(&TargetKind::Test))
        .map(|target| target.name.as_str())
}

/// The environment of test programs.
#[derive(Default)]
struct Surroundings {
    variables: Vec<(&'static str, OsString)>,
    /// The tests need root, the compiler does not.
    as_root: bool,
}

impl Surroundings {
    fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }
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
            Stage::Clippy => {
                let all = ["clippy", "--workspace", "--all-targets"];
                let deny = ["--", "-D", "warnings"];
                let arguments = [&all[..], &self.compiled(), &deny].concat();
                self.cargo("clippy", &arguments)
            }
            Stage::Unit => self.unit(),
            Stage::Image => image::build(self.workspace, image::BuildOptions::default()).map(drop),
            Stage::Host => self.host(),
            Stage::Security => self.security(),
            Stage::Fuzz => self.fuzz(),
            Stage::Vm => {
                image::build(self.workspace, image::BuildOptions::default())?;
                binaries::build_testers(self.workspace)?;
                let surroundings = self
                    .surroundings()?
                    .with("KEELSON_IMAGE_DIR", self.workspace.image());
                self.integration("test-vm", |package| package == VM_PACKAGE, surroundings)
            }
        }
    }

    /// How everything except this tool is compiled.
    fn compiled(&self) -> [&'static str; 4] {
        let profile = self.workspace.profile().name();
        ["--profile", profile, "--target", MUSL_TARGET]
    }

    /// All packages in one selection, since cargo would otherwise build dependencies with another
    /// choice of features once more. This tool's own dependencies would change that choice.
    fn all(&self, command: &'static str) -> Vec<&'static str> {
        let mut arguments = vec![command, "--workspace", "--no-fail-fast"];
        arguments.extend(["--exclude", TOOL_PACKAGE]);
        arguments.extend(self.compiled());
        arguments
    }

    fn unit(&self) -> Result<()> {
        let surroundings = || -> Result<Surroundings> {
            Ok(Surroundings::default().with("KEELSON_BUSYBOX", tools::busybox(self.workspace)?))
        };
        let libraries = [&self.all("test")[..], &["--lib"]].concat();
        self.tests("test-libraries", &libraries, &surroundings()?)?;
        // The programs of fuzz targets have no tests, and take long to link.
        let others = ["--exclude", FUZZ_PACKAGE, "--bins"];
        let programs = [&self.all("test")[..], &others].concat();
        self.tests("test-programs", &programs, &surroundings()?)?;
        let documentation = [&self.all("test")[..], &["--doc"]].concat();
        self.tests("test-doc", &documentation, &surroundings()?)?;
        let tool = ["test", "--package", TOOL_PACKAGE, "--lib", "--bins"];
        self.tests("test-tool", &tool, &surroundings()?)
    }

    fn host(&self) -> Result<()> {
        binaries::build(self.workspace)?;
        clients::fetch(self.workspace);
        let wanted = |package: &str| package != VM_PACKAGE && package != TOOL_PACKAGE;
        let first = self.integration("test-host", wanted, self.surroundings()?);
        let tool = ["test", "--package", TOOL_PACKAGE, "--test", "*"];
        let second = self.tests("test-tool-host", &tool, &self.surroundings()?);
        first.and(second)
    }

    fn security(&self) -> Result<()> {
        let shipped = binaries::build_shipped_runtime(self.workspace)?;
        let mut arguments = self.all("test");
        for name in SECURITY_TESTS {
            arguments.extend(["--test", name]);
        }
        let surroundings = self.surroundings()?.with("KEELSON_RUNTIME", shipped);
        self.tests("test-security", &arguments, &surroundings)
    }

    fn fuzz(&self) -> Result<()> {
        let mut build = self.all("build");
        build.retain(|word| *word != "--no-fail-fast");
        let package = self.metadata.packages.iter();
        let package = package
            .into_iter()
            .find(|package| package.name.as_str() == FUZZ_PACKAGE)
            .context("the package of fuzz targets")?;
        let targets: Vec<&str> = package
            .targets
            .iter()
            .filter(|target| target.kind.contains(&TargetKind::Bin))
            .map(|target| target.name.as_str())
            .collect();
        for target in &targets {
            build.extend(["--bin", target]);
        }
        self.cargo("build-fuzz", &build)?;
        let mut failed = Vec::new();
        for target in targets {
            let mut command = Command::new(self.workspace.binaries().join(target));
            command
                .current_dir(self.workspace.root().join("fuzz"))
                .args(["--seconds", FUZZ_SECONDS]);
            let log = progress::log_file(&self.workspace.log(), &format!("fuzz-{target}"));
            if let Err(error) = progress::run_shown(&mut command, &log) {
                progress::say(&format!("error: {error:#}"));
                failed.push(target);
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        bail!("fuzz targets found something: {}", failed.join(", "))
    }

    /// The integration tests of the packages that `wanted` chooses.
    fn integration(
        &self,
        log: &str,
        wanted: impl Fn(&str) -> bool,
        surroundings: Surroundings,
    ) -> Result<()> {
        let mut arguments = self.all("test");
        let (chosen, others): (Vec<&Package>, Vec<&Package>) = (self.metadata.packages.iter())
            .filter(|package| package.name.as_str() != TOOL_PACKAGE)
            .partition(|package| wanted(package.name.as_str()));
        let others: Vec<&str> = others.into_iter().flat_map(tests_of).collect();
        for test in chosen.into_iter().flat_map(tests_of) {
            // cargo chooses by name in all packages.
            if others.contains(&test) {
                bail!("two packages have tests named {test}, so that none can be run alone");
            }
            arguments.extend(["--test", test]);
        }
        if !arguments.contains(&"--test") {
            progress::say("There are no such tests.");
            return Ok(());
        }
        self.tests(log, &arguments, &surroundings)
    }

    /// The environment of tests of our programs. The programs have been built before.
    fn surroundings(&self) -> Result<Surroundings> {
        let surroundings = Surroundings {
            as_root: true,
            ..Surroundings::default()
        };
        Ok(surroundings
            .with("KEELSON_BIN_DIR", self.workspace.binaries())
            .with("KEELSON_BUSYBOX", tools::busybox(self.workspace)?)
            .with("KEELSON_DOCKER", tools::docker(self.workspace)?)
            .with("KEELSON_CLIENTS", clients::directory(self.workspace)))
    }

    fn tests(&self, log: &str, arguments: &[&str], surroundings: &Surroundings) -> Result<()> {
        let mut command = self.command(arguments);
        let variables = surroundings.variables.iter();
        command.envs(variables.map(|(name, value)| (name, value)));
        let runner = test_runner(surroundings.as_root && !is_root(), progress::interactive());
        for target in ["GNU", "MUSL"] {
            let name = format!("CARGO_TARGET_X86_64_UNKNOWN_LINUX_{target}_RUNNER");
            command.env(name, &runner);
        }
        run_shown(&mut command, &self.log(log))
    }

    fn cargo(&self, log: &str, arguments: &[&str]) -> Result<()> {
        run_shown(&mut self.command(arguments), &self.log(log))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.current_dir(self.workspace.root()).args(arguments);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        progress::log_file(&self.workspace.log(), name)
    }
}

/// How cargo starts a test program.
fn test_runner(by_sudo: bool, interactive: bool) -> String {
    let mut words = Vec::new();
    if by_sudo {
        // The tests need root, the compiler does not.
        words.extend(["sudo", "--preserve-env"]);
    }
    words.extend(["timeout", "--kill-after=10"]);
    if interactive {
        // Otherwise `timeout` makes a process group of its own, which Ctrl-C does not reach, and
        // ends that group as a whole.
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
            processor: Duration::from_secs(5),
            error: error.map(str::to_owned),
        };
        let text = summary(
            &[
                outcome(Stage::Fmt, None),
                outcome(Stage::Vm, Some("no QEMU\nmore")),
            ],
            Duration::from_secs(6),
            Duration::from_secs(10),
        );
        assert!(
            text.contains("fmt           3.0 s       5.0 s  ok"),
            "{text}"
        );
        assert!(
            text.contains("vm            3.0 s       5.0 s  no QEMU"),
            "{text}"
        );
        assert!(!text.contains("more"));
    }
}

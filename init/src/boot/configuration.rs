//! The machine's configuration: has its layers merged, and obeys what concerns PID 1.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use keelson_config::Sources;
use keelson_model::host::SysctlValue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::identity;
use crate::modules;

/// The program that merges the layers and writes the files that they declare.
const CONFIGURE: &str = "/usr/bin/keelson-configure";
/// How long it may take. Without its result every program merges the layers by itself.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(30);
/// How long modules that the configuration names may take. They are loaded before the parameters,
/// because modules bring parameters of their own.
const MODULES_LIMIT: Duration = Duration::from_secs(10);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("execute {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{program} did not end within {} s", limit.as_secs())]
    Hangs { program: String, limit: Duration },
    #[error("{program}: {status}")]
    Failed { program: String, status: ExitStatus },
    #[error("wait for {program}: {source}")]
    Wait { program: String, source: io::Error },
}

/// Merges the layers, and sets host name, modules and parameters of the kernel.
pub(super) fn apply() -> Vec<String> {
    // Problems are in the result, and reported once, from there.
    let mut configure = Command::new(CONFIGURE);
    configure.arg("--quiet");
    let failed = run(&mut configure, CONFIGURE_LIMIT).err();
    let mut problems: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let loaded = keelson_config::current(&Sources::machine());
    problems.extend(loaded.problems.iter().map(ToString::to_string));
    problems.extend(loaded.notices.iter().cloned());
    let config = &loaded.config;
    problems.extend(identity::set_hostname(config.short_name()));
    if !config.modules.load.is_empty() {
        let mut load = Command::new(crate::PROGRAM);
        load.arg(modules::HELPER_LOAD).args(&config.modules.load);
        let failed = run(&mut load, MODULES_LIMIT).err();
        problems.extend(failed.iter().map(ToString::to_string));
    }
    problems.extend(set_parameters(Path::new("/proc/sys"), &config.sysctl));
    problems
}

/// Runs a program to its end, or kills it after the limit: the boot never waits for ever. Its
/// messages go to the console.
fn run(command: &mut Command, limit: Duration) -> Result<(), RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(source) => return Err(RunError::Start { program, source }),
    };
    // The pipe is closed when the program has ended.
    if let Some(output) = child.stdout.take() {
        let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        if matches!(poll(&mut descriptors, timeout), Ok(0)) {
            let _ = child.kill();
            // One that hangs in a driver can't be killed; the supervision reaps it.
            return Err(RunError::Hangs { program, limit });
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(RunError::Failed { program, status }),
        Err(source) => Err(RunError::Wait { program, source }),
    }
}

/// Sets the parameters below `root` and returns the problems.
fn set_parameters(root: &Path, parameters: &BTreeMap<String, SysctlValue>) -> Vec<String> {
    let set = |(name, value): (&String, &SysctlValue)| {
        let path = keelson_config::sysctl_path(name)?;
        // Only existing files: creating one would hide that the kernel has no such parameter.
        let file = fs::OpenOptions::new().write(true).open(root.join(path));
        file.and_then(|mut file| std::io::Write::write_all(&mut file, value.to_string().as_bytes()))
            .err()
            .map(|error| format!("set parameter {name} to {value}: {error}"))
    };
    parameters.iter().filter_map(set).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_and_absent_ones_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("vm")).unwrap();
        fs::write(root.path().join("vm/swappiness"), "").unwrap();
        let parameters = BTreeMap::from([
            ("vm.swappiness".to_owned(), SysctlValue::Number(10)),
            ("vm.absent".to_owned(), SysctlValue::Text("x".to_owned())),
        ]);
        let problems = set_parameters(root.path(), &parameters);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("set parameter vm.absent to x: "));
        let text = fs::read_to_string(root.path().join("vm/swappiness")).unwrap();
        assert_eq!(text, "10");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut hanging = Command::new("/proc/self/exe");
        hanging.args(["--ignored", "--exact", "boot::configuration::tests::hang"]);
        let error = run(&mut hanging, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, RunError::Hangs { .. }), "{error}");
        let error = run(
            &mut Command::new("/no/such/program"),
            Duration::from_secs(1),
        )
        .unwrap_err();
        assert!(matches!(error, RunError::Start { .. }), "{error}");
    }

    #[test]
    #[ignore = "the program that a_program_that_hangs_is_ended executes"]
    fn hang() {
        std::thread::sleep(Duration::from_secs(60));
    }
}

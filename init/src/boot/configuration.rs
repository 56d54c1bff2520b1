//! The machine's configuration: has its layers merged, and obeys what concerns PID 1.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use keelson_config::Sources;
use keelson_model::host::{MachineConfig, SysctlValue};

use super::{identity, program, storage, swap};
use crate::cmdline::CommandLine;
use crate::modules;

/// The program that merges the layers and writes the files that they declare.
const CONFIGURE: &str = "/usr/bin/keelson-configure";
/// How long it may take. Without its result every program merges the layers by itself.
const CONFIGURE_LIMIT: Duration = Duration::from_secs(30);
/// How long modules that the configuration names may take. They are loaded before the parameters,
/// because modules bring parameters of their own.
const MODULES_LIMIT: Duration = Duration::from_secs(10);

/// Merges the layers, and sets host name, modules and parameters of the kernel. Returns the result
/// and the problems.
pub(super) fn apply() -> (MachineConfig, Vec<String>) {
    // Problems are in the result, and reported once, from there.
    let mut configure = Command::new(CONFIGURE);
    configure.arg("--quiet");
    let mut problems: Vec<String> = program::succeed(&mut configure, CONFIGURE_LIMIT)
        .err()
        .map(|error| error.to_string())
        .into_iter()
        .collect();
    let loaded = keelson_config::current(&Sources::machine());
    problems.extend(loaded.problems.iter().map(ToString::to_string));
    problems.extend(loaded.notices.iter().cloned());
    let config = &loaded.config;
    problems.extend(identity::set_hostname(config.short_name()));
    if !config.modules.load.is_empty() {
        let mut load = Command::new(crate::PROGRAM);
        load.arg(modules::HELPER_LOAD).args(&config.modules.load);
        let loaded = program::succeed(&mut load, MODULES_LIMIT);
        problems.extend(loaded.err().map(|error| error.to_string()));
    }
    problems.extend(set_parameters(Path::new("/proc/sys"), &config.sysctl));
    (loaded.config, problems)
}

/// What the configuration says about file systems and swap space. What is there already stays.
pub(super) fn apply_storage(command_line: &CommandLine, config: &MachineConfig) -> Vec<String> {
    let mut problems = storage::mount_all(&config.storage);
    problems.extend(swap::apply(command_line, &config.swap));
    problems
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
}

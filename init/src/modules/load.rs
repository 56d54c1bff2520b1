//! Loads modules into the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::index::{Index, Policy, Sources, module_name};
use crate::cmdline::CommandLine;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h: the kernel decompresses the file itself.
const COMPRESSED_FILE: i32 = 4;

/// The image's file of modules to load always and modules never to load.
pub(crate) const POLICY_FILE: &str = "/usr/lib/keelson/modules.conf";

/// A module that could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    /// The file can't be opened.
    #[error("module {}: open: {source}", path.display())]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The kernel refused it.
    #[error("module {}: finit_module: {source}", path.display())]
    Insert { path: PathBuf, source: Errno },
    /// Neither an alias nor a module of this name is known.
    #[error("module {0}: not among the modules of the running kernel")]
    Unknown(String),
}

/// Options of modules: those of the configuration, and after them those on the kernel command line,
/// because the kernel obeys the last one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModuleOptions {
    configured: BTreeMap<String, String>,
    command_line: CommandLine,
}

impl ModuleOptions {
    /// Those on the command line only, as in the initrd.
    pub(crate) fn of(command_line: CommandLine) -> Self {
        Self {
            configured: BTreeMap::new(),
            command_line,
        }
    }

    /// With those of the configuration, by the names of the modules.
    pub(crate) fn with(command_line: CommandLine, configured: BTreeMap<String, String>) -> Self {
        let name = |name: String| name.replace('-', "_");
        Self {
            configured: configured
                .into_iter()
                .map(|(module, options)| (name(module), options))
                .collect(),
            command_line,
        }
    }

    fn for_module(&self, module: &str) -> String {
        let configured = self.configured.get(module).map(String::as_str);
        let given = self.command_line.module_options(module);
        let parts = [configured.unwrap_or_default().trim(), given.as_str()];
        parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Loads one module file. It is no error if the module is loaded already.
pub(crate) fn insert_file(path: &Path, options: &ModuleOptions) -> Result<(), ModuleError> {
    let file = fs::File::open(path).map_err(|source| ModuleError::Open {
        path: path.to_owned(),
        source,
    })?;
    let compressed = path.extension().is_some_and(|extension| extension != "ko");
    let name = module_name(&path.to_string_lossy()).unwrap_or_default();
    let options = CString::new(options.for_module(&name)).unwrap_or_default();
    let flags = if compressed { COMPRESSED_FILE } else { 0 };
    match rustix::system::finit_module(&file, &options, flags) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(ModuleError::Insert {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Loads modules of the running kernel by name or alias, with the modules that they need.
pub(crate) struct Loader {
    directory: PathBuf,
    index: Index,
    policy: Policy,
    options: ModuleOptions,
    /// Modules that this loader has tried, whatever the result.
    tried: BTreeSet<String>,
}

impl Loader {
    /// Reads the indexes of the running kernel's modules. Without any, nothing is ever found.
    pub(crate) fn open(options: ModuleOptions) -> Self {
        let release = rustix::system::uname();
        let directory =
            Path::new("/usr/lib/modules").join(release.release().to_string_lossy().as_ref());
        let read = |name: &str| fs::read(directory.join(name)).unwrap_or_default();
        let index = Index::parse(Sources {
            dep: &read("modules.dep"),
            alias: &read("modules.alias"),
            softdep: &read("modules.softdep"),
            builtin: &read("modules.builtin"),
        });
        Self {
            policy: Policy::parse(&fs::read(POLICY_FILE).unwrap_or_default()),
            directory,
            index,
            options,
            tried: BTreeSet::new(),
        }
    }

    /// Loads a module if the kernel's modules have it.
    pub(crate) fn load_named(&mut self, module: &str) -> Vec<ModuleError> {
        let mut errors = Vec::new();
        self.load(module, &mut errors);
        errors
    }

    /// Loads the modules that the image lists for every boot.
    pub(crate) fn load_always(&mut self) -> Vec<ModuleError> {
        let mut errors = Vec::new();
        for name in self.policy.always.clone() {
            if !self.index.is_built_in(&name) && self.index.file(&name).is_none() {
                errors.push(ModuleError::Unknown(name));
            } else {
                self.load(&name, &mut errors);
            }
        }
        errors
    }

    /// Loads the drivers of a device. A device without a driver is not an error.
    pub(crate) fn load_for_device(&mut self, modalias: &str) -> Vec<ModuleError> {
        let mut errors = Vec::new();
        for module in self.index.resolve(modalias) {
            if !self.policy.blocked.contains(&module) {
                self.load(&module, &mut errors);
            }
        }
        // If a driver finds its device unusable, that is a problem of the device, not of the boot.
        errors.retain(
            |error| !matches!(error, ModuleError::Insert { source, .. } if *source == Errno::NODEV),
        );
        errors
    }

    fn load(&mut self, module: &str, errors: &mut Vec<ModuleError>) {
        for name in self.index.order(module) {
            if !self.tried.insert(name.clone()) || Path::new("/sys/module").join(&name).exists() {
                continue;
            }
            let Some(file) = self.index.file(&name) else {
                continue;
            };
            if let Err(error) = insert_file(&self.directory.join(file), &self.options) {
                errors.push(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_the_last_word() {
        let line = CommandLine::parse(b"nbd.nbds_max=4 dm_mod.x=1");
        let configured = [("nbd", "nbds_max=3 max_part=1 "), ("dm-mod", "y=2")];
        let configured = configured.map(|(name, text)| (name.to_owned(), text.to_owned()));
        let options = ModuleOptions::with(line.clone(), BTreeMap::from(configured));
        assert_eq!(
            options.for_module("nbd"),
            "nbds_max=3 max_part=1 nbds_max=4"
        );
        assert_eq!(options.for_module("dm_mod"), "y=2 x=1");
        assert_eq!(options.for_module("zram"), "");
        assert_eq!(ModuleOptions::of(line).for_module("nbd"), "nbds_max=4");
    }
}

//! Reading one value.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes of a link's name: `IFNAMSIZ` without the zero at the end.
pub(crate) const LONGEST_NAME: usize = 15;

/// Why a driver can't be had, or what is wrong with one of its options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such driver.
    #[error("plugin {0:?} not found")]
    NoDriver(String),
    /// The driver's only network is there already.
    #[error("only one instance of {0:?} network is allowed")]
    OnlyOne(String),
    /// The driver is for several machines.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NoSwarm,
    /// A general option is neither true nor false.
    #[error("driver-opt {name:?} is not a valid bool: {value:?}, use true or false")]
    NotABool {
        /// The option.
        name: String,
        /// Its value.
        value: String,
    },
    /// An option of the driver can't be read.
    #[error("failed to parse {name} value: {value} ({remedy})")]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, or what would be right.
        remedy: String,
    },
    /// Options contradict each other or the network.
    #[error("{0}")]
    Conflict(String),
}

/// Reads the options of one network and collects what is wrong.
pub(super) struct Reader<'a> {
    options: &'a BTreeMap<String, String>,
    problems: Vec<OptionError>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(options: &'a BTreeMap<String, String>) -> Self {
        Self {
            options,
            problems: Vec::new(),
        }
    }

    pub(super) fn problems(self) -> Vec<OptionError> {
        self.problems
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.options.get(name).map(String::as_str)
    }

    /// A value that is given and understood.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.text(name)?;
        match read(value) {
            Ok(value) => Some(value),
            Err(remedy) => {
                self.problems.push(OptionError::Value {
                    name,
                    value: value.to_owned(),
                    remedy,
                });
                None
            }
        }
    }

    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> bool {
        let read = |value: &str| flag(value).ok_or_else(|| "use true or false".to_owned());
        self.value(name, read).unwrap_or(default)
    }

    pub(super) fn address<T: TryFrom<IpAddr>>(&mut self, name: &'static str) -> Option<T> {
        self.value(name, |value| {
            let address: Option<IpAddr> = value.parse().ok();
            let address = address.and_then(|address| T::try_from(address).ok());
            address.ok_or_else(|| "nil ip: use an address of the option's family".to_owned())
        })
    }

    pub(super) fn conflict(&mut self, problem: impl Into<String>) {
        self.problems.push(OptionError::Conflict(problem.into()));
    }
}

/// A truth value as Docker reads it (`strconv.ParseBool`).
pub(super) fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Checks a name for a link, by the kernel's rules (`dev_valid_name`).
///
/// # Errors
/// What would be right.
pub(crate) fn check_link_name(name: &str) -> Result<(), String> {
    // The kernel would put a number in the place of `%d`.
    let fits = |char: char| char.is_ascii_graphic() && !matches!(char, '/' | ':' | '%');
    let ok = (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(fits)
        && !matches!(name, "." | ".." | "all" | "default");
    match ok {
        true => Ok(()),
        false => Err(format!(
            "a link's name has 1 to {LONGEST_NAME} letters and digits, and is not all or default"
        )),
    }
}

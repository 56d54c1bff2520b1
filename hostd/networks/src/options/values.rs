//! Parses one value.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Longest name of a link in bytes: `IFNAMSIZ` without the final zero.
pub(crate) const LONGEST_NAME: usize = 15;

/// A problem of a driver or of one of its options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no such driver.
    #[error("plugin {0:?} not found")]
    NoDriver(String),
    /// The driver's only network exists already.
    #[error("only one instance of {0:?} network is allowed")]
    OnlyOne(String),
    /// The driver is for several machines.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NoSwarm,
    /// The value of a general option is neither true nor false.
    #[error("driver-opt {name:?} is not a valid bool: {value:?}, use true or false")]
    NotABool {
        /// The option.
        name: String,
        /// Its value.
        value: String,
    },
    /// The value of an option is wrong.
    #[error("failed to parse {name} value: {value} ({remedy})")]
    Value {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong, or what would be right.
        remedy: WrongValue,
    },
    /// Options contradict each other or the network.
    #[error("{0}")]
    Conflict(String),
}

/// What is wrong with the value of an option, or what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongValue {
    /// It is no truth value.
    #[error("use true or false")]
    Bool,
    /// It is no address of the family.
    #[error("nil ip: use an address of the option's family")]
    Address,
    /// No link can be called so.
    #[error("a link's name has 1 to {LONGEST_NAME} letters and digits, and is not all or default")]
    LinkName,
    /// The name is another link's.
    #[error("it is the loopback interface's")]
    Loopback,
    /// With a number it is no link's name any more.
    #[error("a number follows it: use at most {0} letters and digits")]
    LongPrefix(usize),
    /// There is no such mode.
    #[error("unknown gateway mode {0}: use nat, nat-unprotected, routed or isolated")]
    GatewayMode(String),
    /// No link can carry packets of that length.
    #[error("invalid MTU number: use {smallest} to {largest}, or 0 for the usual")]
    Mtu {
        /// Bytes.
        smallest: u32,
        /// Bytes.
        largest: u32,
    },
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

    /// The parsed value of an option, if it is given and correct.
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&str) -> Result<T, WrongValue>,
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
        let read = |value: &str| flag(value).ok_or(WrongValue::Bool);
        self.value(name, read).unwrap_or(default)
    }

    pub(super) fn address<T: TryFrom<IpAddr>>(&mut self, name: &'static str) -> Option<T> {
        self.value(name, |value| {
            let address: Option<IpAddr> = value.parse().ok();
            let address = address.and_then(|address| T::try_from(address).ok());
            address.ok_or(WrongValue::Address)
        })
    }

    pub(super) fn conflict(&mut self, problem: impl Into<String>) {
        self.problems.push(OptionError::Conflict(problem.into()));
    }
}

/// Parses a boolean like Docker does (`strconv.ParseBool`).
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
pub(crate) fn check_link_name(name: &str) -> Result<(), WrongValue> {
    // The kernel would put a number in the place of `%d`.
    let fits = |char: char| char.is_ascii_graphic() && !matches!(char, '/' | ':' | '%');
    let ok = (1..=LONGEST_NAME).contains(&name.len())
        && name.chars().all(fits)
        && !matches!(name, "." | ".." | "all" | "default");
    match ok {
        true => Ok(()),
        false => Err(WrongValue::LinkName),
    }
}

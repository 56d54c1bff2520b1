//! Reads arguments. Written by hand, because a container's start is measured in microseconds.

use std::collections::VecDeque;

use crate::failure::Failure;

/// Arguments not yet read. `--name=value` comes as `--name`, then its value.
#[derive(Debug)]
pub(crate) struct Arguments {
    rest: VecDeque<String>,
    /// The value that came with the option that was read last.
    attached: Option<String>,
}

impl Arguments {
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        Self {
            rest: arguments.into(),
            attached: None,
        }
    }

    /// The next option or argument.
    pub(crate) fn next(&mut self) -> Option<String> {
        let argument = self.rest.pop_front()?;
        self.attached = None;
        if argument.starts_with("--")
            && let Some((name, value)) = argument.split_once('=')
        {
            self.attached = Some(value.to_owned());
            return Some(name.to_owned());
        }
        Some(argument)
    }

    /// The value of the option that was read last.
    pub(crate) fn value(&mut self, option: &str) -> Result<String, Failure> {
        self.attached
            .take()
            .or_else(|| self.rest.pop_front())
            .ok_or_else(|| Failure::invalid(format!("{option} needs a value")))
    }

    /// The value of a switch: present, or given as `--name=false`.
    pub(crate) fn switch(&mut self) -> bool {
        self.attached.take().is_none_or(|value| value != "false")
    }

    /// Whether the next argument asks for help.
    pub(crate) fn asks_for_help(&self) -> bool {
        let next = self.rest.front().map(String::as_str);
        matches!(next, Some("--help" | "-h"))
    }

    /// All arguments that were not read yet, unchanged.
    pub(crate) fn remaining(self) -> Vec<String> {
        self.rest.into()
    }

    /// Splits the arguments after the first one that is no option: the rest is for another program.
    /// `with_value` names the options that have a value.
    pub(crate) fn split_after_first(self, with_value: &[&str]) -> (Self, Vec<String>) {
        let mut own: Vec<String> = self.rest.into();
        let mut position = 0;
        while let Some(argument) = own.get(position) {
            position += match argument {
                option if with_value.contains(&option.as_str()) => 2,
                _ => 1,
            };
            if !argument.starts_with('-') {
                break;
            }
        }
        let rest = own.split_off(position.min(own.len()));
        (Self::new(own), rest)
    }

    /// Looks for the value of an option without reading it.
    pub(crate) fn leading_value(&self, option: &str) -> Option<String> {
        let mut rest = self.rest.iter();
        while let Some(argument) = rest.next() {
            if argument == option {
                return rest.next().cloned();
            }
            let value = argument
                .strip_prefix(option)
                .and_then(|rest| rest.strip_prefix('='));
            if value.is_some() {
                return value.map(str::to_owned);
            }
        }
        None
    }
}

/// Reads the options of a command and returns the other arguments. `take` handles an option, and
/// returns whether it knows the option.
pub(crate) fn read(
    mut arguments: Arguments,
    mut option: impl FnMut(&str, &mut Arguments) -> Result<bool, Failure>,
) -> Result<Vec<String>, Failure> {
    let mut positional = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            positional.extend(arguments.rest.drain(..));
        } else if argument.len() > 1 && argument.starts_with('-') && !is_number(&argument) {
            if !option(&argument, &mut arguments)? {
                return Err(Failure::invalid(format!("unknown option {argument}")));
            }
        } else {
            positional.push(argument);
        }
    }
    Ok(positional)
}

fn is_number(argument: &str) -> bool {
    argument.parse::<i64>().is_ok()
}

/// The only positional argument: a container's identifier.
pub(crate) fn only_id(positional: Vec<String>) -> Result<String, Failure> {
    match <[String; 1]>::try_from(positional) {
        Ok([id]) => Ok(id),
        Err(given) => Err(Failure::invalid(format!(
            "exactly one container id is needed, {} arguments were given",
            given.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(list: &[&str]) -> Arguments {
        Arguments::new(list.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn options_and_arguments_mix() {
        let mut bundle = String::new();
        let mut all = false;
        let list = arguments(&["--bundle=/a=b", "id", "--all", "--", "-x"]);
        let positional = read(list, |name, rest| {
            match name {
                "--bundle" => bundle = rest.value(name)?,
                "--all" => all = rest.switch(),
                _ => return Ok(false),
            }
            Ok(true)
        })
        .unwrap();
        assert_eq!((bundle.as_str(), all), ("/a=b", true));
        assert_eq!(positional, ["id", "-x"]);
        assert!(read(arguments(&["--no"]), |_, _| Ok(false)).is_err());
    }

    #[test]
    fn the_log_option_is_found_before_anything_is_read() {
        let list = arguments(&["--root", "/x", "--log=/y", "start"]);
        assert_eq!(list.leading_value("--log").as_deref(), Some("/y"));
        assert_eq!(list.leading_value("--log-format"), None);
    }
}

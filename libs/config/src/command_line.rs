//! The layer of the kernel command line: `keelson.config.KEY=VALUE`.

use std::path::Path;

use toml::{Table, Value};

use crate::layer::{Layer, parse};
use crate::problem::Problem;

/// What parameters of the configuration begin with.
const PREFIX: &str = "keelson.config.";
/// How the layer is called in messages.
const NAME: &str = "kernel command line";

/// The layer in a kernel command line. A value that is not TOML is text, so that quotes are rarely
/// needed. Of two parameters for one key the later one counts, as for the kernel.
///
/// # Errors
/// A key or a value is wrong; the layer is then left out whole.
pub(crate) fn layer(bytes: &[u8]) -> Result<Option<Layer>, Vec<Problem>> {
    let mut settings: Vec<(String, String)> = Vec::new();
    for word in words(&String::from_utf8_lossy(bytes)) {
        let Some(setting) = word.strip_prefix(PREFIX) else {
            continue;
        };
        let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
        settings.retain(|(known, _)| known != key);
        settings.push((key.to_owned(), toml_value(value)));
    }
    if settings.is_empty() {
        return Ok(None);
    }
    let lines = settings
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"));
    let text: String = lines.collect();
    match parse(text.as_bytes(), Path::new(NAME)) {
        // The lines are ours, so they tell a person nothing.
        Ok(layer) => Ok(Some(Layer {
            lines: Default::default(),
            ..layer
        })),
        Err(problems) => Err(problems.into_iter().map(without_place).collect()),
    }
}

fn without_place(problem: Problem) -> Problem {
    Problem {
        line: None,
        column: None,
        ..problem
    }
}

fn toml_value(text: &str) -> String {
    let as_it_is = format!("value = {text}\n");
    let one_value = as_it_is
        .parse::<Table>()
        .is_ok_and(|table| table.len() == 1);
    match one_value && !text.contains('\n') {
        true => text.to_owned(),
        false => Value::String(text.to_owned()).to_string(),
    }
}

/// Splits as the kernel does: double quotes protect blanks, and vanish if they stand around the
/// whole word or the whole value.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted) = (String::new(), false);
    for character in text.chars().chain([' ']) {
        match character {
            c if !quoted && (c.is_ascii_whitespace() || c == '\0') => {
                if !word.is_empty() {
                    words.push(unquoted(&word));
                    word.clear();
                }
            }
            c => {
                quoted ^= c == '"';
                word.push(c);
            }
        }
    }
    words
}

fn unquoted(word: &str) -> String {
    let inner = |text: &str| {
        let inner = text.strip_prefix('"')?;
        Some(inner.strip_suffix('"').unwrap_or(inner).to_owned())
    };
    if let Some(inner) = inner(word) {
        return inner;
    }
    match word.split_once('=') {
        Some((key, value)) => match inner(value) {
            Some(value) => format!("{key}={value}"),
            None => word.to_owned(),
        },
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_a_layer() {
        let line = b"root=/dev/vda quiet keelson.config.hostname=a keelson.config.hostname=node-1 \
                     keelson.config.network.nameservers=[\"192.0.2.1\"] \
                     keelson.config.engine.stop_timeout=5 keelson.config.engine.init \
                     keelson.config.sysctl.\"vm.swappiness\"=10\n";
        let layer = layer(line).unwrap().unwrap();
        let expected: Table = "hostname = 'node-1'\nnetwork.nameservers = ['192.0.2.1']\n\
                               engine.stop_timeout = 5\nengine.init = true\nsysctl.\"vm.swappiness\" = 10"
            .parse()
            .unwrap();
        assert_eq!(layer.table, expected);
    }

    #[test]
    fn quotes_protect_blanks() {
        let line = b"\"keelson.config.hostname=a b\" keelson.config.fqdn=\"c d\"";
        let problems = layer(line).unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            text[0].starts_with("kernel command line: field hostname"),
            "{text:?}"
        );
        assert!(text.iter().any(|line| line.contains("\"c d\"")), "{text:?}");
    }

    #[test]
    fn nothing_of_ours_is_no_layer() {
        assert_eq!(layer(b"root=LABEL=root keelson.watchdog=5").unwrap(), None);
        assert_eq!(layer(b"").unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = layer(&bytes);
        }
    }
}

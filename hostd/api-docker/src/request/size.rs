//! Bounds the bytes of a request: it stays in memory as long as the container exists.

use std::io;

use hostd_containers::check_strings;
use keelson_model::error::ErrorKind;
use keelson_model::limits;

use super::invalid;
use crate::error::ApiError;
use crate::wire::{Config, HostConfig};

/// Checks a request. The image's part was bounded when the image was stored.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<(), ApiError> {
    labels(config)?;
    let words = config.entrypoint.iter().flatten();
    check_strings("Cmd", words.chain(config.cmd.iter().flatten()))?;
    check_strings("Env", &config.env)?;
    let size = json_size(config)? + json_size(host)?;
    if size > limits::CONFIGURATION {
        return invalid(format!(
            "the container's configuration has {size} bytes, at most {} are allowed: shorten Env, \
             Cmd or Labels",
            limits::CONFIGURATION
        ));
    }
    Ok(())
}

fn labels(config: &Config) -> Result<(), ApiError> {
    let pairs = config.labels.iter();
    let size: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
    if size > limits::LABELS {
        return invalid(format!(
            "Labels have {size} bytes, at most {} are allowed",
            limits::LABELS
        ));
    }
    Ok(())
}

/// Counts the bytes of a value as JSON.
fn json_size(value: &impl serde::Serialize) -> Result<usize, ApiError> {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_err(|error| {
        ApiError::new(
            ErrorKind::Internal,
            format!("configuration as JSON: {error}"),
        )
    })?;
    Ok(count.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_counts() {
        let host = HostConfig::default();
        let fits = |config: &Config| check(config, &host);
        let mut config = Config::default();
        config
            .labels
            .insert("a".to_owned(), "x".repeat(limits::LABELS - 1));
        fits(&config).unwrap();
        config.labels.insert("b".to_owned(), String::new());
        assert!(
            fits(&config)
                .unwrap_err()
                .to_string()
                .contains("Labels have")
        );
        let long = Config {
            env: vec![format!("A={}", "x".repeat(limits::STRING))],
            ..Config::default()
        };
        assert!(fits(&long).unwrap_err().to_string().starts_with("Env: "));
        let many = Config {
            cmd: Some(vec!["x".repeat(100_000); 30]),
            ..Config::default()
        };
        let error = fits(&many).unwrap_err().to_string();
        assert!(error.contains("configuration has"), "{error}");
    }
}

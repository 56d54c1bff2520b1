//! Options of the log.

use keelson_model::container::LogConfig;
use keelson_model::host::EngineConfig;

use super::invalid;
use crate::EngineError;

/// Drivers that Docker has and we have not.
const OTHERS: [&str; 9] = [
    "awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "none", "splunk", "syslog",
];

/// How big a log becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogLimits {
    pub(crate) max_size: u64,
    pub(crate) max_files: u32,
}

/// The limits of a container's log.
pub(crate) fn log_limits(
    config: &LogConfig,
    defaults: &EngineConfig,
) -> Result<LogLimits, EngineError> {
    if !matches!(config.r#type.as_str(), "" | "json-file" | "local") {
        if !OTHERS.contains(&config.r#type.as_str()) {
            return invalid(format!(
                "logger: no log driver named '{}' is registered",
                config.r#type
            ));
        }
        return Err(EngineError::NotImplemented(format!(
            "logging driver {:?} is not implemented",
            config.r#type
        )));
    }
    let mut limits = LogLimits {
        max_size: defaults.log_max_size,
        max_files: defaults.log_max_files.max(1),
    };
    for (name, value) in &config.config {
        match name.as_str() {
            "max-size" => limits.max_size = parse_size(value)?,
            "max-file" => match value.parse() {
                Ok(number) if number > 0 => limits.max_files = number,
                _ => return invalid(format!("invalid value for log-opt max-file: {value}")),
            },
            "mode" if value == "blocking" => {}
            _ => {
                return Err(EngineError::NotImplemented(format!(
                    "log-opt {name} is not implemented (value {value:?})"
                )));
            }
        }
    }
    Ok(limits)
}

/// `10m`, `64k`, `1g`, `4096`, `-1` for no limit.
fn parse_size(text: &str) -> Result<u64, EngineError> {
    if text == "-1" {
        return Ok(u64::MAX);
    }
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match plain.as_bytes().last() {
        Some(b'k') => (plain.trim_end_matches('k'), 1 << 10),
        Some(b'm') => (plain.trim_end_matches('m'), 1 << 20),
        Some(b'g') => (plain.trim_end_matches('g'), 1 << 30),
        _ => (plain, 1_u64),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|size| *size > 0)
        .ok_or_else(|| EngineError::Invalid(format!("invalid size: '{text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("10m", 10 << 20),
            ("64K", 64 << 10),
            ("1gb", 1 << 30),
            ("5", 5),
        ] {
            assert_eq!(parse_size(text).unwrap(), size);
        }
        assert_eq!(parse_size("-1").unwrap(), u64::MAX);
        for text in ["", "m", "0", "-2", "1t", "99999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}

//! Options of a container's log.

use keelson_model::spec::LogSpec;

use super::invalid;
use crate::error::ApiError;
use crate::offers::LOG_DRIVERS;
use crate::wire::LogConfig;

/// Drivers that Docker has and this engine does not have.
const OTHERS: [&str; 9] = [
    "awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "none", "splunk", "syslog",
];

/// Where the output goes.
pub(super) fn log(config: &LogConfig) -> Result<LogSpec, ApiError> {
    let driver = config.r#type.as_str();
    if !driver.is_empty() && !LOG_DRIVERS.contains(&driver) {
        if !OTHERS.contains(&driver) {
            return invalid(format!(
                "logger: no log driver named '{}' is registered",
                config.r#type
            ));
        }
        return Err(ApiError::not_built(format!(
            "logging driver {:?} is not implemented",
            config.r#type
        )));
    }
    let (mut max_size, mut max_files) = (None, None);
    for (name, value) in &config.config {
        match name.as_str() {
            "max-size" => max_size = Some(parse_size(value)?),
            "max-file" => match value.parse() {
                Ok(number) if number > 0 => max_files = Some(number),
                _ => return invalid(format!("invalid value for log-opt max-file: {value}")),
            },
            "mode" if value == "blocking" => {}
            _ => {
                return Err(ApiError::not_built(format!(
                    "log-opt {name} is not implemented (value {value:?})"
                )));
            }
        }
    }
    Ok(LogSpec::Files {
        max_size,
        max_files,
    })
}

/// `10m`, `64k`, `1g`, `4096`, `-1` for no limit.
fn parse_size(text: &str) -> Result<u64, ApiError> {
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
        .ok_or_else(|| ApiError::invalid(format!("invalid size: '{text}'")))
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

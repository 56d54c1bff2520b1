//! Where a container's output goes: logging drivers and their options.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keelson_model::spec::{LogMarks, LogSpec, SyslogFormat, SyslogServer};
use regex::RegexBuilder;

use super::invalid;
use crate::error::ApiError;
use crate::offers::{LOG_DRIVER, LOG_DRIVERS};
use crate::wire::{Config, LogConfig};

/// Drivers that Docker has and this engine does not have.
const OTHERS: [&str; 7] = [
    "awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "splunk",
];
/// Options that say what stands beside each line.
const MARKS: [&str; 5] = ["env", "env-regex", "labels", "labels-regex", "tag"];
/// Options of the drivers that keep files.
const FILES: [&str; 3] = ["compress", "max-file", "max-size"];
/// Options of the copy that other drivers keep for those who read.
const CACHE: [&str; 4] = [
    "cache-compress",
    "cache-disabled",
    "cache-max-file",
    "cache-max-size",
];
const SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];
/// Options of syslog over TLS.
const SYSLOG_TLS: [&str; 4] = [
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];
/// Memory that a compiled expression may take, in bytes.
const MAX_EXPRESSION: usize = 1 << 20;
/// The names of syslog's facilities, at the place that is their number.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// `daemon`.
const USUAL_FACILITY: u8 = 3;
/// The port of a syslog server that is named without one.
const SYSLOG_PORT: u16 = 514;

type Options = BTreeMap<String, String>;

/// Where the output goes.
pub(super) fn log(log: &LogConfig, config: &Config) -> Result<LogSpec, ApiError> {
    let (driver, options) = (log.r#type.as_str(), &log.config);
    if driver == "none" {
        return Ok(LogSpec::Nowhere);
    }
    check_mode(options)?;
    match driver {
        "" | LOG_DRIVER | "local" => files(driver, options, config),
        "syslog" => syslog(options, config),
        other => {
            let known = LOG_DRIVERS.join(", ");
            let remedy = match OTHERS.contains(&other) {
                true => format!(
                    ": Keelson has {known} and none; use one of them, and have a collector read the log from the API"
                ),
                false => String::new(),
            };
            invalid(format!(
                "logger: no log driver named '{other}' is registered{remedy}"
            ))
        }
    }
}

/// Options of every driver: what a container's process does when its output is not taken. It never
/// waits here, so both modes are the same.
fn check_mode(options: &Options) -> Result<(), ApiError> {
    let mode = options.get("mode").map(String::as_str).unwrap_or_default();
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return invalid(format!("logger: logging mode not supported: {mode}"));
    }
    if let Some(size) = options.get("max-buffer-size") {
        if mode != "non-blocking" {
            return invalid(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
            );
        }
        if parse_size(size, 1024).is_none() {
            return invalid(format!(
                "error parsing option max-buffer-size: invalid size: '{size}'"
            ));
        }
    }
    Ok(())
}

/// Refuses what a driver does not know.
fn check_names(driver: &str, options: &Options, known: &[&[&str]]) -> Result<(), ApiError> {
    let is_known = |name: &str| {
        matches!(name, "mode" | "max-buffer-size")
            || MARKS.contains(&name)
            || known.iter().any(|names| names.contains(&name))
    };
    match options.keys().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) if driver == "local" => {
            invalid(format!("unknown log opt '{name}' for log driver {driver}"))
        }
        Some(name) => invalid(format!("unknown log opt '{name}' for {driver} log driver")),
    }
}

/// The engine's own files. Both drivers keep the same ones.
fn files(driver: &str, options: &Options, config: &Config) -> Result<LogSpec, ApiError> {
    let driver = match driver {
        "" => LOG_DRIVER,
        given => given,
    };
    check_names(driver, options, &[&FILES])?;
    let max_size = match options.get("max-size").map(String::as_str) {
        None => None,
        // How Docker's documentation writes that there is no limit.
        Some("-1") => Some(u64::MAX),
        Some(text) => match parse_size(text, 1000) {
            Some(0) => return invalid("max-size must be a positive number"),
            Some(size) => Some(size),
            None => {
                return invalid(format!(
                    "invalid value for max-size: {text}: invalid size: '{text}'"
                ));
            }
        },
    };
    let max_files = match options.get("max-file") {
        None => None,
        Some(text) => match text.parse::<i64>() {
            Ok(..=0) => return invalid("max-file cannot be less than 1"),
            Ok(number) => Some(u32::try_from(number).unwrap_or(u32::MAX)),
            Err(_) => {
                return invalid(format!(
                    "invalid value for max-file: {text}: it must be a number from 1 on"
                ));
            }
        },
    };
    let compress = match options.get("compress").map(String::as_str) {
        None => false,
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        Some(text) => {
            return invalid(format!(
                "invalid boolean value for compress: {text:?}: it must be true or false"
            ));
        }
    };
    if compress && driver == "json-file" && (max_size.is_none() || max_files.unwrap_or(1) < 2) {
        return invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        );
    }
    if compress && max_files == Some(1) {
        return invalid("compression cannot be enabled when max file count is 1");
    }
    Ok(LogSpec::Files {
        max_size,
        max_files,
        marks: marks(options, config, "")?,
    })
}

fn syslog(options: &Options, config: &Config) -> Result<LogSpec, ApiError> {
    check_names("syslog", options, &[&SYSLOG, &SYSLOG_TLS, &CACHE])?;
    if let Some(name) = SYSLOG_TLS.iter().find(|name| options.contains_key(**name)) {
        return invalid(format!(
            "log-opt {name}: syslog over TLS is not implemented; send to a relay of this machine over tcp:// or unix://"
        ));
    }
    if let Some(name) = CACHE.iter().find(|name| options.contains_key(**name)) {
        return invalid(format!(
            "log-opt {name} is not implemented: the host's configuration limits the kept log"
        ));
    }
    let get = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    let facility = match get("syslog-facility") {
        "" => USUAL_FACILITY,
        text => {
            let by_name = FACILITIES.iter().position(|name| *name == text);
            let number = by_name.or_else(|| text.parse().ok().filter(|number| *number < 24));
            match number.and_then(|number| u8::try_from(number).ok()) {
                Some(number) => number,
                None => return invalid(format!("invalid syslog facility: {text:?}")),
            }
        }
    };
    let format = match get("syslog-format") {
        "" => SyslogFormat::Local,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424,
        "rfc5424micro" => SyslogFormat::Rfc5424Micro,
        other => return invalid(format!("Invalid syslog format: {other:?}")),
    };
    Ok(LogSpec::Syslog {
        server: syslog_server(get("syslog-address"))?,
        facility,
        format,
        marks: marks(options, config, "{{.ID}}")?,
    })
}

/// `udp://host:514`, `tcp://[::1]`, `unix:///dev/log`.
fn syslog_server(address: &str) -> Result<SyslogServer, ApiError> {
    if address.is_empty() {
        return Ok(SyslogServer::Local);
    }
    let wrong = |reason: &str| ApiError::invalid(format!("syslog-address {address:?}: {reason}"));
    let (scheme, rest) = address
        .split_once("://")
        .ok_or_else(|| wrong("unsupported scheme: ''"))?;
    if matches!(scheme, "unix" | "unixgram") {
        return match rest.starts_with('/') {
            true => Ok(SyslogServer::Unix(PathBuf::from(rest))),
            false => Err(wrong("the path of the socket must be absolute")),
        };
    }
    let host = rest.split('/').next().unwrap_or_default();
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let with_port = match host.rsplit_once(':') {
        _ if host.starts_with('[') && host.ends_with(']') => format!("{host}:{SYSLOG_PORT}"),
        None => format!("{host}:{SYSLOG_PORT}"),
        Some((name, number)) if port(number) && (!name.contains(':') || name.ends_with(']')) => {
            host.to_owned()
        }
        Some(_) => return Err(wrong("it must be host:port")),
    };
    if with_port.starts_with(':') {
        return Err(wrong("the host is missing"));
    }
    match scheme {
        "udp" => Ok(SyslogServer::Udp(with_port)),
        "tcp" => Ok(SyslogServer::Tcp(with_port)),
        "tcp+tls" => Err(wrong(
            "syslog over TLS is not implemented; send to a relay of this machine over tcp:// or unix://",
        )),
        other => Err(wrong(&format!("unsupported scheme: '{other}'"))),
    }
}

/// What stands beside each line: labels and variables by name or by expression, and the tag.
fn marks(options: &Options, config: &Config, usual_tag: &str) -> Result<LogMarks, ApiError> {
    let get = |name: &str| options.get(name).filter(|text| !text.is_empty());
    let tag = get("tag").map_or(usual_tag, String::as_str);
    hostd_containers::check_tag(tag)?;
    let mut attributes = BTreeMap::new();
    let variables = config.env.iter().filter_map(|entry| entry.split_once('='));
    let variables: BTreeMap<&str, &str> = variables.collect();
    let labels = config.labels.iter();
    let labels: BTreeMap<&str, &str> = labels.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for (by_name, by_expression, of) in [
        ("labels", "labels-regex", &labels),
        ("env", "env-regex", &variables),
    ] {
        let names = get(by_name).map(|text| text.split(','));
        let expression = get(by_expression).map(|text| expression(by_expression, text));
        let expression = expression.transpose()?;
        let named = names.into_iter().flatten();
        let found = of.keys().copied().filter(|name| {
            let expression = expression.as_ref();
            expression.is_some_and(|expression| expression.is_match(name))
        });
        for name in named.chain(found) {
            if let Some(value) = of.get(name) {
                attributes.insert(name.to_owned(), (*value).to_owned());
            }
        }
    }
    Ok(LogMarks {
        attributes,
        tag: tag.to_owned(),
    })
}

fn expression(option: &str, text: &str) -> Result<regex::Regex, ApiError> {
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(MAX_EXPRESSION).build().map_err(|error| {
        ApiError::invalid(format!(
            "log-opt {option}: {text:?} is no expression: {error}"
        ))
    })
}

/// `10m`, `1.5g`, `64 kB`, `4096`: the letter is a power of `base`.
fn parse_size(text: &str, base: u32) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let plain = plain.strip_suffix('i').unwrap_or(plain);
    let (digits, power) = match plain.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => {
            ((plain.get(..at)?), "kmgtp".find(letter)? + 1)
        }
        _ => (plain, 0),
    };
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    let is_number = digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = digits.parse().ok().filter(|_| is_number)?;
    let size = number * f64::from(base).powi(i32::try_from(power).ok()?);
    // What has no room in 63 bits is no size for Docker, either.
    (size < 9.2e18).then_some(size as u64)
}

#[cfg(test)]
mod tests;

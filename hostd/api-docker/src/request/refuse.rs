//! Refuses, by name, options that Keelson does not have. They pass when they have the value that clients
//! send for "not given".

use serde_json::Value;

use crate::error::ApiError;
use crate::wire::HostConfig;

/// Whether a JSON value is what clients send for "not given".
pub(super) fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.values().all(is_unset),
    }
}

/// Names the first option that was given and is not implemented.
fn refuse(options: &[(&str, bool, &dyn std::fmt::Debug)]) -> Result<(), ApiError> {
    match options.iter().find(|(_, given, _)| *given) {
        Some((name, _, value)) => Err(ApiError::not_built(format!(
            "{name} is not implemented (value {value:?})"
        ))),
        None => Ok(()),
    }
}

pub(super) fn any<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

pub(super) fn refuse_host(host: &HostConfig) -> Result<(), ApiError> {
    refuse(&[("Cgroup", !host.cgroup.is_empty(), &host.cgroup)])
}

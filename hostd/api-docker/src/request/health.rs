//! Health checks: `HEALTHCHECK` of images and `--health-*` of clients.

use std::time::Duration;

use hostd_images::ContainerDefaults;
use keelson_model::spec::HealthCheck;
use keelson_oci::config::{SHORTEST_HEALTH_TIME, USUAL_SHELL};

use super::invalid;
use super::refuse::is_unset;
use crate::error::ApiError;
use crate::wire::{Config, HealthConfig};

/// Defaults, unless the client or the image has a value.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// Checks a client's own options.
pub(super) fn check(config: &Config) -> Result<(), ApiError> {
    let Some(health) = &config.healthcheck else {
        return Ok(());
    };
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < SHORTEST_HEALTH_TIME {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if health.retries < 0 {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

/// Adds the image's values where the client has none.
pub(super) fn merge_image(
    config: &mut Config,
    image: &ContainerDefaults,
    warnings: &mut Vec<String>,
) {
    let Some(value) = image.healthcheck.as_ref().filter(|value| !is_unset(value)) else {
        return;
    };
    let image: HealthConfig = match serde_json::from_value(value.clone()) {
        Ok(health) => health,
        Err(error) => {
            warnings.push(format!("the image's HEALTHCHECK can't be read: {error}"));
            return;
        }
    };
    let Some(health) = &mut config.healthcheck else {
        config.healthcheck = Some(image);
        return;
    };
    if health.test.is_empty() {
        health.test = image.test;
    }
    for (own, others) in [
        (&mut health.interval, image.interval),
        (&mut health.timeout, image.timeout),
        (&mut health.start_period, image.start_period),
        (&mut health.start_interval, image.start_interval),
        (&mut health.retries, image.retries),
    ] {
        if *own == 0 {
            *own = others;
        }
    }
}

/// The check of a completed request; `None` if there is none.
pub(super) fn health(config: &Config) -> Result<Option<HealthCheck>, ApiError> {
    let Some(health) = &config.healthcheck else {
        return Ok(None);
    };
    let Some((kind, words)) = health.test.split_first() else {
        return Ok(None);
    };
    let command: Vec<String> = match kind.as_str() {
        "NONE" => return Ok(None),
        "CMD" => words.to_vec(),
        "CMD-SHELL" => {
            let shell = match config.shell.as_deref() {
                None | Some([]) => USUAL_SHELL.map(str::to_owned).to_vec(),
                Some(shell) => shell.to_vec(),
            };
            shell.into_iter().chain(words.iter().cloned()).collect()
        }
        other => {
            return invalid(format!(
                "Unknown healthcheck type '{other}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
            ));
        }
    };
    if words.first().is_none_or(String::is_empty) {
        return invalid(format!(
            "Healthcheck.Test: {kind} needs a command; [\"NONE\"] disables the image's check"
        ));
    }
    Ok(Some(HealthCheck {
        command,
        interval: time(health.interval).unwrap_or(INTERVAL),
        timeout: time(health.timeout).unwrap_or(TIMEOUT),
        retries: match u32::try_from(health.retries) {
            Ok(0) => RETRIES,
            Ok(retries) => retries,
            Err(_) => u32::MAX,
        },
        start_period: time(health.start_period).unwrap_or(Duration::ZERO),
        start_interval: time(health.start_interval).unwrap_or(START_INTERVAL),
    }))
}

/// Converts nanoseconds to a duration; 0 is none.
fn time(nanoseconds: i64) -> Option<Duration> {
    let nanoseconds = u64::try_from(nanoseconds).ok().filter(|time| *time > 0)?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(health: Value) -> Config {
        serde_json::from_value(json!({ "Healthcheck": health })).unwrap()
    }

    fn of(value: Value) -> Result<Option<HealthCheck>, String> {
        health(&config(value)).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_dockers() {
        let check = of(json!({"Test": ["CMD", "a", "b"]})).unwrap().unwrap();
        assert_eq!(check.command, ["a", "b"]);
        let seconds = [check.interval, check.timeout, check.start_interval].map(|t| t.as_secs());
        assert_eq!(seconds, [30, 30, 5]);
        assert_eq!((check.retries, check.start_period), (3, Duration::ZERO));
        assert_eq!(of(json!({"Test": ["NONE"]})), Ok(None));
        assert_eq!(of(json!({"Interval": SHORTEST_HEALTH_TIME})), Ok(None));
    }

    #[test]
    fn the_shell_is_the_images_or_the_default() {
        let mut config = config(json!({"Test": ["CMD-SHELL", "a || b"]}));
        let command = |config: &Config| health(config).unwrap().unwrap().command;
        assert_eq!(command(&config), ["/bin/sh", "-c", "a || b"]);
        config.shell = Some(vec!["/bin/bash".to_owned(), "-ec".to_owned()]);
        assert_eq!(command(&config), ["/bin/bash", "-ec", "a || b"]);
    }

    #[test]
    fn a_check_without_a_command_is_refused() {
        for test in [json!(["CMD"]), json!(["CMD-SHELL"]), json!(["CMD", ""])] {
            let error = of(json!({ "Test": test })).unwrap_err();
            assert!(error.contains("needs a command"), "{error}");
        }
        let error = of(json!({"Test": ["true"]})).unwrap_err();
        assert!(
            error.starts_with("Unknown healthcheck type 'true'"),
            "{error}"
        );
    }

    #[test]
    fn times_are_milliseconds_at_least() {
        for name in ["Interval", "Timeout", "StartPeriod", "StartInterval"] {
            for value in [1, SHORTEST_HEALTH_TIME - 1, -1] {
                let error = check(&config(json!({ name: value }))).unwrap_err();
                let words = format!("{name} in Healthcheck cannot be less than 1ms");
                assert_eq!(error.to_string(), words);
            }
            check(&config(json!({ name: SHORTEST_HEALTH_TIME }))).unwrap();
        }
        let error = check(&config(json!({"Retries": -1}))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Retries in Healthcheck cannot be negative"
        );
    }

    #[test]
    fn the_images_values_complete_the_clients() {
        let image = ContainerDefaults {
            healthcheck: Some(json!({"Test": ["CMD", "image"], "Interval": 7, "Retries": 2})),
            ..ContainerDefaults::default()
        };
        let merged = |health: Value| {
            let (mut config, mut warnings) = (config(health), Vec::new());
            merge_image(&mut config, &image, &mut warnings);
            assert!(warnings.is_empty());
            config.healthcheck.unwrap()
        };
        let both = merged(json!({"Interval": 9}));
        assert_eq!((both.interval, both.retries), (9, 2));
        assert_eq!(both.test, ["CMD", "image"]);
        assert_eq!(merged(Value::Null).interval, 7);
        assert_eq!(merged(json!({"Test": ["NONE"]})).test, ["NONE"]);
    }
}

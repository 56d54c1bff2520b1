//! `HEALTHCHECK NONE` and `HEALTHCHECK [options] CMD …`.

use keelson_oci::config::SHORTEST_HEALTH_TIME;
use serde_json::{Map, Value, json};

use super::BadChange;

/// The member `Healthcheck` of an image's configuration.
pub(super) fn parse(rest: &str) -> Result<Value, BadChange> {
    let mut members = Map::new();
    let mut rest = rest;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .ok_or("Missing command after HEALTHCHECK CMD")?;
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("Missing a value on flag: --{option}"))?;
        let member = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(format!("Unknown flag: {name}").into()),
        };
        let number = if name == "retries" {
            let wrong = || format!("--retries cannot be negative ({value})");
            value.parse::<u32>().map_err(|_| wrong())?.into()
        } else {
            let wrong = || format!("--{name}: {value:?} is not a duration");
            let time = duration(value).ok_or_else(wrong)?;
            if time != 0 && time < SHORTEST_HEALTH_TIME {
                return Err(format!("Interval \"{value}\" cannot be less than 1ms").into());
            }
            time
        };
        if number != 0 {
            members.insert(member.to_owned(), json!(number));
        }
        rest = after.trim_start();
    }
    let (kind, command) = rest
        .split_once(char::is_whitespace)
        .map_or((rest, ""), |(kind, command)| (kind, command.trim()));
    let test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if !command.is_empty() => {
            return Err("HEALTHCHECK NONE takes no arguments".into());
        }
        "NONE" => vec!["NONE".to_owned()],
        "CMD" if command.is_empty() => {
            return Err("Missing command after HEALTHCHECK CMD".into());
        }
        "CMD" => match serde_json::from_str::<Vec<String>>(command) {
            Ok(list) => [vec!["CMD".to_owned()], list].concat(),
            Err(_) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        _ => {
            return Err(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)").into());
        }
    };
    members.insert("Test".to_owned(), json!(test));
    Ok(Value::Object(members))
}

/// A duration as Go writes it (`1m30s`, `1.5h`, `0`), in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let plain = |c: char| c.is_ascii_digit() || ".nuµmsh".contains(c);
    if text == "0" || !text.chars().all(plain) {
        return (text == "0").then_some(0);
    }
    let duration: jiff::SignedDuration = text.parse().ok()?;
    i64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms() {
        assert_eq!(parse("NONE").unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(
            parse("cmd curl -f http://localhost || exit 1").unwrap(),
            json!({"Test": ["CMD-SHELL", "curl -f http://localhost || exit 1"]})
        );
        assert_eq!(
            parse("--interval=1m30s --timeout=500ms --start-period=1.5h --retries=3 CMD [\"a\", \"b\"]")
                .unwrap(),
            json!({
                "Test": ["CMD", "a", "b"], "Interval": 90_000_000_000_i64,
                "Timeout": 500_000_000, "StartPeriod": 5_400_000_000_000_i64, "Retries": 3,
            })
        );
        for wrong in [
            "",
            "true",
            "CMD",
            "NONE x",
            "--interval=5 CMD x",
            "--interval=5us CMD x",
            "--retries=-1 CMD x",
            "--x=1 CMD x",
            "--interval",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in "[-a-zµ0-9. =]{0,30}") {
            let _ = parse(&text);
            let _ = duration(&text);
        }
    }
}

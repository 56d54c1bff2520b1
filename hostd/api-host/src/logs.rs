//! The handlers of logs.

use std::io;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::unfold;
use hostd_logs::line::line;
use hostd_logs::{BootChoice, LogsError, LogsQuery};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use keelson_http::{Failure, reply};
use keelson_model::logs::LogPriority;

use crate::openapi::{LINES, QueryParameter};
use crate::state::{Answer, HostApi};
use crate::wire_logs;

/// The query parameters of `GET /host/v1/logs`.
pub(crate) const PARAMETERS: &[QueryParameter] = &[
    QueryParameter::new(
        "follow",
        "true: go on with new lines until the client leaves",
    ),
    QueryParameter::new("unit", "only lines of this unit; may be repeated"),
    QueryParameter::new(
        "boot",
        "only this boot: 0 for the newest, -1 for the one before, 1 for the oldest, or the beginning of an identifier",
    ),
    QueryParameter::new(
        "since",
        "nothing earlier: RFC 3339, seconds since 1970, or a time before now such as 90s, 10m, 2h30m, 3d",
    ),
    QueryParameter::new("until", "nothing later, in the same forms"),
    QueryParameter::new(
        "priority",
        "nothing less urgent: a word such as warning, or a number from 0 to 7",
    ),
    QueryParameter::new("tail", "only this many of the last lines"),
    QueryParameter::new("after", "only lines with a higher number"),
];

/// A wrong query parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum QueryError {
    #[error("there is no parameter {0:?}")]
    Unknown(String),
    #[error("{name}={value:?} is wrong: {remedy}")]
    Value {
        name: &'static str,
        value: String,
        remedy: &'static str,
    },
}

/// `GET /host/v1/logs`.
pub(crate) async fn read(api: &HostApi, request: Request<Incoming>) -> Answer {
    let query = parse(request.uri().query().unwrap_or_default(), Timestamp::now())
        .map_err(|error| Failure::invalid(error.to_string()))?;
    let lists = api.sources.logs.read(query).map_err(failure)?;
    let lists = unfold(lists, |mut lists| async {
        Some((lists.recv().await?, lists))
    });
    let bytes = lists.map(|list| {
        let list = list.map_err(io::Error::other)?;
        let mut bytes = Vec::new();
        for stored in list {
            serde_json::to_writer(&mut bytes, &wire_logs::LogLine::from(line(stored)))?;
            bytes.push(b'\n');
        }
        Ok(Bytes::from(bytes))
    });
    Ok(reply::try_stream(LINES, bytes))
}

/// `GET /host/v1/logs/boots`.
pub(crate) async fn boots(api: &HostApi, _: Request<Incoming>) -> Answer {
    let boots = api.sources.logs.boots().map_err(failure)?;
    let boots: Vec<wire_logs::LogBoot> = boots.into_iter().map(Into::into).collect();
    Ok(reply::json(StatusCode::OK, &boots))
}

/// `GET /host/v1/logs/status`.
pub(crate) async fn status(api: &HostApi, _: Request<Incoming>) -> Answer {
    let status = wire_logs::LogsStatus::from(api.sources.logs.status());
    Ok(reply::json(StatusCode::OK, &status))
}

fn failure(error: LogsError) -> Failure {
    Failure::new(error.kind(), error.to_string())
}

fn parse(text: &str, now: Timestamp) -> Result<LogsQuery, QueryError> {
    let mut query = LogsQuery::default();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        let wrong = |name, remedy| {
            let value = value.to_string();
            move || QueryError::Value {
                name,
                value,
                remedy,
            }
        };
        match &*name {
            "follow" => {
                query.follow = match &*value {
                    "true" | "1" | "" => true,
                    "false" | "0" => false,
                    _ => return Err(wrong("follow", "use true or false")()),
                }
            }
            "unit" => query.units.push(value.into_owned()),
            "boot" => query.boot = Some(boot(&value)),
            "since" => {
                let time = time(&value, now).ok_or_else(wrong("since", TIMES))?;
                query.since = Some(time);
            }
            "until" => {
                let time = time(&value, now).ok_or_else(wrong("until", TIMES))?;
                query.until = Some(time);
            }
            "priority" => {
                let priority = LogPriority::parse(&value);
                let remedy = "use a word such as warning, or a number from 0 to 7";
                query.priority = Some(priority.ok_or_else(wrong("priority", remedy))?);
            }
            "tail" => {
                let tail = value.parse().map_err(|_| wrong("tail", "use a number")());
                query.tail = Some(tail?);
            }
            "after" => {
                query.after = value
                    .parse()
                    .map_err(|_| wrong("after", "use a number")())?;
            }
            _ => return Err(QueryError::Unknown(name.into_owned())),
        }
    }
    Ok(query)
}

const TIMES: &str = "use a time such as 2026-11-30T12:00:00Z, seconds since 1970, or a time before \
     now such as 10m";

/// Short numbers count boots; anything else is an identifier.
fn boot(text: &str) -> BootChoice {
    match text.parse() {
        Ok(number) if text.len() < 8 => BootChoice::Number(number),
        _ => BootChoice::Id(text.to_owned()),
    }
}

/// Nanoseconds since 1970.
fn time(text: &str, now: Timestamp) -> Option<u64> {
    let text = text.trim();
    let civil = || {
        let time: jiff::civil::DateTime = text.parse().ok()?;
        let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(zoned.timestamp())
    };
    let seconds = || {
        let seconds: f64 = text.parse().ok().filter(|seconds: &f64| *seconds >= 0.0)?;
        let nanos = (seconds * 1e9).round();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "out of range is no timestamp"
        )]
        Timestamp::from_nanosecond(nanos as i128).ok()
    };
    let ago = || {
        now.checked_sub(jiff::SignedDuration::from_secs(ago(text)?))
            .ok()
    };
    let time = text.parse::<Timestamp>().ok();
    let time = time.or_else(civil).or_else(seconds).or_else(ago)?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// Seconds, from numbers with units: `2h30m`.
fn ago(text: &str) -> Option<i64> {
    let (mut total, mut number) = (0_i64, None);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let former: i64 = number.unwrap_or(0);
            number = Some(former.checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nanos(text: &str) -> Option<u64> {
        time(text, "2026-11-30T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn times_have_several_forms() {
        let noon = 1_796_040_000_000_000_000;
        for text in [
            "2026-11-30T12:00:00Z",
            "2026-11-30 12:00:00",
            "2026-11-30T13:00+01:00",
            "1796040000",
            "0s",
        ] {
            assert_eq!(nanos(text), Some(noon), "{text}");
        }
        assert_eq!(nanos("1796040000.5"), Some(noon + 500_000_000));
        assert_eq!(nanos("1d2h30m"), Some(noon - 95_400_000_000_000));
        for wrong in ["", "yesterday", "10", "5x", "-1", "1h2", "m"] {
            let found = nanos(wrong);
            assert!(
                found.is_none() || wrong == "10" && found == Some(10_000_000_000),
                "{wrong}"
            );
        }
    }

    #[test]
    fn wrong_parameters_are_named() {
        let now = Timestamp::UNIX_EPOCH;
        let query = parse(
            "unit=a&unit=b&boot=-1&tail=5&follow=1&priority=err&after=7",
            now,
        )
        .unwrap();
        assert_eq!(query.units, ["a", "b"]);
        assert_eq!(query.boot, Some(BootChoice::Number(-1)));
        assert_eq!((query.tail, query.follow, query.after), (Some(5), true, 7));
        assert_eq!(query.priority, Some(LogPriority::Error));
        let id = "0a1b2c3d00004000800000000000000f";
        assert_eq!(
            parse(&format!("boot={id}"), now).unwrap().boot,
            Some(BootChoice::Id(id.to_owned()))
        );
        for (text, part) in [
            ("units=a", "no parameter \"units\""),
            ("since=soon", "since=\"soon\" is wrong: use a time such as"),
            ("tail=-1", "tail"),
            ("priority=9", "priority"),
            ("follow=maybe", "true or false"),
        ] {
            let error = parse(text, now).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for parameter in PARAMETERS {
            let unknown = QueryError::Unknown(parameter.name.to_owned());
            assert_ne!(parse(&format!("{}=", parameter.name), now), Err(unknown));
        }
    }
}

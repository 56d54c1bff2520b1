//! Any bytes as a `config.json`, or changes of one that has every member: it is accepted, or
//! refused with an error that names a member. Formatted in another way, the result is the same.
//!
//! Start it with documents that engines write, and with the words of such documents:
//!   cargo +nightly fuzz run runtime_config corpus/runtime_config seeds/runtime_config \
//!       -- -dict=dictionaries/runtime_config.dict
#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;

use keelson_runtime::check;
use serde_json::{Value, json};

/// A document with every member.
static FULL: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../seeds/runtime_config/full.json")).unwrap_or_default()
});

/// Every place of it, as JSON pointers.
static PLACES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut places = Vec::new();
    collect(&FULL, "", &mut places);
    places
});

fn collect(value: &Value, pointer: &str, places: &mut Vec<String>) {
    let mut below = |key: &str, value: &Value| {
        let place = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
        collect(value, &place, places);
        places.push(place);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| below(key, value)),
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                below(&index.to_string(), value);
            }
        }
        _ => {}
    }
}

/// Replaces a value by another, chosen by three bytes.
fn changed(old: &Value, choice: [u8; 3]) -> Value {
    let [kind, first, second] = choice;
    let number = i64::from(i16::from_le_bytes([first, second]));
    match kind % 16 {
        0 => Value::Null,
        1 => json!(first % 2 == 0),
        2 => json!(number),
        3 => json!(i64::MAX - number.abs()),
        4 => json!(i64::MIN + number.abs()),
        5 => json!(u64::MAX - number.unsigned_abs()),
        6 => json!(u32::MAX as i64 + number),
        7 => json!(f64::from(first) / 3.0),
        8 => json!(""),
        9 => json!([]),
        10 => json!({}),
        11 => json!(["/\0", "..", "/proc/../x", "CAP_X", "\u{fffd}", "-1"][usize::from(first) % 6]),
        12 => json!("x".repeat(usize::from(first) * usize::from(second))),
        // A value of another place.
        13 | 14 => {
            let place = &PLACES[usize::from(u16::from_le_bytes([first, second])) % PLACES.len()];
            FULL.pointer(place).cloned().unwrap_or_default()
        }
        _ => match old {
            Value::Array(items) => Value::Array([&items[..], &items[..]].concat()),
            other => json!([other]),
        },
    }
}

/// Each five bytes are a change: the position and the new value.
fn mutated(bytes: &[u8]) -> Value {
    let mut document = FULL.clone();
    for change in bytes.chunks_exact(5).take(8) {
        let place = &PLACES[usize::from(u16::from_le_bytes([change[0], change[1]])) % PLACES.len()];
        let (parent, name) = place.rsplit_once('/').unwrap_or_default();
        if change[2] >= 240 {
            if let Some(Value::Object(members)) = document.pointer_mut(parent) {
                members.remove(name);
            }
        } else if let Some(value) = document.pointer_mut(place) {
            *value = changed(value, [change[2], change[3], change[4]]);
        }
    }
    document
}

/// The member of the first level that an error is about.
fn named(message: &str) -> &str {
    let message = message.strip_prefix("config.json: ").unwrap_or(message);
    let Some((place, _)) = message.split_once(": ") else {
        return "";
    };
    place.split(['.', '[']).next().unwrap_or_default()
}

fn judge(bytes: &[u8]) -> Result<(), String> {
    match check::config(bytes) {
        Ok(filter) => {
            assert!(filter.is_none_or(|it| (1..=4096).contains(&it.instructions.len())));
            Ok(())
        }
        Err(refusal) => {
            let message = refusal.to_string();
            // Keys may be anything here, also what stands between the parts of a message.
            let rest = message.strip_prefix("config.json: ").unwrap_or(&message);
            assert!(rest.contains(": "), "{message}");
            Err(message)
        }
    }
}

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        // What engines write begins with a bracket.
        Some((b'{' | b'[' | b'"' | b' ', _)) | None => {
            // A refused document may be accepted when it is written again, because duplicate names
            // are gone then.
            if judge(bytes).is_ok()
                && let Ok(value) = serde_json::from_slice::<Value>(bytes)
            {
                assert_eq!(judge(format!("{value:#}").as_bytes()), Ok(()));
            }
        }
        Some((_, rest)) => {
            let document = mutated(rest);
            let judged = judge(document.to_string().as_bytes());
            let again = judge(format!("{document:#}").as_bytes());
            assert_eq!(judged.is_ok(), again.is_ok(), "{judged:?} {again:?}");
            if let Err(message) = judged {
                assert!(FULL.get(named(&message)).is_some(), "{message}");
            }
        }
    }
});

//! Identifiers and names.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::EngineError;

/// First words of generated names.
const ADJECTIVES: [&str; 48] = [
    "able", "amber", "ample", "autumn", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "clear", "coastal", "cosmic", "crisp", "curious", "deep", "eager", "early",
    "earnest", "even", "fair", "fresh", "gentle", "golden", "hardy", "honest", "keen", "kind",
    "lively", "lucid", "merry", "mild", "nimble", "noble", "open", "patient", "plain", "polar",
    "quiet", "rapid", "ready", "sharp", "silver", "steady", "sunny", "swift", "tidal",
];
/// Second words: objects of the sea and of ships.
const NOUNS: [&str; 48] = [
    "albatross",
    "anchor",
    "bay",
    "beacon",
    "bow",
    "breeze",
    "buoy",
    "canvas",
    "capstan",
    "cargo",
    "compass",
    "coral",
    "cove",
    "current",
    "cutter",
    "deck",
    "dory",
    "ferry",
    "fjord",
    "galley",
    "gull",
    "halyard",
    "harbour",
    "heron",
    "island",
    "jetty",
    "kelp",
    "lagoon",
    "lantern",
    "lugger",
    "mast",
    "mooring",
    "otter",
    "pelican",
    "petrel",
    "pier",
    "quay",
    "reef",
    "rudder",
    "sail",
    "schooner",
    "sextant",
    "shoal",
    "spar",
    "tern",
    "tide",
    "trawler",
    "wake",
];

/// A new identifier: 64 random hexadecimal digits, not all decimal in the first twelve (short
/// identifiers serve as host names, and one of digits only reads as a number).
pub(crate) fn new_id() -> String {
    loop {
        let id = hex::encode(rand::rng().random::<[u8; 32]>());
        if id.bytes().take(12).any(|digit| digit.is_ascii_alphabetic()) {
            return id;
        }
    }
}

/// Whether a text is an identifier: 64 hexadecimal digits.
pub(crate) fn is_id(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit)
}

/// A name of two words; later attempts add a number.
pub(crate) fn generate(attempt: u32) -> String {
    let mut random = rand::rng();
    let first = ADJECTIVES.choose(&mut random).unwrap_or(&"plain");
    let second = NOUNS.choose(&mut random).unwrap_or(&"anchor");
    if attempt == 0 {
        return format!("{first}_{second}");
    }
    format!(
        "{first}_{second}{}",
        random.random_range(1..1000 * attempt.min(1000))
    )
}

/// Checks a client's name and removes the leading slash.
pub(crate) fn check(name: &str) -> Result<&str, EngineError> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = plain.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = plain.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    // A file name could not be longer.
    if first && rest && plain.len() <= 255 {
        Ok(plain)
    } else {
        Err(EngineError::Invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_and_identifiers_are_valid() {
        for attempt in 0..200 {
            check(&generate(attempt)).unwrap();
            let id = new_id();
            assert!(is_id(&id));
            assert!(id.get(..12).unwrap().parse::<u64>().is_err());
        }
    }

    #[test]
    fn rules_for_names() {
        assert_eq!(check("/web-1").unwrap(), "web-1");
        assert_eq!(check("A_.b").unwrap(), "A_.b");
        for name in ["", "/", "a", "-ab", ".ab", "a b", "a/b", "ä-b", "a\n"] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }
}

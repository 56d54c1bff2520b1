//! Signals (signal(7)) by name and number, for x86-64 and ARM64.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The first real-time signal that programs may use. The C library keeps the two before it.
pub const REALTIME_MIN: i32 = 34;
/// The last signal.
pub const REALTIME_MAX: i32 = 64;

/// The number of a name: `TERM`, `SIGTERM`, `sigterm`, `RTMIN`, `SIGRTMIN+3`, `RTMAX-1`. `None`:
/// there is no such signal.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(REALTIME_MIN + offset(rest, '+')?);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return Some(REALTIME_MAX - offset(rest, '-')?);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        other => other,
    };
    let signal = Signal::from_str(&format!("SIG{name}")).ok()?;
    Some(signal as i32)
}

/// Whether a program may use the signal of a number.
pub fn is_usable(number: i32) -> bool {
    matches!(number, 1..=31 | REALTIME_MIN..=REALTIME_MAX)
}

/// `` → 0, `+3` → 3.
fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    // Digits only: `parse` would accept a second sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| digits.parse::<i32>().ok()).flatten()?;
    (number <= REALTIME_MAX - REALTIME_MIN).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers() {
        for (name, expected) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("IOT", 6),
            ("CLD", 17),
            ("SIGSTKFLT", 16),
            ("PWR", 30),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("rtmax", 64),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for name in [
            "",
            "SIG",
            "15",
            "NOPE",
            "SIGSIGTERM",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMIN++1",
            "RTMIN+",
            " TERM",
        ] {
            assert_eq!(number(name), None, "{name}");
        }
        let usable = (-1..70).filter(|number| is_usable(*number)).count();
        assert_eq!(usable, 31 + 31);
    }
}

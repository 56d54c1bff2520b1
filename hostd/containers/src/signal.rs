//! Signals by name and number.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;

/// A signal number of this machine, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

/// signal(7), x86-64 and ARM64.
const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("IOT", 6),
    ("CLD", 17),
];
/// As the C library counts: the two below belong to its threads.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Signal {
    /// SIGKILL.
    pub const KILL: Self = Self(9);
    /// SIGTERM.
    pub const TERM: Self = Self(15);

    /// The number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = EngineError;

    fn try_from(number: i32) -> Result<Self, EngineError> {
        match number {
            1..=31 | RTMIN..=RTMAX => Ok(Self(number)),
            _ => Err(EngineError::Invalid(format!("invalid signal: {number}"))),
        }
    }
}

impl FromStr for Signal {
    type Err = EngineError;

    /// Accepts `15`, `TERM`, `SIGTERM`, `sigterm`, `SIGRTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::Invalid(format!("invalid signal: {text}"));
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Some(number) = digits(text) {
            number
        } else if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            *number
        } else if let Some(rest) = name.strip_prefix("RTMIN") {
            RTMIN + offset(rest, '+').ok_or_else(invalid)?
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            RTMAX - offset(rest, '-').ok_or_else(invalid)?
        } else {
            return Err(invalid());
        };
        match number {
            1..=31 | RTMIN..=RTMAX => Ok(Self(number)),
            _ => Err(invalid()),
        }
    }
}

/// `` → 0, `+3` → 3.
fn offset(rest: &str, sign: char) -> Option<i32> {
    match rest.strip_prefix(sign) {
        Some(rest) => digits(rest).filter(|number| *number <= RTMAX - RTMIN),
        None => rest.is_empty().then_some(0),
    }
}

/// Decimal digits and nothing else.
fn digits(text: &str) -> Option<i32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for Signal {
    /// The number, as Docker's events carry it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(text.parse::<Signal>().unwrap().number(), number, "{text}");
        }
        for text in [
            "", "0", "-1", "65", "32", "33", "SIG", "NOPE", "RTMIN-1", "RTMIN+31", "RTMAX+1",
            "RTMIN++1", "9 ",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}

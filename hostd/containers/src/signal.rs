//! Signals by name and number.

use std::fmt;
use std::str::FromStr;

use keelson_linux::signal;

use crate::EngineError;

/// A signal number of this machine, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(i32);

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
        match signal::is_usable(number) {
            true => Ok(Self(number)),
            false => Err(EngineError::Invalid(format!("invalid signal: {number}"))),
        }
    }
}

impl FromStr for Signal {
    type Err = EngineError;

    /// Accepts `15`, `TERM`, `SIGTERM`, `sigterm`, `SIGRTMIN+3`, `RTMAX-1`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        digits(text)
            .or_else(|| signal::number(text))
            .filter(|number| signal::is_usable(*number))
            .map(Self)
            .ok_or_else(|| EngineError::Invalid(format!("invalid signal: {text}")))
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

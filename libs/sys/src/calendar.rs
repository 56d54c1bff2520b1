//! Points in time as dates of the Gregorian calendar, in UTC.

use std::mem::MaybeUninit;

/// A date and the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    /// 1970 to 9999.
    pub year: i32,
    /// From 1.
    pub month: i32,
    /// From 1.
    pub day: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 59.
    pub second: i32,
}

impl Calendar {
    /// The time that is this many seconds after 1970 began. `None` outside of the years 1970 to
    /// 9999, which have texts and hardware clocks of the usual form.
    #[must_use]
    pub fn of(seconds: i64) -> Option<Self> {
        let mut parts = MaybeUninit::<libc::tm>::uninit();
        // SAFETY: gmtime_r reads the number and writes the structure, which both live until it
        // returns. `time_t` is an i64 for all our targets.
        let result = unsafe { libc::gmtime_r(&raw const seconds, parts.as_mut_ptr()) };
        if result.is_null() {
            return None;
        }
        // SAFETY: gmtime_r has succeeded, and then every member of the structure is set.
        let parts = unsafe { parts.assume_init() };
        // A large number has no overflow here: gmtime_r refuses it.
        let year = parts.tm_year.checked_add(1900)?;
        (1970..=9999).contains(&year).then_some(Self {
            year,
            month: parts.tm_mon + 1,
            day: parts.tm_mday,
            hour: parts.tm_hour,
            minute: parts.tm_min,
            second: parts.tm_sec,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        let of = |seconds| {
            let c = Calendar::of(seconds).unwrap();
            (c.year, c.month, c.day, c.hour, c.minute, c.second)
        };
        assert_eq!(of(0), (1970, 1, 1, 0, 0, 0));
        assert_eq!(of(951_782_399), (2000, 2, 28, 23, 59, 59));
        assert_eq!(of(951_782_400), (2000, 2, 29, 0, 0, 0));
        assert_eq!(of(1_796_018_445), (2026, 11, 30, 6, 0, 45));
        assert_eq!(of(4_107_542_399), (2100, 2, 28, 23, 59, 59));
        assert_eq!(of(4_107_542_400), (2100, 3, 1, 0, 0, 0));
        assert_eq!(of(253_402_300_799), (9999, 12, 31, 23, 59, 59));
        for outside in [-1, 253_402_300_800, i64::MAX, i64::MIN] {
            assert_eq!(Calendar::of(outside), None);
        }
    }
}

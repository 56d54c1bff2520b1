//! Hardware clocks (`Documentation/admin-guide/rtc.rst`).

use std::fs::File;
use std::os::fd::AsRawFd;

use time_of_day::Calendar;

/// `RTC_SET_TIME` of linux/rtc.h: `_IOW('p', 0x0a, struct rtc_time)`.
const RTC_SET_TIME: libc::c_ulong = 0x4024_700A;

/// `struct rtc_time` of linux/rtc.h, which is `struct tm` without its last members.
#[repr(C)]
struct RtcTime {
    second: libc::c_int,
    minute: libc::c_int,
    hour: libc::c_int,
    day: libc::c_int,
    /// From 0.
    month: libc::c_int,
    /// Since 1900.
    year: libc::c_int,
    week_day: libc::c_int,
    year_day: libc::c_int,
    daylight: libc::c_int,
}

/// Sets a hardware clock to a time in seconds since 1970, as UTC.
pub fn set(clock: &File, seconds: i64) -> Result<(), nix::Error> {
    let calendar = Calendar::of(seconds).ok_or(nix::Error::EOVERFLOW)?;
    let mut time = RtcTime {
        second: calendar.second,
        minute: calendar.minute,
        hour: calendar.hour,
        day: calendar.day,
        month: calendar.month - 1,
        year: calendar.year - 1900,
        // The kernel computes or ignores the others.
        week_day: 0,
        year_day: 0,
        daylight: 0,
    };
    // SAFETY: the structure has the kernel's layout and lives until the call returns; the
    // descriptor is open for the whole call.
    let result = unsafe { libc::ioctl(clock.as_raw_fd(), RTC_SET_TIME as _, &raw mut time) };
    nix::Error::result(result).map(drop)
}

mod time_of_day {
    /// A time of the Gregorian calendar.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Calendar {
        pub(super) year: i32,
        /// From 1.
        pub(super) month: i32,
        /// From 1.
        pub(super) day: i32,
        pub(super) hour: i32,
        pub(super) minute: i32,
        pub(super) second: i32,
    }

    impl Calendar {
        /// The time that is this many seconds after 1970 began. `None` outside of the years 1970
        /// to 9999.
        pub(super) fn of(seconds: i64) -> Option<Self> {
            let days = u32::try_from(seconds.div_euclid(86_400)).ok()?;
            let rest = i32::try_from(seconds.rem_euclid(86_400)).ok()?;
            // Howard Hinnant's `civil_from_days`: years that begin in March, in eras of 400 years.
            let shifted = days.checked_add(719_468)?;
            let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
            let year_of_era =
                (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
            let day_of_year =
                day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
            let shifted_month = (5 * day_of_year + 2) / 153;
            let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
            let month = if shifted_month < 10 {
                shifted_month + 3
            } else {
                shifted_month - 9
            };
            let year = year_of_era + era * 400 + u32::from(month <= 2);
            (year <= 9999).then_some(())?;
            Some(Self {
                year: i32::try_from(year).ok()?,
                month: i32::try_from(month).ok()?,
                day: i32::try_from(day).ok()?,
                hour: rest / 3600,
                minute: rest / 60 % 60,
                second: rest % 60,
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
            assert_eq!(Calendar::of(-1), None);
            assert_eq!(Calendar::of(i64::MAX), None);
        }
    }
}

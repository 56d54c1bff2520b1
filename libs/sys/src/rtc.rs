//! Hardware clocks (`Documentation/admin-guide/rtc.rst`).

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::calendar::Calendar;

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

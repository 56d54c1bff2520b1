//! Hardware watchdogs (`Documentation/watchdog/watchdog-api.rst`).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// `WDIOC_SETTIMEOUT` of linux/watchdog.h: `_IOWR('W', 6, int)`.
const WDIOC_SETTIMEOUT: libc::c_ulong = 0xC004_5706;
/// `WDIOC_GETTIMEOUT` of linux/watchdog.h: `_IOR('W', 7, int)`.
const WDIOC_GETTIMEOUT: libc::c_ulong = 0x8004_5707;

/// Sets the time-out of an open watchdog, in whole seconds, and returns what the driver made of
/// it: some know only a few values.
pub fn set_timeout(watchdog: &File, timeout: Duration) -> Result<Duration, nix::Error> {
    let seconds = timeout.as_secs().clamp(1, i32::MAX as u64);
    number(watchdog, WDIOC_SETTIMEOUT, seconds as libc::c_int)
}

/// The time-out of an open watchdog.
pub fn timeout(watchdog: &File) -> Result<Duration, nix::Error> {
    number(watchdog, WDIOC_GETTIMEOUT, 0)
}

fn number(
    watchdog: &File,
    request: libc::c_ulong,
    mut seconds: libc::c_int,
) -> Result<Duration, nix::Error> {
    // SAFETY: both requests read or write one int, which lives until the call returns; the
    // descriptor is open for the whole call.
    let result = unsafe { libc::ioctl(watchdog.as_raw_fd(), request as _, &raw mut seconds) };
    nix::Error::result(result)?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

//! The hardware watchdog: it resets a machine whose PID 1 does not run any more, or whose hostd
//! does not live although PID 1 restarts it (`Documentation/watchdog/watchdog-api.rst`).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::cmdline::CommandLine;
use crate::console;

/// Assumed when the driver does not report its time-out.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Asked of the driver unless `keelson.hardware_watchdog=` says otherwise: long enough for a
/// virtual machine that its host does not run for a while.
const WANTED_TIMEOUT: Duration = Duration::from_secs(60);
/// The time-out for the last phase of a stop: longer than that phase may take, so that a slow but
/// honest disk is not cut off.
pub(crate) const LAST_TIMEOUT: Duration = Duration::from_secs(180);
/// The kernel's own watchdog by a timer. It does not help when the kernel hangs, so it is taken
/// only if the machine has no other.
const SOFTWARE: &str = "Software Watchdog";
const CLASS: &str = "/sys/class/watchdog";

/// The time-out that the operator wants: `keelson.hardware_watchdog=` in seconds, else what the
/// configuration says. `None` for 0: the watchdog is left alone.
pub(crate) fn wanted(
    command_line: &CommandLine,
    configured: Option<u32>,
) -> (Option<Duration>, Option<String>) {
    let parameter = "keelson.hardware_watchdog";
    let (given, problem) = match command_line.value(parameter).map(str::parse::<u32>) {
        None => (None, None),
        Some(Ok(seconds)) => (Some(seconds), None),
        Some(Err(_)) => {
            let problem = format!("{parameter}= is not a number of seconds and is passed over");
            (None, Some(problem))
        }
    };
    let timeout = match given.or(configured) {
        None => Some(WANTED_TIMEOUT),
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.into())),
    };
    (timeout, problem)
}

/// An open watchdog. It runs while it is open.
pub(crate) struct Watchdog {
    device: File,
    /// Whether it is the kernel's own.
    software: bool,
    interval: Duration,
    next: Duration,
}

impl Watchdog {
    /// Opens the best watchdog that no other process uses, if the machine has one.
    pub(crate) fn open(timeout: Duration, now: Duration) -> Option<Self> {
        let mut present: Vec<(String, String)> = fs::read_dir(CLASS)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let identity = crate::files::first_line(entry.path().join("identity"));
                Some((
                    entry.file_name().into_string().ok()?,
                    identity.unwrap_or_default(),
                ))
            })
            .collect();
        order(&mut present);
        present.into_iter().find_map(|(name, identity)| {
            let path = Path::new("/dev").join(&name);
            let device = OpenOptions::new().write(true).open(path).ok()?;
            let mut watchdog = Self {
                software: identity == SOFTWARE,
                ..Self::on(device, USUAL_TIMEOUT)
            };
            watchdog.next = now;
            let set = watchdog.set_timeout(timeout);
            console::say(&format!(
                "watchdog {name} ({identity}) resets the machine after {} s without a sign of life",
                set.as_secs()
            ));
            Some(watchdog)
        })
    }

    /// For an open device with this time-out. It must be fed at once.
    pub(crate) fn on(device: File, timeout: Duration) -> Self {
        Self {
            device,
            software: false,
            interval: interval(timeout),
            next: Duration::ZERO,
        }
    }

    /// Whether a watchdog that is real hardware would be better.
    pub(crate) fn is_software(&self) -> bool {
        self.software
    }

    /// Sets the time-out, and returns what the driver made of it. A driver that can't change it
    /// keeps its own, and is fed accordingly.
    pub(crate) fn set_timeout(&mut self, timeout: Duration) -> Duration {
        let set = keelson_sys::watchdog::set_timeout(&self.device, timeout)
            .or_else(|_| keelson_sys::watchdog::timeout(&self.device))
            .ok()
            .filter(|set| !set.is_zero())
            .unwrap_or(USUAL_TIMEOUT);
        self.interval = interval(set);
        self.next = Duration::ZERO;
        set
    }

    /// When it must be fed next.
    pub(crate) fn deadline(&self) -> Duration {
        self.next
    }

    /// Feeds it when it is time.
    pub(crate) fn feed(&mut self, now: Duration) {
        if now >= self.next {
            // A failed write is repeated in the next turn, long before the time-out.
            let _ = self.device.write_all(b"\0");
            self.next = now + self.interval;
        }
    }

    /// Leaves it unfed, until the machine is reset or [`Self::feed`] is called again.
    pub(crate) fn starve(&mut self, now: Duration) {
        if now >= self.next {
            self.next = now + self.interval;
        }
    }

    /// Stops it: a machine that is halted must stay so. A driver may refuse that (`nowayout`);
    /// the caller hears of it by the kernel only.
    pub(crate) fn disarm(mut self) {
        let _ = self.device.write_all(b"V");
    }
}

/// A third of the time-out: two feedings may be missed.
fn interval(timeout: Duration) -> Duration {
    (timeout / 3).max(Duration::from_millis(300))
}

/// Hardware first; among equals the order of the kernel, which puts the processor's before others.
fn order(present: &mut [(String, String)]) {
    present.sort_by_key(|(name, identity)| {
        let number = name.trim_start_matches("watchdog").parse::<u32>();
        (identity == SOFTWARE, number.unwrap_or(u32::MAX))
    });
}

/// Whether the machine may live on: hostd has proved that it lives (or that it was started a short
/// time ago). `limit` is the longest absence; `None`: it may be absent forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    heard: Duration,
    limit: Option<Duration>,
    told: bool,
}

/// How many times the patience with a silent hostd the machine lives without it. In this time
/// PID 1 has killed and restarted it several times. A reset is the last means: containers run on
/// without hostd, but nobody can manage the machine.
const ABSENCES: u32 = 10;

impl Proof {
    /// Nothing was heard yet. `patience` is how long hostd may be silent before it is restarted.
    pub(crate) fn new(patience: Option<Duration>, now: Duration) -> Self {
        Self {
            heard: now,
            limit: patience.map(|patience| patience * ABSENCES),
            told: false,
        }
    }

    /// hostd gave a sign of life.
    pub(crate) fn heard(&mut self, now: Duration) {
        (self.heard, self.told) = (now, false);
    }

    /// Whether the watchdog may be fed.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        self.limit
            .is_none_or(|limit| now.saturating_sub(self.heard) < limit)
    }

    /// The warning that the watchdog is no longer fed, once per absence.
    pub(crate) fn warning(&mut self, now: Duration) -> Option<String> {
        let absent = !self.holds(now);
        let due = absent && !self.told;
        self.told = absent;
        due.then(|| {
            format!(
                "hostd has not lived for {} s; the watchdog is left to reset the machine",
                now.saturating_sub(self.heard).as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fed_thrice_within_the_time_out() {
        assert_eq!(interval(Duration::from_secs(30)), Duration::from_secs(10));
        assert!(interval(Duration::from_secs(1)) * 3 <= Duration::from_secs(1));
    }

    #[test]
    fn the_operator_sets_the_time_out() {
        let of = |text: &str, configured| wanted(&CommandLine::parse(text.as_bytes()), configured);
        assert_eq!(of("", None), (Some(WANTED_TIMEOUT), None));
        let ten = Some(Duration::from_secs(10));
        assert_eq!(of("", Some(10)), (ten, None));
        assert_eq!(of("", Some(0)), (None, None));
        assert_eq!(of("keelson.hardware_watchdog=0", Some(10)), (None, None));
        assert_eq!(of("keelson.hardware_watchdog=10", Some(0)), (ten, None));
        let (timeout, problem) = of("keelson.hardware_watchdog=x", Some(10));
        assert!(timeout == ten && problem.is_some());
    }

    #[test]
    fn hardware_comes_before_software() {
        let named = |name: &str, identity: &str| (name.to_owned(), identity.to_owned());
        let mut present = vec![
            named("watchdog0", SOFTWARE),
            named("watchdog10", "iTCO_wdt"),
            named("watchdog2", "i6300ESB timer"),
        ];
        order(&mut present);
        let names: Vec<&str> = present.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["watchdog2", "watchdog10", "watchdog0"]);
    }

    #[test]
    fn a_machine_without_hostd_is_reset_after_a_long_time() {
        let at = Duration::from_secs;
        let mut proof = Proof::new(Some(at(60)), at(5));
        assert!(proof.holds(at(604)));
        assert_eq!(proof.warning(at(604)), None);
        proof.heard(at(300));
        assert!(proof.holds(at(899)));
        assert!(!proof.holds(at(900)));
        assert!(proof.warning(at(900)).is_some());
        assert_eq!(proof.warning(at(910)), None);
        proof.heard(at(920));
        assert!(proof.holds(at(921)));
        assert!(Proof::new(None, at(0)).holds(at(1 << 40)));
    }
}

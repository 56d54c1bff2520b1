//! Measures time and processor time. On a busy machine the two differ.

use std::fmt;
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Counts from its creation.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    started: Instant,
    used: Duration,
}

impl Spent {
    /// Begins to count.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            started: Instant::now(),
            used: used(),
        }
    }

    /// Elapsed time.
    #[must_use]
    pub fn time(&self) -> Duration {
        self.started.elapsed()
    }

    /// Processor time of this program and of its ended descendants.
    #[must_use]
    pub fn processor(&self) -> Duration {
        used().saturating_sub(self.used)
    }
}

/// `12.3 s, 20.1 s of processor time`
impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} s, {:.1} s of processor time",
            self.time().as_secs_f64(),
            self.processor().as_secs_f64()
        )
    }
}

fn used() -> Duration {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN]
        .into_iter()
        .filter_map(|who| getrusage(who).ok())
        .map(|usage: Usage| duration(usage.user_time()) + duration(usage.system_time()))
        .sum()
}

fn duration(time: TimeVal) -> Duration {
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec()).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_children_use_is_counted_once_they_have_ended() {
        let spent = Spent::begin();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh")
            .args(["-c", script])
            .status();
        assert!(status.unwrap().success());
        assert!(spent.processor() > Duration::from_millis(5), "{spent}");
        assert!(spent.time() > Duration::ZERO);
    }
}

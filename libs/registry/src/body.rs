//! Waits for the pieces of a body.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};

/// At least this many bytes must arrive within the limit for a stalled body. Otherwise a server
/// that sends single bytes could delay a pull forever.
const LEAST: u64 = 1024;

/// Measures the waiting time and the bytes. Time that the receiver itself needs does not count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    stall: Duration,
    waited: Duration,
    came: u64,
}

/// Why the wait for a body was ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stalled {
    #[error("no bytes arrived for {} s", time.as_secs_f32())]
    Silent { time: Duration },
    #[error("only {bytes} bytes arrived in {} s", time.as_secs_f32())]
    Slow { bytes: u64, time: Duration },
}

impl Pace {
    pub(crate) fn new(stall: Duration) -> Self {
        Self {
            stall,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next frame of a body.
    pub(crate) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, Stalled> {
        let begun = Instant::now();
        let left = self.stall.saturating_sub(self.waited);
        let Ok(frame) = tokio::time::timeout(left, body.frame()).await else {
            return Err(match self.came {
                0 => Stalled::Silent { time: self.stall },
                bytes => Stalled::Slow {
                    bytes,
                    time: self.stall,
                },
            });
        };
        self.waited += begun.elapsed();
        if let Some(Ok(frame)) = &frame {
            self.came += frame.data_ref().map_or(0, |data| data.len() as u64);
            if self.came >= LEAST {
                *self = Self::new(self.stall);
            }
        }
        Ok(frame)
    }
}

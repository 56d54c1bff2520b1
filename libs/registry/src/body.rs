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

impl Pace {
    pub(crate) fn new(stall: Duration) -> Self {
        Self {
            stall,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// The next frame of a body. The error says why there is none.
    pub(crate) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Result<Option<Result<Frame<Bytes>, hyper::Error>>, String> {
        let begun = Instant::now();
        let left = self.stall.saturating_sub(self.waited);
        let Ok(frame) = tokio::time::timeout(left, body.frame()).await else {
            let seconds = self.stall.as_secs_f32();
            return Err(match self.came {
                0 => format!("no bytes came for {seconds} s"),
                came => format!("only {came} bytes came in {seconds} s"),
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

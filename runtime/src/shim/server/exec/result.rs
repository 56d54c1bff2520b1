//! A probe's limits, and its result.

use std::time::Duration;

use keelson_shim_protocol::{MAX_PROBE_OUTPUT, Response};

/// The limits of a probe.
#[derive(Debug, Clone, Copy)]
pub(in crate::shim::server) struct Limits {
    /// Time from the execution of its command.
    pub(in crate::shim::server) limit: Duration,
    /// Bytes of output that are kept.
    pub(in crate::shim::server) output: u32,
}

/// The result of a probe.
pub(super) struct Probe {
    limits: Limits,
    output: Vec<u8>,
    /// Its time limit has passed.
    pub(super) expired: bool,
}

impl Probe {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            output: Vec::new(),
            expired: false,
        }
    }

    pub(super) const fn limit(&self) -> Duration {
        self.limits.limit
    }

    /// Keeps output while there is room for it.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        let most = self.limits.output.min(MAX_PROBE_OUTPUT) as usize;
        let room = most.saturating_sub(self.output.len());
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.output.extend_from_slice(kept);
    }

    pub(super) fn result(self, code: i32) -> Response {
        Response::Probed {
            code: (!self.expired).then_some(code),
            output: String::from_utf8_lossy(&self.output).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_from_the_beginning_and_made_valid() {
        let mut probe = Probe::new(Limits {
            limit: Duration::ZERO,
            output: 5,
        });
        for bytes in [&b"a\xff"[..], b"cdef", b"g"] {
            probe.keep(bytes);
        }
        let expected = Response::Probed {
            code: Some(3),
            output: "a\u{fffd}cde".to_owned(),
        };
        assert_eq!(probe.result(3), expected);
    }
}

//! Descriptors of a process that will become a container's process.
//!
//! The set-up of a container uses dozens of descriptors, each for a moment. Closing them one by one
//! would be a sixth of all system calls of a start. So [`put_off`] leaves them open, and
//! [`close_others`] closes everything that is not kept. That is done before the container's process
//! reports that it is ready, so nothing in the container can see them.

use std::os::fd::{OwnedFd, RawFd};

use keelson_sys::clone;

use crate::failure::{Failure, Step};

/// Leaves a descriptor that is no longer used to [`close_others`].
pub(crate) fn put_off(fd: OwnedFd) {
    std::mem::forget(fd);
}

/// Closes every descriptor from `first` on, except those to keep. Only for a copy of the process
/// that ends by execve or _exit: the owners of the descriptors must not be used or dropped
/// afterwards.
pub(crate) fn close_others(first: u32, kept: &mut [RawFd]) -> Result<(), Failure> {
    for (from, to) in gaps(first, kept) {
        // SAFETY: see above. The callers are the two children that execute commands.
        #[allow(unsafe_code)]
        unsafe { clone::close_range(from, to) }.step(|| "close the runtime's descriptors")?;
    }
    Ok(())
}

/// The ranges from `first` on that contain none of the numbers to keep.
fn gaps(first: u32, kept: &mut [RawFd]) -> Vec<(u32, u32)> {
    kept.sort_unstable();
    let mut next = first;
    let mut gaps = Vec::new();
    for number in kept.iter().filter_map(|number| u32::try_from(*number).ok()) {
        if number < next {
            continue;
        }
        if number > next {
            gaps.push((next, number - 1));
        }
        next = number + 1;
    }
    gaps.push((next, u32::MAX));
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_what_is_kept_is_closed() {
        assert_eq!(gaps(3, &mut []), [(3, u32::MAX)]);
        assert_eq!(gaps(3, &mut [5, 3]), [(4, 4), (6, u32::MAX)]);
        assert_eq!(gaps(3, &mut [4, 5, 9]), [(3, 3), (6, 8), (10, u32::MAX)]);
        // Standard streams and the caller's descriptors stay anyway.
        assert_eq!(gaps(5, &mut [0, 4]), [(5, u32::MAX)]);
    }
}

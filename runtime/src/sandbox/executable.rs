//! Keeping containers from writing to this program's file (CVE-2019-5736).
//!
//! Until it executes the container's command, the container's first process runs this program, and
//! `/proc/PID/exe` leads to its file on the host, with the permissions of the host's mount. So the
//! program must run from a read-only mount. On an image with a read-only /usr it does, and hostd
//! executes it from a read-only copy of the mount. Elsewhere the program makes such a copy and
//! executes itself again.

use std::os::fd::AsFd;
use std::path::Path;

use keelson_sys::mount_attr;

use crate::failure::{Failure, Step};

const OWN: &str = "/proc/self/exe";

/// Returns if the program runs from a read-only mount; otherwise executes it again from one.
pub(crate) fn ensure_readonly() -> Result<(), Failure> {
    let own = Path::new(OWN);
    if mount_attr::is_readonly(own).step(|| "examine /proc/self/exe")? {
        return Ok(());
    }
    let copy = mount_attr::readonly_copy(own)
        .step(|| "protect the runtime's own file: copy its mount read-only")?;
    Err(keelson_sys::entry::execute_again(copy.as_fd()))
        .step(|| "execute the runtime from a read-only mount")
}

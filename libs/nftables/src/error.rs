//! Why a call failed.

use std::io;

use rustix::io::Errno;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// A system call on the netfilter socket failed.
    #[error("can't {operation} the netfilter socket: {source}")]
    Socket {
        /// `open`, `bind`, `send to`, `read`.
        operation: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a message. Nothing of the transaction was done.
    #[error("can't {message}: {source}")]
    Refused {
        /// What the message asked for: `add chain input of table inet x`.
        message: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has not answered.
    #[error("the kernel did not answer: {message}")]
    Silent {
        /// What the message asked for.
        message: String,
    },
    /// The transaction does not fit into one message to the kernel.
    #[error("a transaction of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest possible size.
        limit: usize,
    },
    /// The list changed during each attempt to read it.
    #[error("can't {message}: it changed during each of {attempts} attempts")]
    Unstable {
        /// What the message asked for.
        message: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl NftError {
    /// The kernel's error number.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Socket { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Silent { .. } | Self::TooLarge { .. } | Self::Unstable { .. } => None,
        }
    }

    /// Whether the message names something that does not exist (`ENOENT`).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.errno() == Some(Errno::NOENT.raw_os_error())
    }

    /// Whether the object exists already with different content (`EEXIST`, `EBUSY`).
    #[must_use]
    pub fn is_other(&self) -> bool {
        [Errno::EXIST, Errno::BUSY]
            .iter()
            .any(|errno| self.errno() == Some(errno.raw_os_error()))
    }
}

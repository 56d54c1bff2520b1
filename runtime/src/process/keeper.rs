//! Which program keeps a process from its creation to its end.

use keelson_sys::sandbox;

use crate::failure::{Failure, Step};

/// Which program keeps a container's process, with the consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A shim, which is the process's parent. It serves other requests meanwhile. The process ends
    /// with it.
    Shim,
    /// The caller of this program. The program may end long before the process.
    Caller,
}

impl Keeper {
    /// Has this process killed when its keeper ends, if that is its parent. A change of user or of
    /// the user namespace clears it.
    pub(crate) fn bind(self) -> Result<(), Failure> {
        match self {
            Self::Shim => {
                sandbox::die_with_parent().step(|| "bind the process's life to the shim's")
            }
            Self::Caller => Ok(()),
        }
    }

    /// Whether the process must end if its keeper has ended meanwhile.
    pub(crate) const fn is_parent(self) -> bool {
        matches!(self, Self::Shim)
    }

    /// Whether the keeper removes what the container leaves in a mount namespace of others.
    pub(crate) const fn unmounts(self) -> bool {
        matches!(self, Self::Caller)
    }

    /// Whether hooks run in a separate process, because the keeper must not wait for them.
    pub(crate) const fn serves_others(self) -> bool {
        matches!(self, Self::Shim)
    }

    /// Whether the process that creates the container has the groups of the requesting caller.
    pub(crate) const fn has_groups_to_keep(self) -> bool {
        matches!(self, Self::Caller)
    }
}

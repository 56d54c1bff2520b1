//! Capabilities (capabilities(7)) by name and as bit masks. The names are those of the crate `caps`.

use std::str::FromStr;

use caps::Capability;

/// `CAP_SETPCAP` as a mask.
pub const SETPCAP: u64 = 1 << Capability::CAP_SETPCAP as u64;
/// `CAP_SYS_ADMIN` as a mask.
pub const SYS_ADMIN: u64 = 1 << Capability::CAP_SYS_ADMIN as u64;
/// `CAP_MKNOD` as a mask.
pub const MKNOD: u64 = 1 << Capability::CAP_MKNOD as u64;

/// The mask of a capability: `CAP_CHOWN` is 1. `None`: there is no such capability.
pub fn mask(name: &str) -> Option<u64> {
    let capability = Capability::from_str(name).ok()?;
    Some(capability.bitmask())
}

/// The names of the capabilities in a mask, by number. Bits without a name are left out.
pub fn names(mask: u64) -> Vec<String> {
    let mut found: Vec<_> = caps::all().into_iter().collect();
    found.retain(|capability| mask & capability.bitmask() != 0);
    found.sort_unstable_by_key(Capability::index);
    found.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_masks() {
        assert_eq!(mask("CAP_CHOWN"), Some(1));
        assert_eq!(mask("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        for unknown in ["CHOWN", "cap_chown", "CAP_FLY", ""] {
            assert_eq!(mask(unknown), None, "{unknown}");
        }
        for (name, constant) in [
            ("CAP_SETPCAP", SETPCAP),
            ("CAP_SYS_ADMIN", SYS_ADMIN),
            ("CAP_MKNOD", MKNOD),
        ] {
            assert_eq!(mask(name), Some(constant));
        }
        assert_eq!(names(0b10_0001), ["CAP_CHOWN", "CAP_KILL"]);
        let all = names(u64::MAX);
        assert_eq!(all.len(), 41);
        for (number, name) in all.iter().enumerate() {
            assert_eq!(mask(name), Some(1 << number));
        }
    }
}

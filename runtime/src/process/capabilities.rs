//! The five capability sets.

use keelson_sys::sandbox::{self, CapabilitySets};
use nix::errno::Errno;

use crate::failure::{Failure, Step};
use crate::spec::Capabilities;

/// Names in the order of their numbers.
pub(crate) const NAMES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// `CAP_SETPCAP` as a bit.
pub(crate) const SETPCAP: u64 = 1 << 8;
/// `CAP_SYS_ADMIN` as a bit.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;
/// `CAP_MKNOD` as a bit.
pub(crate) const MKNOD: u64 = 1 << 27;

/// The sets as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
    pub(crate) process: CapabilitySets,
}

/// Reads the sets. Without a capabilities object the process has none. Names that are not known are
/// told of and passed over, as the specification asks: nothing is granted for them.
pub(crate) fn parse(capabilities: Option<&Capabilities>) -> Sets {
    let Some(capabilities) = capabilities else {
        return Sets::default();
    };
    Sets {
        bounding: bits("bounding", &capabilities.bounding),
        ambient: bits("ambient", &capabilities.ambient),
        process: CapabilitySets {
            effective: bits("effective", &capabilities.effective),
            permitted: bits("permitted", &capabilities.permitted),
            inheritable: bits("inheritable", &capabilities.inheritable),
        },
    }
}

fn bits(set: &str, names: &[String]) -> u64 {
    let mut bits = 0;
    for name in names {
        match NAMES.iter().position(|known| known == name) {
            Some(number) => bits |= 1 << number,
            None => eprintln!(
                "keelson-runtime: warning: process.capabilities.{set}: {name:?} is not a known capability"
            ),
        }
    }
    bits
}

/// Takes everything that is not in the set from the bounding set.
pub(crate) fn limit_bounding(bounding: u64) -> Result<(), Failure> {
    for number in 0..64 {
        if bounding >> number & 1 == 1 {
            continue;
        }
        match sandbox::drop_bounding(number) {
            Ok(()) => {}
            // Past the last capability that this kernel has.
            Err(Errno::EINVAL) if number > 0 => break,
            Err(error) => {
                return Err(error)
                    .step(|| format!("drop capability {number} from the bounding set"));
            }
        }
    }
    Ok(())
}

/// Sets what the command is executed with.
pub(crate) fn apply(sets: &Sets) -> Result<(), Failure> {
    sandbox::set_capabilities(&sets.process).step(|| "process.capabilities: set capabilities")?;
    sandbox::clear_ambient().step(|| "process.capabilities.ambient: clear")?;
    for number in 0..64 {
        if sets.ambient >> number & 1 == 1 {
            sandbox::raise_ambient(number).step(|| {
                let name = NAMES.get(number as usize).copied().unwrap_or_default();
                format!("process.capabilities.ambient: raise {name}")
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_bits() {
        let list = ["CAP_CHOWN".to_owned(), "CAP_CHECKPOINT_RESTORE".to_owned()];
        assert_eq!(bits("bounding", &list), 1 | 1 << 40);
        assert_eq!(bits("ambient", &["CAP_FLY".to_owned()]), 0);
        for (name, bit) in [
            ("CAP_SETPCAP", SETPCAP),
            ("CAP_SYS_ADMIN", SYS_ADMIN),
            ("CAP_MKNOD", MKNOD),
        ] {
            assert_eq!(bits("bounding", &[name.to_owned()]), bit);
        }
    }
}

//! The five capability sets.

use keelson_linux::capability;
pub(crate) use keelson_linux::capability::{MKNOD, SETPCAP, SYS_ADMIN};
use keelson_sys::sandbox::{self, CapabilitySets};
use nix::errno::Errno;

use crate::failure::{self, Failure, Step};
use crate::spec::Capabilities;

/// The sets as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
    pub(crate) process: CapabilitySets,
}

/// Reads the sets. Without a capabilities object the process has none. Unknown names, and
/// capabilities that can't be granted, cause a warning and are ignored, as the specification asks.
/// `own_users`: the process is in a user namespace, in which the runtime has every capability.
pub(crate) fn parse(capabilities: Option<&Capabilities>, own_users: bool) -> Result<Sets, Failure> {
    let Some(capabilities) = capabilities else {
        return Ok(Sets::default());
    };
    let wanted = Sets {
        bounding: bits("bounding", &capabilities.bounding),
        ambient: bits("ambient", &capabilities.ambient),
        process: CapabilitySets {
            effective: bits("effective", &capabilities.effective),
            permitted: bits("permitted", &capabilities.permitted),
            inheritable: bits("inheritable", &capabilities.inheritable),
        },
    };
    let process = &wanted.process;
    let beyond = (process.permitted | process.inheritable) & !ORDINARY;
    let own = match own_users || beyond == 0 {
        true => u64::MAX,
        false => rustix::thread::capabilities(None)
            .step(|| "read the runtime's capabilities")?
            .permitted
            .bits(),
    };
    Ok(grant(&wanted, own, |set, number: u32| {
        let name = name(number);
        failure::warning(format!(
            "process.capabilities.{set}: {name} can't be granted"
        ));
    }))
}

/// The usual capabilities of containers. A runtime that can make containers at all has them, so
/// they need not be looked up.
const ORDINARY: u64 = 0xa804_25fb;

/// Removes from the sets what the kernel would refuse: a process can only get capabilities that its
/// parent has, and use those that it is permitted. Ambient capabilities that are not both permitted
/// and inheritable are removed without a warning, because engines rely on that (Buildah asks for
/// all ambient capabilities and for no inheritable ones).
fn grant(wanted: &Sets, own: u64, mut left_out: impl FnMut(&'static str, u32)) -> Sets {
    let mut within = |set, wanted: u64, possible: u64| {
        let missing = wanted & !possible;
        for number in (0..64).filter(|number| missing >> number & 1 == 1) {
            left_out(set, number);
        }
        wanted & possible
    };
    let permitted = within("permitted", wanted.process.permitted, own);
    let effective = within("effective", wanted.process.effective, permitted);
    let bounds = wanted.bounding & own;
    let inheritable = within("inheritable", wanted.process.inheritable, bounds);
    Sets {
        bounding: wanted.bounding,
        ambient: wanted.ambient & permitted & inheritable,
        process: CapabilitySets {
            effective,
            permitted,
            inheritable,
        },
    }
}

fn bits(set: &str, names: &[String]) -> u64 {
    let mut bits = 0;
    for name in names {
        match capability::mask(name) {
            Some(mask) => bits |= mask,
            None => failure::warning(format!(
                "process.capabilities.{set}: {name:?} is not a known capability"
            )),
        }
    }
    bits
}

/// The name of a capability, for messages.
fn name(number: u32) -> String {
    let names = capability::names(1 << number);
    names
        .into_iter()
        .next()
        .unwrap_or_else(|| format!("capability {number}"))
}

/// Drops everything that is not in the set from the bounding set.
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

/// Sets the capabilities that the command is executed with.
pub(crate) fn apply(sets: &Sets) -> Result<(), Failure> {
    sandbox::set_capabilities(&sets.process).step(|| "process.capabilities: set capabilities")?;
    sandbox::clear_ambient().step(|| "process.capabilities.ambient: clear")?;
    for number in 0..64 {
        if sets.ambient >> number & 1 == 1 {
            sandbox::raise_ambient(number)
                .step(|| format!("process.capabilities.ambient: raise {}", name(number)))?;
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
    }

    #[test]
    fn what_the_kernel_would_refuse_is_left_out() {
        let sets = |bounding, ambient, effective, permitted, inheritable| Sets {
            bounding,
            ambient,
            process: CapabilitySets {
                effective,
                permitted,
                inheritable,
            },
        };
        let mut left_out = Vec::new();
        let wanted = sets(0b111, 0b11, 0b1011, 0b0111, 0b0001);
        let granted = grant(&wanted, 0b1011, |set, number| left_out.push((set, number)));
        assert_eq!(granted, sets(0b111, 0b01, 0b0011, 0b0011, 0b0001));
        assert_eq!(left_out, [("permitted", 2), ("effective", 3)]);
    }
}

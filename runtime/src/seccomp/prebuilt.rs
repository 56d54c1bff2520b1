//! The built-in profile, compiled ahead of time for the capabilities that containers have by
//! default; compiling it takes longer than all mounts together.
//!
//! `default.bpf` is the program in the kernel's format (`struct sock_filter`, little endian). A
//! test compares it with the compiler's output for the profile, and writes it again if
//! `KEELSON_UPDATE_FILTER=1` is set.

use keelson_sys::seccomp::Instruction;

use super::{Filter, profile};

static PROGRAM: &[u8] = include_bytes!("default.bpf");
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`, as the compiler chooses for a profile without flags.
const FLAGS: u32 = 4;
/// The default capabilities that change the profile.
const CAPABILITIES: &[&str] = &["CAP_SYS_CHROOT"];

/// The filter of a container with these capabilities, if it is the prepared one.
pub(super) fn default_filter(bounding: &[String]) -> Option<Filter> {
    let prepared = profile::deciding().all(|capability| {
        bounding.iter().any(|name| name == capability) == CAPABILITIES.contains(&capability)
    });
    prepared.then(|| Filter {
        program: decode(PROGRAM),
        flags: FLAGS,
    })
}

fn decode(bytes: &[u8]) -> Vec<Instruction> {
    let (instructions, _) = bytes.as_chunks::<8>();
    instructions
        .iter()
        .map(
            |[code_low, code_high, jump_true, jump_false, a, b, c, d]| Instruction {
                code: u16::from_le_bytes([*code_low, *code_high]),
                jump_true: *jump_true,
                jump_false: *jump_false,
                operand: u32::from_le_bytes([*a, *b, *c, *d]),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::compile;

    fn encode(program: &[Instruction]) -> Vec<u8> {
        program
            .iter()
            .flat_map(|step| {
                let [code_low, code_high] = step.code.to_le_bytes();
                let [a, b, c, d] = step.operand.to_le_bytes();
                [
                    code_low,
                    code_high,
                    step.jump_true,
                    step.jump_false,
                    a,
                    b,
                    c,
                    d,
                ]
            })
            .collect()
    }

    #[test]
    fn the_prepared_filter_is_what_the_compiler_makes() {
        let capabilities = ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned);
        let compiled = compile(&profile::default_profile(&capabilities)).unwrap();
        if std::env::var_os("KEELSON_UPDATE_FILTER").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/seccomp/default.bpf");
            std::fs::write(path, encode(&compiled.program)).unwrap();
            return;
        }
        assert_eq!(default_filter(&capabilities), Some(compiled));
    }

    #[test]
    fn other_capabilities_get_another_filter() {
        let names = |list: &[&str]| {
            list.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(default_filter(&names(&[])), None);
        assert_eq!(
            default_filter(&names(&["CAP_SYS_CHROOT", "CAP_SYS_ADMIN"])),
            None
        );
        assert_eq!(
            default_filter(&names(&["CAP_SYS_CHROOT", "CAP_SYSLOG"])),
            None
        );
    }
}

//! The device filter of cgroup v2: an eBPF program made from the OCI device rules.
//!
//! The last rule that matches decides; what no rule matches is denied. The devices that every
//! container has (null, zero, full, random, urandom, tty, ptmx, terminals) are always allowed.
//! Making device nodes is always allowed, too: the nodes of `linux.devices` are made under the
//! filter, and nobody can use a node that can't be opened.

use std::os::fd::{AsFd, BorrowedFd};

use crate::failure::{Failure, Step};
use crate::spec::DeviceRule;

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MKNOD | READ | WRITE;

/// Character devices, as major and minor number (-1: all), that are always allowed.
const ALWAYS: &[(i64, i64)] = &[
    (1, 3),
    (1, 5),
    (1, 7),
    (1, 8),
    (1, 9),
    (5, 0),
    (5, 2),
    (136, -1),
];

/// A checked rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None`: block and character devices.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// Loads and attaches the filter.
pub(crate) fn attach(cgroup: BorrowedFd<'_>, rules: &[DeviceRule]) -> Result<(), Failure> {
    let program = program(&check(rules)?);
    let program = keelson_sys::bpf::load_device_program(&program)
        .step(|| "linux.resources.devices: load the device filter")?;
    keelson_sys::bpf::attach_device_program(cgroup, program.as_fd())
        .step(|| "linux.resources.devices: attach the device filter to the cgroup")
}

/// Whether the rules restrict nothing: there are none, or the last rule about all devices allows
/// them and no later rule denies any. The rules are checked, too.
pub(crate) fn allow_everything(rules: &[DeviceRule]) -> Result<bool, Failure> {
    // Anything that no rule matches is denied.
    let mut everything = rules.is_empty();
    for rule in check(rules)?.iter().take(rules.len()) {
        let about_all =
            rule.kind.is_none() && (rule.major, rule.minor, rule.access) == (None, None, ALL);
        everything = rule.allow && (everything || about_all);
    }
    Ok(everything)
}

/// Judges the rules.
pub(crate) fn judge(rules: &[DeviceRule]) -> Result<(), Failure> {
    check(rules).map(drop)
}

fn check(rules: &[DeviceRule]) -> Result<Vec<Rule>, Failure> {
    let mut checked = Vec::with_capacity(rules.len() + ALWAYS.len());
    for (index, rule) in rules.iter().enumerate() {
        let refused = |member: &str, reason: String| {
            Failure::invalid(format!(
                "linux.resources.devices[{index}].{member}: {reason}"
            ))
        };
        let kind = match rule.kind.as_deref() {
            None | Some("" | "a") => None,
            Some("b") => Some(BLOCK),
            Some("c" | "u") => Some(CHARACTER),
            Some(other) => return Err(refused("type", format!("{other:?} is not a, b, c or u"))),
        };
        let number = |member: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => i32::try_from(value)
                .ok()
                .filter(|value| *value >= 0)
                .map(Some)
                .ok_or_else(|| refused(member, format!("{value} is not a device number"))),
        };
        let mut access = 0;
        for letter in rule.access.as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                other => {
                    return Err(refused("access", format!("{other:?} is not r, w or m")));
                }
            };
        }
        checked.push(Rule {
            allow: rule.allow,
            kind,
            major: number("major", rule.major)?,
            minor: number("minor", rule.minor)?,
            access: if access == 0 { ALL } else { access },
        });
    }
    checked.extend(ALWAYS.iter().map(|(major, minor)| Rule {
        allow: true,
        kind: Some(CHARACTER),
        major: Some(*major as i32),
        minor: (*minor >= 0).then_some(*minor as i32),
        access: ALL,
    }));
    checked.push(Rule {
        allow: true,
        kind: None,
        major: None,
        minor: None,
        access: MKNOD,
    });
    Ok(checked)
}

/// Encodes one `struct bpf_insn`.
const fn encode(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    code as u64
        | ((destination | source << 4) as u64) << 8
        | (offset as u16 as u64) << 16
        | (immediate as u32 as u64) << 32
}

const LOAD_WORD: u8 = 0x61;
const AND: u8 = 0x54;
const OR_REGISTER: u8 = 0x4c;
const SHIFT_LEFT: u8 = 0x64;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const MOVE_IMMEDIATE: u8 = 0xb7;
const JUMP_UNEQUAL: u8 = 0x55;
const JUMP_UNEQUAL_REGISTER: u8 = 0x5d;
const JUMP_EQUAL: u8 = 0x15;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// The kernel's device numbers have 12 and 20 bits: both fit into one.
const MINOR_BITS: i32 = 20;

impl Rule {
    /// Both numbers in one, when the rule is about all access to one device.
    fn device(&self) -> Option<i32> {
        let (major, minor) = (self.major?, self.minor?);
        // Immediate values are signed.
        let fits = major < 1 << 11 && minor < 1 << MINOR_BITS;
        (self.access == ALL && self.kind.is_some() && fits).then_some(major << MINOR_BITS | minor)
    }
}

/// One comparison for each of several devices with the same answer. Most rules of every container
/// form such lists, and every start pays for the time that the kernel's verifier spends on the
/// filter.
fn devices_block(rules: &[&Rule], kind: i32, allow: bool) -> Vec<u64> {
    let devices: Vec<i32> = rules.iter().filter_map(|rule| rule.device()).collect();
    let count = devices.len() as i16;
    let mut code = vec![encode(JUMP_UNEQUAL, 2, 0, count + 3, kind)];
    for (position, device) in devices.into_iter().enumerate() {
        code.push(encode(JUMP_EQUAL, 6, 0, count - position as i16, device));
    }
    code.push(encode(JUMP, 0, 0, 2, 0));
    code.push(encode(MOVE_IMMEDIATE, 0, 0, 0, i32::from(allow)));
    code.push(encode(EXIT, 0, 0, 0, 0));
    code
}

/// r2 kind, r3 access, r4 major, r5 minor, r6 both; r1 is scratch once they are loaded.
fn program(rules: &[Rule]) -> Vec<u64> {
    let mut code = vec![
        encode(LOAD_WORD, 2, 1, 0, 0),
        encode(MOVE, 3, 2, 0, 0),
        encode(AND, 2, 0, 0, 0xffff),
        encode(SHIFT_RIGHT, 3, 0, 0, 16),
        encode(LOAD_WORD, 4, 1, 4, 0),
        encode(LOAD_WORD, 5, 1, 8, 0),
        encode(MOVE, 6, 4, 0, 0),
        encode(SHIFT_LEFT, 6, 0, 0, MINOR_BITS),
        encode(OR_REGISTER, 6, 5, 0, 0),
    ];
    let mut rest: Vec<&Rule> = rules.iter().rev().collect();
    while let Some(rule) = rest.first().copied() {
        let alike = |other: &&&Rule| {
            other.device().is_some() && (other.kind, other.allow) == (rule.kind, rule.allow)
        };
        let run: Vec<&Rule> = rest.iter().take_while(alike).take(1000).copied().collect();
        if let Some(kind) = rule.kind
            && run.len() > 1
        {
            code.extend(devices_block(&run, kind, rule.allow));
            rest.drain(..run.len());
            continue;
        }
        rest.remove(0);
        let mut block = Vec::new();
        // Jump offsets are filled in when the block's length is known.
        if let Some(kind) = rule.kind {
            block.push((JUMP_UNEQUAL, 2, 0, kind));
        }
        if rule.access != ALL {
            block.push((MOVE, 1, 3, 0));
            block.push((AND, 1, 0, rule.access));
            if rule.allow {
                // Every access that is asked for must be allowed.
                block.push((JUMP_UNEQUAL_REGISTER, 1, 3, 0));
            } else {
                // One access that is asked for and denied is enough.
                block.push((JUMP_EQUAL, 1, 0, 0));
            }
        }
        if let Some(major) = rule.major {
            block.push((JUMP_UNEQUAL, 4, 0, major));
        }
        if let Some(minor) = rule.minor {
            block.push((JUMP_UNEQUAL, 5, 0, minor));
        }
        let unconditional = block.is_empty();
        block.push((MOVE_IMMEDIATE, 0, 0, i32::from(rule.allow)));
        block.push((EXIT, 0, 0, 0));
        let length = block.len();
        for (position, (operation, destination, source, immediate)) in block.into_iter().enumerate()
        {
            let distance = match operation {
                JUMP_UNEQUAL | JUMP_UNEQUAL_REGISTER | JUMP_EQUAL => (length - position - 1) as i16,
                _ => 0,
            };
            code.push(encode(operation, destination, source, distance, immediate));
        }
        if unconditional {
            // The verifier refuses instructions that can't be reached.
            return code;
        }
    }
    code.push(encode(MOVE_IMMEDIATE, 0, 0, 0, 0));
    code.push(encode(EXIT, 0, 0, 0, 0));
    code
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs a program as the kernel would.
    fn interpret(program: &[u64], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [(access << 16 | kind) as u32, major as u32, minor as u32];
        let mut registers = [0u64; 11];
        let mut position = 0usize;
        loop {
            let word = program[position];
            position += 1;
            let code = word as u8;
            let destination = (word >> 8 & 15) as usize;
            let source = (word >> 12 & 15) as usize;
            let offset = (word >> 16) as i16;
            let immediate = (word >> 32) as u32;
            let mut jump = |holds: bool| {
                if holds {
                    position = position.checked_add_signed(offset.into()).unwrap();
                }
            };
            match code {
                LOAD_WORD => registers[destination] = context[offset as usize / 4].into(),
                MOVE => registers[destination] = registers[source],
                MOVE_IMMEDIATE => registers[destination] = immediate.into(),
                AND => registers[destination] &= u64::from(immediate),
                SHIFT_RIGHT => registers[destination] >>= immediate,
                SHIFT_LEFT => registers[destination] <<= immediate,
                OR_REGISTER => registers[destination] |= registers[source],
                JUMP => jump(true),
                JUMP_UNEQUAL => jump(registers[destination] != u64::from(immediate)),
                JUMP_EQUAL => jump(registers[destination] == u64::from(immediate)),
                JUMP_UNEQUAL_REGISTER => jump(registers[destination] != registers[source]),
                EXIT => return registers[0] == 1,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn decide(rules: &[Rule], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        rules
            .iter()
            .rev()
            .find(|rule| {
                rule.kind.is_none_or(|wanted| wanted == kind)
                    && rule.major.is_none_or(|wanted| wanted == major)
                    && rule.minor.is_none_or(|wanted| wanted == minor)
                    && if rule.allow {
                        rule.access & access == access
                    } else {
                        rule.access & access != 0
                    }
            })
            .is_some_and(|rule| rule.allow)
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let number = || proptest::option::of(0i32..4);
        (
            any::<bool>(),
            proptest::option::of(1i32..3),
            number(),
            number(),
            prop_oneof![1i32..8, Just(ALL)],
        )
            .prop_map(|(allow, kind, major, minor, access)| Rule {
                allow,
                kind,
                major,
                minor,
                access,
            })
    }

    proptest! {
        #[test]
        fn programs_decide_as_the_rules_say(
            rules in proptest::collection::vec(rule(), 0..10),
            kind in 1i32..3, access in 1i32..8, major in 0i32..4, minor in 0i32..4,
        ) {
            let found = interpret(&program(&rules), kind, access, major, minor);
            prop_assert_eq!(found, decide(&rules, kind, access, major, minor));
        }
    }

    #[test]
    fn rules_that_restrict_nothing_are_known() {
        for (json, everything) in [
            ("[]", true),
            (r#"[{"allow":true}]"#, true),
            (
                r#"[{"allow":false},{"allow":true,"type":"a","access":"rwm"}]"#,
                true,
            ),
            (
                r#"[{"allow":true},{"allow":true,"type":"c","major":1}]"#,
                true,
            ),
            (r#"[{"allow":true},{"allow":false,"type":"b"}]"#, false),
            (r#"[{"allow":true,"type":"c"}]"#, false),
            (r#"[{"allow":true,"access":"rw"}]"#, false),
            (r#"[{"allow":true},{"allow":false}]"#, false),
        ] {
            let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
            assert_eq!(allow_everything(&rules).unwrap(), everything, "{json}");
        }
    }

    #[test]
    fn docker_rules_let_null_pass_and_a_disk_not() {
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":-1,"minor":-1,"access":"m"}]"#;
        let rules: Vec<DeviceRule> = serde_json::from_str(json).unwrap();
        let program = program(&check(&rules).unwrap());
        assert!(interpret(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(interpret(&program, CHARACTER, MKNOD, 10, 200));
        assert!(!interpret(&program, CHARACTER, READ, 10, 200));
        assert!(!interpret(&program, BLOCK, READ, 8, 0));
    }
}

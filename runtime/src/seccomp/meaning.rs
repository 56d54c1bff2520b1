//! Interprets a profile as directly as possible, and runs a filter program. Tests and fuzz targets
//! compare the compiler with this.

use keelson_sys::seccomp::Instruction;

use super::SeccompError;
use super::assemble::{
    AND, ARCHITECTURE, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, NUMBER, RETURN,
};
use super::compile::{
    AUDIT_I386, AUDIT_X86_64, Architecture, ENOSYS, ERRNO, KILL_PROCESS, X32_BIT, action,
    architecture,
};
use super::table::{NONE, SYSCALLS, find};
use crate::spec::{Seccomp, SeccompArgument, SeccompRule};

/// A system call as a filter sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SystemCall {
    /// `AUDIT_ARCH_…`.
    pub architecture: u32,
    /// Its number there; with bit 30 for x32.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// The profile's decision about a call: a `SECCOMP_RET_…` value with its data.
pub(crate) fn of(seccomp: &Seccomp, call: &SystemCall) -> Result<u32, SeccompError> {
    let default = action(
        || "defaultAction".to_owned(),
        &seccomp.default_action,
        seccomp.default_errno_ret,
    )?;
    let Some(spoken_of) = interface(seccomp, call)? else {
        return Ok(KILL_PROCESS);
    };
    let number_of = |entry: &(&str, u16, u16, u16)| {
        let (number, marker) = match spoken_of {
            Architecture::X86_64 => (entry.1, 0),
            Architecture::I386 => (entry.2, 0),
            Architecture::X32 => (entry.3, X32_BIT),
        };
        (number != NONE).then(|| u32::from(number) | marker)
    };
    let named = |rule: &SeccompRule, name: &str| rule.names.iter().any(|other| other == name);
    let names = seccomp.syscalls.iter().flat_map(|rule| &rule.names);
    let newest = names.filter_map(|name| number_of(find(name)?)).max();
    if newest.is_some_and(|newest| call.number > newest) && default & 0xffff_0000 == ERRNO {
        return Ok(ERRNO | ENOSYS);
    }
    let entry = SYSCALLS
        .iter()
        .find(|entry| number_of(entry) == Some(call.number));
    let Some((name, ..)) = entry else {
        return Ok(default);
    };
    let rules = || seccomp.syscalls.iter().filter(|rule| named(rule, name));
    let conditional = rules().find(|rule| !rule.args.is_empty() && holds(rule, call));
    match conditional.or_else(|| rules().find(|rule| rule.args.is_empty())) {
        Some(rule) => action(|| "syscalls".to_owned(), &rule.action, rule.errno_ret),
        None => Ok(default),
    }
}

/// The processor interface that a call used, if the profile names it.
fn interface(seccomp: &Seccomp, call: &SystemCall) -> Result<Option<Architecture>, SeccompError> {
    let found = match call.architecture {
        AUDIT_X86_64 if call.number & X32_BIT == 0 && call.number < X32_BIT => Architecture::X86_64,
        AUDIT_X86_64 => Architecture::X32,
        AUDIT_I386 => Architecture::I386,
        _ => return Ok(None),
    };
    let mut listed = found == Architecture::X86_64;
    for (index, name) in seccomp.architectures.iter().enumerate() {
        listed |= architecture(index, name)? == Some(found);
    }
    Ok(listed.then_some(found))
}

fn holds(rule: &SeccompRule, call: &SystemCall) -> bool {
    let one = |argument: &SeccompArgument| {
        let Some(actual) = call.arguments.get(argument.index as usize) else {
            return false;
        };
        match argument.op.as_str() {
            "SCMP_CMP_NE" => *actual != argument.value,
            "SCMP_CMP_LT" => *actual < argument.value,
            "SCMP_CMP_LE" => *actual <= argument.value,
            "SCMP_CMP_EQ" => *actual == argument.value,
            "SCMP_CMP_GE" => *actual >= argument.value,
            "SCMP_CMP_GT" => *actual > argument.value,
            _ => actual & argument.value == argument.value_two,
        }
    };
    let repeated = rule.args.iter().enumerate().any(|(position, argument)| {
        let mut later = rule.args.iter().skip(position + 1);
        later.any(|other| other.index == argument.index)
    });
    match repeated {
        true => rule.args.iter().any(one),
        false => rule.args.iter().all(one),
    }
}

/// Runs a program as the kernel would. `None`: the kernel would refuse it.
pub(crate) fn run(program: &[Instruction], call: &SystemCall) -> Option<u32> {
    const ARGUMENTS: u32 = 16;
    let (mut accumulator, mut position) = (0u32, 0usize);
    loop {
        let step = program.get(position)?;
        let mut skipped = 0;
        let mut branch = |holds: bool| {
            skipped = usize::from(if holds {
                step.jump_true
            } else {
                step.jump_false
            });
        };
        match step.code {
            LOAD => {
                accumulator = match step.operand {
                    NUMBER => call.number,
                    ARCHITECTURE => call.architecture,
                    offset => {
                        let offset = offset.checked_sub(ARGUMENTS)?;
                        let argument = call.arguments.get(offset as usize / 8)?;
                        // x86 is little-endian: the lower half comes first.
                        (argument >> (offset % 8 * 8)) as u32
                    }
                }
            }
            AND => accumulator &= step.operand,
            JUMP => skipped = step.operand as usize,
            JUMP_EQUAL => branch(accumulator == step.operand),
            JUMP_GREATER => branch(accumulator > step.operand),
            JUMP_GREATER_EQUAL => branch(accumulator >= step.operand),
            RETURN => return Some(step.operand),
            _ => return None,
        }
        position = position.checked_add(1)?.checked_add(skipped)?;
    }
}

/// Every system call with its number on x86-64, on i386 and by x32 (without the marker).
pub fn system_calls() -> impl Iterator<Item = (&'static str, [Option<u32>; 3])> {
    SYSCALLS.iter().map(|(name, native, i386, x32)| {
        let known = |number: &u16| (*number != NONE).then(|| u32::from(*number));
        (*name, [known(native), known(i386), known(x32)])
    })
}

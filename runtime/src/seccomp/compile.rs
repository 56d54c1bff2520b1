//! The compiler: checks the OCI object, groups its rules by system call, and builds the search
//! tree.
//!
//! If a system call has several rules, those with conditions are tried in order, then the first
//! rule without conditions. If a rule has several conditions on one argument, one of them is
//! enough, as with runc; conditions on different arguments must all hold.

use keelson_sys::seccomp::{Instruction, NEW_LISTENER};

use super::assemble::{
    ARCHITECTURE, Condition, NUMBER, Operator, Verdict, jump, load, ret, skip_unless_equal,
};
use super::table::{NONE, SYSCALLS, position};
use super::tree::tree;
use super::{Filter, SeccompError};
use crate::spec::{Seccomp, SeccompArgument, SeccompRule};

pub(super) const AUDIT_X86_64: u32 = 0xc000_003e;
pub(super) const AUDIT_I386: u32 = 0x4000_0003;
/// Marks a system call of the x32 interface.
pub(super) const X32_BIT: u32 = 0x4000_0000;

pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0x0000_0000;
const TRAP: u32 = 0x0003_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
pub(super) const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// Longest program that the kernel accepts.
const LONGEST: usize = 4096;

/// The processor interfaces that a filter may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    X86_64,
    I386,
    X32,
}

/// Actions with their names.
pub(crate) const ACTIONS: &[(&str, u32)] = &[
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_KILL", KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
    ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_TRAP", TRAP),
];

/// Operators with their names.
pub(crate) const OPERATORS: &[(&str, Operator)] = &[
    ("SCMP_CMP_EQ", Operator::Equal),
    ("SCMP_CMP_GE", Operator::GreaterEqual),
    ("SCMP_CMP_GT", Operator::Greater),
    ("SCMP_CMP_LE", Operator::LessEqual),
    ("SCMP_CMP_LT", Operator::Less),
    ("SCMP_CMP_MASKED_EQ", Operator::MaskedEqual),
    ("SCMP_CMP_NE", Operator::NotEqual),
];

/// Architectures with their names.
pub(crate) const ARCHITECTURES: &[(&str, Architecture)] = &[
    ("SCMP_ARCH_X32", Architecture::X32),
    ("SCMP_ARCH_X86", Architecture::I386),
    ("SCMP_ARCH_X86_64", Architecture::X86_64),
];

/// Compiles the OCI object.
pub(crate) fn compile(seccomp: &Seccomp) -> Result<Filter, SeccompError> {
    let default = action(
        || "defaultAction".to_owned(),
        &seccomp.default_action,
        seccomp.default_errno_ret,
    )?;
    let mut architectures = Vec::new();
    for (index, name) in seccomp.architectures.iter().enumerate() {
        architectures.extend(architecture(index, name)?);
    }
    if !architectures.contains(&Architecture::X86_64) {
        // The native architecture is always included.
        architectures.push(Architecture::X86_64);
    }
    let rules = rules(seccomp, default)?;
    let code_of = |architecture: Architecture| {
        architectures
            .contains(&architecture)
            .then(|| search(&rules, architecture, default))
    };
    let native = code_of(Architecture::X86_64).unwrap_or_default();
    let x32 = code_of(Architecture::X32).unwrap_or_else(|| vec![ret(KILL_PROCESS)]);
    let i386 = code_of(Architecture::I386);

    let mut program = vec![load(ARCHITECTURE)];
    // Unconditional jumps, because the trees may be longer than the reach of a conditional one.
    let native_length = 3 + native.len() + x32.len();
    program.push(skip_unless_equal(AUDIT_X86_64, 1));
    program.push(jump(1));
    program.push(jump(native_length as u32));
    program.push(load(NUMBER));
    // x32 numbers have the marker bit, so they are greater than every native number.
    program.push(Instruction {
        code: 0x35,
        jump_true: 0,
        jump_false: 1,
        operand: X32_BIT,
    });
    program.push(jump(native.len() as u32));
    program.extend(native);
    program.extend(x32);
    if let Some(i386) = i386 {
        program.push(skip_unless_equal(AUDIT_I386, 1));
        program.push(jump(1));
        program.push(jump(1 + i386.len() as u32));
        program.push(load(NUMBER));
        program.extend(i386);
    }
    program.push(ret(KILL_PROCESS));
    if program.len() > LONGEST {
        return Err(SeccompError::new(
            "syscalls",
            format!(
                "the program has {} instructions, more than the kernel's {LONGEST}",
                program.len()
            ),
        ));
    }
    Ok(Filter {
        program,
        flags: flags(seccomp, notifies(seccomp, &rules, default)?)?,
    })
}

/// Rules by the call's position in the table. Calls that the profile does not name have none.
struct Rules {
    calls: Vec<Option<Verdict>>,
    /// Whether any action asks the listener, even one for a call that is not in the table.
    notifying: bool,
}

impl Rules {
    fn of(&self, name: &str) -> Option<&Verdict> {
        self.calls.get(position(name)?)?.as_ref()
    }
}

fn rules(seccomp: &Seccomp, default: u32) -> Result<Rules, SeccompError> {
    let mut rules = Rules {
        calls: vec![None; SYSCALLS.len()],
        notifying: default == NOTIFY,
    };
    // Calls with a rule without conditions that equals the default action: such a rule is also the
    // last that is tried.
    let mut settled = vec![false; SYSCALLS.len()];
    for (index, rule) in seccomp.syscalls.iter().enumerate() {
        let member = || format!("syscalls[{index}]");
        let action = action(
            || format!("{}.action", member()),
            &rule.action,
            rule.errno_ret,
        )?;
        let alternatives = conditions(member, rule)?;
        if rule.names.is_empty() {
            return Err(SeccompError::new(
                format!("{}.names", member()),
                "names no system call",
            ));
        }
        rules.notifying |= action == NOTIFY;
        for name in &rule.names {
            // A name that this program does not know restricts nothing: the default action applies,
            // as with libseccomp.
            let Some(position) = position(name) else {
                continue;
            };
            let (Some(call), Some(settled)) =
                (rules.calls.get_mut(position), settled.get_mut(position))
            else {
                continue;
            };
            let verdict = call.get_or_insert(Verdict {
                rules: Vec::new(),
                otherwise: default,
            });
            for conditions in &alternatives {
                verdict.rules.push((conditions.clone(), action));
            }
            if alternatives.is_empty() && verdict.otherwise == default && !*settled {
                verdict.otherwise = action;
                *settled = action == default;
            }
        }
    }
    for verdict in rules.calls.iter_mut().flatten() {
        // Conditions need no code if their action is the one that applies anyway.
        while verdict
            .rules
            .last()
            .is_some_and(|(_, action)| *action == verdict.otherwise)
        {
            verdict.rules.pop();
        }
    }
    Ok(rules)
}

/// A rule's conditions: a list of alternatives, each a list of conditions that must all hold.
fn conditions(
    member: impl Fn() -> String,
    rule: &SeccompRule,
) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let mut all = Vec::new();
    for (index, argument) in rule.args.iter().enumerate() {
        all.push(condition(&format!("{}.args[{index}]", member()), argument)?);
    }
    let repeated = all.iter().enumerate().any(|(position, condition)| {
        all.iter()
            .skip(position + 1)
            .any(|other| other.index == condition.index)
    });
    Ok(match (all.is_empty(), repeated) {
        (true, _) => Vec::new(),
        (false, false) => vec![all],
        (false, true) => all.into_iter().map(|condition| vec![condition]).collect(),
    })
}

fn condition(member: &str, argument: &SeccompArgument) -> Result<Condition, SeccompError> {
    if argument.index > 5 {
        return Err(SeccompError::new(
            format!("{member}.index"),
            format!("{} is not an argument's number (0 to 5)", argument.index),
        ));
    }
    let found = OPERATORS.iter().find(|(name, _)| *name == argument.op);
    let Some((_, operator)) = found else {
        return Err(SeccompError::new(
            format!("{member}.op"),
            format!("{:?} is not an operator", argument.op),
        ));
    };
    Ok(Condition {
        index: argument.index,
        operator: *operator,
        value: argument.value,
        value_two: argument.value_two,
    })
}

/// The search tree of one architecture.
fn search(rules: &Rules, architecture: Architecture, default: u32) -> Vec<Instruction> {
    // Indexed by number: a table, because sorting takes longer.
    let mut calls: Vec<Option<&Verdict>> = Vec::new();
    for (entry, verdict) in SYSCALLS.iter().zip(&rules.calls) {
        let number = match architecture {
            Architecture::X86_64 => entry.1,
            Architecture::I386 => entry.2,
            Architecture::X32 => entry.3,
        };
        let (Some(verdict), true) = (verdict, number != NONE) else {
            continue;
        };
        let number = usize::from(number);
        if calls.len() <= number {
            calls.resize(number + 1, None);
        }
        if let Some(call) = calls.get_mut(number) {
            *call = Some(verdict);
        }
    }
    let marker = match architecture {
        Architecture::X32 => X32_BIT,
        Architecture::X86_64 | Architecture::I386 => 0,
    };

    let plain = Verdict {
        rules: Vec::new(),
        otherwise: default,
    };
    // Calls that are newer than every named one are answered as an older kernel does, so that the C
    // library's fall-backs work. A default that allows does not need this.
    let newer = Verdict {
        rules: Vec::new(),
        otherwise: if default & 0xffff_0000 == ERRNO {
            ERRNO | ENOSYS
        } else {
            default
        },
    };
    let mut ranges: Vec<(u32, &Verdict)> = Vec::with_capacity(calls.len());
    let mut append = |number: u32, verdict| match ranges.last() {
        Some((_, last)) if *last == verdict => {}
        _ => ranges.push((number, verdict)),
    };
    if marker > 0 || calls.is_empty() {
        append(0, &plain);
    }
    let end = marker + calls.len() as u32;
    for (number, call) in (marker..end).zip(&calls) {
        append(number, call.unwrap_or(&plain));
    }
    if !calls.is_empty() {
        append(end, &newer);
    }
    tree(&ranges)
}

pub(super) fn action(
    member: impl Fn() -> String,
    name: &str,
    errno: Option<u32>,
) -> Result<u32, SeccompError> {
    let known = ACTIONS.iter().find(|(known, _)| *known == name);
    let Some((_, action)) = known else {
        let reason = format!("{name:?} is not an action");
        return Err(SeccompError::new(member(), reason));
    };
    match (*action, errno) {
        (ERRNO | TRACE, Some(data @ 0x1_0000..)) => {
            let reason = format!("errnoRet {data} is more than 65535");
            Err(SeccompError::new(member(), reason))
        }
        (ERRNO | TRACE, data) => Ok(*action | data.unwrap_or(EPERM)),
        (_, Some(_)) => {
            let reason = format!("{name} takes no errnoRet");
            Err(SeccompError::new(member(), reason))
        }
        (_, None) => Ok(*action),
    }
}

pub(super) fn architecture(index: usize, name: &str) -> Result<Option<Architecture>, SeccompError> {
    /// Names of architectures that are valid but that this program was not built for.
    const FOREIGN: &[&str] = &[
        "ARM",
        "AARCH64",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "RISCV64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ];
    if let Some((_, found)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) {
        return Ok(Some(*found));
    }
    match name.strip_prefix("SCMP_ARCH_") {
        // This processor has no such calls, so no code is needed for them.
        Some(other) if FOREIGN.contains(&other) => Ok(None),
        _ => Err(SeccompError::new(
            format!("architectures[{index}]"),
            format!("{name:?} is not an architecture"),
        )),
    }
}

/// System calls that the runtime itself makes while the filter is in force, with their purpose: an
/// agent that does not answer them would block the start, not the command.
const NEEDED: [(&str, &str); 2] = [
    ("sendmsg", "which hands the listener over"),
    ("write", "which tells hooks of the container"),
];

/// Whether the filter has a listener. Then it must be possible to hand the listener over.
fn notifies(seccomp: &Seccomp, rules: &Rules, default: u32) -> Result<bool, SeccompError> {
    let verdict_notifies = |verdict: &Verdict| {
        let mut actions = verdict.rules.iter().map(|(_, action)| *action);
        verdict.otherwise == NOTIFY || actions.any(|action| action == NOTIFY)
    };
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if given(&seccomp.listener_metadata) && !given(&seccomp.listener_path) {
        return Err(SeccompError::new(
            "listenerMetadata",
            "has no meaning without listenerPath",
        ));
    }
    if !rules.notifying {
        return Ok(false);
    }
    if !given(&seccomp.listener_path) {
        return Err(SeccompError::new(
            "listenerPath",
            "is missing, and SCMP_ACT_NOTIFY needs it",
        ));
    }
    for (name, purpose) in NEEDED {
        let needed = rules.of(name);
        if needed.map_or(default == NOTIFY, verdict_notifies) {
            return Err(SeccompError::new(
                "syscalls",
                format!("SCMP_ACT_NOTIFY cannot be used for the {name} syscall, {purpose}"),
            ));
        }
    }
    Ok(true)
}

/// Flags with their names.
pub(crate) const FLAGS: &[(&str, u32)] = &[
    ("SECCOMP_FILTER_FLAG_LOG", 2),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", TSYNC),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];

const TSYNC: u32 = 1;
const SPEC_ALLOW: u32 = 4;
/// Allows TSYNC together with a listener. (TSYNC alone reports a failure as a thread's number,
/// which could be mistaken for a descriptor.)
const TSYNC_ESRCH: u32 = 16;
const WAIT_KILLABLE_RECV: u32 = 32;

fn flags(seccomp: &Seccomp, notifies: bool) -> Result<u32, SeccompError> {
    let mut flags = 0;
    for (index, name) in seccomp.flags.iter().enumerate() {
        let flag = FLAGS.iter().find(|(known, _)| known == name);
        let member = || format!("flags[{index}]");
        let (_, flag) =
            flag.ok_or_else(|| SeccompError::new(member(), format!("{name:?} is not a flag")))?;
        if *flag == WAIT_KILLABLE_RECV && !notifies {
            return Err(SeccompError::new(
                member(),
                format!("{name} has no meaning without SCMP_ACT_NOTIFY"),
            ));
        }
        flags |= flag;
    }
    if seccomp.flags.is_empty() {
        flags = SPEC_ALLOW;
    }
    if notifies {
        flags |= NEW_LISTENER;
        if flags & TSYNC != 0 {
            flags |= TSYNC_ESRCH;
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests;

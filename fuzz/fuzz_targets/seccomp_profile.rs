//! Any bytes as a seccomp profile, or rules made of them: it compiles to a program that the kernel
//! would take and that decides about every system call as the profile says, or it is refused with
//! words that name a member.
#![cfg_attr(fuzzing, no_main)]

use std::sync::LazyLock;

use keelson_runtime::check::{self, FilterProgram, SystemCall};
use serde_json::{Value, json};

/// Class of an instruction that jumps, and the unconditional one.
const JUMP: u16 = 0x05;
/// Ends the program with a constant.
const RETURN: u16 = 0x06;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: &[&str] = &[
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];
const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
];

type Entry = (&'static str, [Option<u32>; 3]);

static CALLS: LazyLock<Vec<Entry>> = LazyLock::new(|| check::system_calls().collect());

/// Bytes that are used up one after the other; zeros when there are no more.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.number() % list.len()]
    }

    /// Mostly few values near each other in both halves, so that all branches are taken.
    fn value(&mut self) -> u64 {
        let byte = self.byte();
        let small = u64::from(byte >> 4);
        match byte % 8 {
            0..=2 => small,
            3 | 4 => small << 32 | small,
            5 => (1 << 63) | small,
            6 => u64::MAX - small,
            _ => (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte())),
        }
    }
}

/// A profile, with the calls that it is about.
fn profile(source: &mut Source<'_>) -> (Value, Vec<Entry>) {
    let mut about = Vec::new();
    let choice = source.byte();
    let architectures: Vec<&str> = ARCHITECTURES
        .iter()
        .enumerate()
        .filter(|(bit, _)| choice >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    let default = source.of(ACTIONS);
    let mut rules = Vec::new();
    for _ in 0..source.byte() % 24 {
        let names: Vec<&str> = (0..1 + source.byte() % 6)
            .map(|_| {
                let entry = source.of(&CALLS);
                about.push(entry);
                entry.0
            })
            .collect();
        let action = source.of(ACTIONS);
        let args: Vec<Value> = (0..(source.byte() % 8).saturating_sub(3))
            .map(|_| {
                json!({
                    "index": source.byte() % 6, "value": source.value(),
                    "valueTwo": source.value(), "op": source.of(OPERATORS),
                })
            })
            .collect();
        let mut rule = json!({"names": names, "action": action, "args": args});
        if matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && choice & 64 != 0 {
            rule["errnoRet"] = json!(source.number());
        }
        rules.push(rule);
    }
    let profile = json!({
        "defaultAction": default, "architectures": architectures, "syscalls": rules,
        "listenerPath": "/run/agent",
    });
    (profile, about)
}

/// The kernel's requirements for a program.
fn verify(program: &FilterProgram) {
    let program = &program.instructions;
    let length = program.len();
    assert!((1..=4096).contains(&length));
    assert_eq!(program[length - 1].code, RETURN);
    for (position, step) in program.iter().enumerate() {
        if step.code & 0x07 != JUMP {
            continue;
        }
        let furthest = match step.code {
            JUMP => step.operand as usize,
            _ => usize::from(step.jump_true.max(step.jump_false)),
        };
        assert!(position + 1 + furthest < length, "{position}: {step:?}");
    }
}

/// Compares the decisions of a program with the meaning of the profile.
fn compare(bytes: &[u8], program: &FilterProgram, about: &[Entry], source: &mut Source<'_>) {
    for round in 0..48 {
        let entry = match about {
            [] => source.of(&CALLS),
            _ if round % 3 == 0 => source.of(&CALLS),
            _ => about[round % about.len()],
        };
        let [native, i386, x32] = entry.1;
        let (architecture, number) = match source.byte() % 8 {
            0..=3 => (X86_64, native),
            4 | 5 => (I386, i386),
            6 => (X86_64, x32.map(|number| number | X32_BIT)),
            _ => (0xc000_00b7, native),
        };
        let call = SystemCall {
            architecture,
            number: number.unwrap_or_else(|| source.number() as u32),
            arguments: std::array::from_fn(|_| source.value()),
        };
        let meant = check::meaning(bytes, &call);
        let done = check::decision(program, &call);
        assert_eq!(done, meant.ok(), "{call:x?}");
    }
}

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut source = Source(bytes);
    let (text, about) = match bytes.first() {
        Some(b'{' | b'[' | b' ') | None => (bytes.to_vec(), Vec::new()),
        Some(_) => {
            let (profile, about) = profile(&mut source);
            (profile.to_string().into_bytes(), about)
        }
    };
    match check::seccomp_profile(&text) {
        Ok(program) => {
            verify(&program);
            compare(&text, &program, &about, &mut source);
        }
        Err(refusal) => assert!(refusal.to_string().contains(": "), "{refusal}"),
    }
});

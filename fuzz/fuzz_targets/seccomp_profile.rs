//! Any bytes as a seccomp profile: it compiles to a program that the kernel would take, with jumps
//! inside it and an end, or it is refused with words that name a member.
#![no_main]

use keelson_runtime::check;

/// Class of an instruction that jumps, and the unconditional one.
const JUMP: u16 = 0x05;
/// Ends the program with a constant.
const RETURN: u16 = 0x06;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let program = match check::seccomp_profile(bytes) {
        Ok(program) => program.instructions,
        Err(message) => {
            assert!(message.contains(": "), "{message}");
            return;
        }
    };
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
});

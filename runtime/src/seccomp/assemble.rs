//! Classic BPF instructions over `struct seccomp_data`.

use keelson_sys::seccomp::Instruction;

/// Offset of the system call number in `struct seccomp_data`.
pub(crate) const NUMBER: u32 = 0;
/// Offset of the architecture in `struct seccomp_data`.
pub(crate) const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

pub(super) const LOAD: u16 = 0x20;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RETURN: u16 = 0x06;

/// A jump to the end of the block. Its distance is filled in when the end is known.
const TO_END: u8 = u8::MAX;

pub(super) const fn instruction(
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        operand,
    }
}

pub(crate) const fn load(offset: u32) -> Instruction {
    instruction(LOAD, 0, 0, offset)
}

pub(crate) const fn ret(value: u32) -> Instruction {
    instruction(RETURN, 0, 0, value)
}

pub(crate) const fn jump(distance: u32) -> Instruction {
    instruction(JUMP, 0, 0, distance)
}

/// Continues with the next instruction if the accumulator equals the operand, otherwise skips some.
pub(crate) const fn skip_unless_equal(operand: u32, distance: u8) -> Instruction {
    instruction(JUMP_EQUAL, 0, distance, operand)
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    NotEqual,
    Less,
    LessEqual,
    Equal,
    GreaterEqual,
    Greater,
    MaskedEqual,
}

/// A condition on an argument of a system call, all 64 bits of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) index: u32,
    pub(crate) operator: Operator,
    /// The value to compare with, or the mask of [`Operator::MaskedEqual`].
    pub(crate) value: u64,
    /// The required value of the masked argument.
    pub(crate) value_two: u64,
}

impl Condition {
    /// Code that continues with the next instruction if the condition holds, and otherwise jumps by
    /// the marker [`TO_END`].
    fn emit(&self, code: &mut Vec<Instruction>) {
        // x86 is little-endian: the lower half comes first.
        let low = load(ARGUMENTS + 8 * self.index);
        let high = load(ARGUMENTS + 8 * self.index + 4);
        let (value_high, value_low) = halves(self.value);
        match self.operator {
            Operator::Equal => code.extend([
                high,
                instruction(JUMP_EQUAL, 0, TO_END, value_high),
                low,
                instruction(JUMP_EQUAL, 0, TO_END, value_low),
            ]),
            Operator::NotEqual => code.extend([
                high,
                instruction(JUMP_EQUAL, 0, 2, value_high),
                low,
                instruction(JUMP_EQUAL, TO_END, 0, value_low),
            ]),
            Operator::MaskedEqual => {
                let (wanted_high, wanted_low) = halves(self.value_two);
                for (half, mask, wanted) in [
                    (high, value_high, wanted_high),
                    (low, value_low, wanted_low),
                ] {
                    // Short code is worth it: the kernel translates it for each process.
                    if mask == 0 && wanted == 0 {
                        continue;
                    }
                    code.push(half);
                    if mask != u32::MAX {
                        code.push(instruction(AND, 0, 0, mask));
                    }
                    code.push(instruction(JUMP_EQUAL, 0, TO_END, wanted));
                }
            }
            Operator::Greater | Operator::GreaterEqual => {
                let compare = if self.operator == Operator::Greater {
                    JUMP_GREATER
                } else {
                    JUMP_GREATER_EQUAL
                };
                code.extend([
                    high,
                    instruction(JUMP_GREATER, 3, 0, value_high),
                    instruction(JUMP_EQUAL, 0, TO_END, value_high),
                    low,
                    instruction(compare, 0, TO_END, value_low),
                ]);
            }
            Operator::Less | Operator::LessEqual => {
                let compare = if self.operator == Operator::Less {
                    JUMP_GREATER_EQUAL
                } else {
                    JUMP_GREATER
                };
                code.extend([
                    high,
                    instruction(JUMP_GREATER, TO_END, 0, value_high),
                    instruction(JUMP_EQUAL, 0, 2, value_high),
                    low,
                    instruction(compare, TO_END, 0, value_low),
                ]);
            }
        }
    }
}

const fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

/// The decision about a system call: the first rule whose conditions all hold, otherwise the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) rules: Vec<(Vec<Condition>, u32)>,
    pub(crate) otherwise: u32,
}

impl Verdict {
    pub(super) fn emit(&self, code: &mut Vec<Instruction>) {
        for (conditions, action) in &self.rules {
            let mut block = Vec::new();
            for condition in conditions {
                condition.emit(&mut block);
            }
            block.push(ret(*action));
            // At most six conditions of six instructions: all distances fit into eight bits.
            let length = block.len();
            for (position, instruction) in block.iter_mut().enumerate() {
                let distance = (length - position - 1) as u8;
                if matches!(
                    instruction.code,
                    JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_EQUAL
                ) {
                    if instruction.jump_true == TO_END {
                        instruction.jump_true = distance;
                    }
                    if instruction.jump_false == TO_END {
                        instruction.jump_false = distance;
                    }
                }
            }
            code.extend(block);
        }
        code.push(ret(self.otherwise));
    }
}

//! The search for the verdict about a system call.
//!
//! The kernel translates a filter anew for each process that installs it, and needs longer for that
//! than for any other step of an exec. So the code is short: decisions of the same kind share their
//! last instruction where a conditional jump reaches it.

use std::collections::BTreeMap;

use keelson_sys::seccomp::Instruction;

use super::assemble::{JUMP_GREATER_EQUAL, Verdict, instruction, jump, ret};

/// How far a conditional jump goes, less than the 255 of the kernel: instructions may come in
/// between after the distance was measured.
const REACH: usize = 250;

/// A binary search for the accumulator. Each element is the first number of a range, with the
/// range's decision; the range ends before the next element. The first range starts at zero.
pub(crate) fn tree(ranges: &[(u32, &Verdict)]) -> Vec<Instruction> {
    let mut code = Backwards::default();
    match code.search(ranges) {
        Some(Target::Return(action)) => {
            code.ret(action);
        }
        Some(Target::Place(_)) | None => {}
    }
    code.instructions.reverse();
    code.instructions
}

/// Where a decision continues.
#[derive(Clone, Copy)]
enum Target {
    /// At an instruction that exists.
    Place(usize),
    /// At any instruction that returns this.
    Return(u32),
}

/// Code that grows at its beginning, because jumps only go forward. Places are counted from its end.
#[derive(Default)]
struct Backwards {
    instructions: Vec<Instruction>,
    /// The first of the instructions that return a value.
    returns: BTreeMap<u32, usize>,
}

impl Backwards {
    fn search(&mut self, ranges: &[(u32, &Verdict)]) -> Option<Target> {
        let (left, right) = ranges.split_at(ranges.len() / 2);
        match (left, right) {
            (_, []) => None,
            ([], [(_, verdict), ..]) => Some(self.verdict(verdict)),
            (_, [(middle, _), ..]) => {
                let (right, left) = (self.search(right)?, self.search(left)?);
                let (right, left) = (self.near(right), self.near(left));
                // What the second one needed may be in between now.
                let right = self.near(Target::Place(right));
                let (jump_true, jump_false) = (self.distance(right), self.distance(left));
                let branch = instruction(
                    JUMP_GREATER_EQUAL,
                    jump_true as u8,
                    jump_false as u8,
                    *middle,
                );
                Some(Target::Place(self.push(branch)))
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict) -> Target {
        if verdict.rules.is_empty() {
            return Target::Return(verdict.otherwise);
        }
        let mut code = Vec::new();
        verdict.emit(&mut code);
        self.instructions.extend(code.iter().rev());
        Target::Place(self.instructions.len() - 1)
    }

    /// A place that the next instruction can jump to, from where the decision continues at the target.
    fn near(&mut self, target: Target) -> usize {
        match target {
            Target::Return(action) => {
                let known = self.returns.get(&action).copied();
                match known.filter(|place| self.distance(*place) <= REACH) {
                    Some(place) => place,
                    None => self.ret(action),
                }
            }
            Target::Place(place) if self.distance(place) <= REACH => place,
            Target::Place(place) => self.push(jump(self.distance(place) as u32)),
        }
    }

    fn ret(&mut self, action: u32) -> usize {
        let place = self.push(ret(action));
        self.returns.insert(action, place);
        place
    }

    fn push(&mut self, instruction: Instruction) -> usize {
        self.instructions.push(instruction);
        self.instructions.len() - 1
    }

    /// The instructions between the next one and a place.
    fn distance(&self, place: usize) -> usize {
        self.instructions.len() - place - 1
    }
}

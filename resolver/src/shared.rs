//! What all containers share. There is one thread, and nobody keeps a borrow while waiting.

use std::cell::RefCell;

use crate::limits::MAX_ANSWER;
use crate::places::Count;
use crate::random::Random;
use crate::table::Table;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Which container has which names.
    pub(crate) table: RefCell<Table>,
    /// Numbers of questions, and orders of answers.
    pub(crate) random: RefCell<Random>,
    /// What is received. Its memory is used as far as packets reach.
    pub(crate) buffer: RefCell<Vec<u8>>,
    /// Questions that are being asked.
    pub(crate) in_flight: Count,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            table: RefCell::default(),
            random: RefCell::new(Random::new()),
            buffer: RefCell::new(Vec::with_capacity(MAX_ANSWER)),
            in_flight: Count::default(),
        }
    }
}

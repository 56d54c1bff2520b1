//! State that all containers share. There is one thread, and no task holds a borrow across an
//! await.

use std::cell::RefCell;

use crate::limits::MAX_ANSWER;
use crate::places::Count;
use crate::random::Random;
use crate::table::Table;

/// State that all containers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The names and addresses of all containers.
    pub(crate) table: RefCell<Table>,
    /// For identifiers of queries, and for the order of answers.
    pub(crate) random: RefCell<Random>,
    /// Buffer for received packets.
    pub(crate) buffer: RefCell<Vec<u8>>,
    /// Counts the open queries.
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

//! What benchmarks need: rounds in which the measured programs take turns, what a command and a
//! daemon used, statistics, tables. Benchmarks use public interfaces of the product only.

pub mod build;
pub mod bundle;
pub mod calls;
pub mod driver;
pub mod engines;
pub mod group;
pub mod memory;
pub mod rounds;
pub mod stats;
pub mod table;
pub mod tools;
pub mod usage;

//! What benchmarks need: rounds in which the measured programs take turns, what a command and a
//! daemon used, statistics, tables. Benchmarks use public interfaces of the product only.
//!
//! - [`build`], [`tools`]: the measured programs, ours and others'.
//! - [`engines`], [`bundle`]: what they run: engines with their daemons, bundles for runtimes.
//! - [`http`]: requests to daemons.
//! - [`rounds`]: the order of the measurements.
//! - [`driver`], [`usage`], [`group`], [`memory`], [`calls`]: one measurement: time, processor,
//!   memory, system calls.
//! - [`stats`], [`table`]: the result.

pub mod build;
pub mod bundle;
pub mod calls;
pub mod driver;
pub mod engines;
pub mod group;
pub mod http;
pub mod memory;
pub mod rounds;
pub mod stats;
pub mod table;
pub mod tools;
pub mod usage;

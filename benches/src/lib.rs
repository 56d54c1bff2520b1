//! Tools for benchmarks: rounds in which the measured programs take turns, the resources of
//! commands and daemons, statistics, tables. Benchmarks use only public interfaces of the product.
//!
//! - [`build`], [`tools`]: builds our programs, and finds those of others.
//! - [`subjects`]: which hostds are measured.
//! - [`engines`], [`bundle`]: the subjects: engines with their daemons, and bundles for runtimes.
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
pub mod subjects;
pub mod table;
pub mod tools;
pub mod usage;

//! Options of containers that involve several parts, each tested with the `docker` command.

mod common;
#[path = "options/images.rs"]
mod images;
#[path = "options/init.rs"]
mod init;
#[path = "options/ipc.rs"]
mod ipc;
#[path = "options/limits.rs"]
mod limits;
#[path = "options/propagation.rs"]
mod propagation;
#[path = "options/runtimes.rs"]
mod runtimes;
#[path = "options/users.rs"]
mod users;

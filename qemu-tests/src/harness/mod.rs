//! Starting QEMU on a Keelson disk, watching its console, and talking to the machine from outside:
//! QMP, the provisioning port, the APIs over mutual TLS, the docker command.
//!
//! ```no_run
//! use std::time::Duration;
//! use qemu_tests::harness::{Boot, Disk, MachineSpec};
//!
//! # fn main() -> Result<(), qemu_tests::harness::HarnessError> {
//! let machine = MachineSpec::new("demo", Boot::Uefi)
//!     .disk(Disk::snapshot("target/image/disk.raw"))
//!     .launch()?;
//! machine.wait_api(Duration::from_secs(120))?;
//! machine.docker(&["version"])?.success()?;
//! # Ok(()) }
//! ```

mod arguments;
pub mod assets;
mod child;
mod console;
pub mod disk;
mod error;
mod firmware;
mod http;
mod machine;
pub mod measurements;
mod prepare;
mod process;
mod provision;
mod qmp;
mod slots;
mod spec;
mod state;
mod tls;

pub use console::{Console, Line};
pub use error::HarnessError;
pub use http::{HttpError, HttpResponse};
pub use machine::Machine;
pub use process::{CommandOutput, docker_command, run};
pub use provision::{ClientKey, Credentials, Provisioned};
pub use qmp::{Qmp, QmpError};
pub use slots::Slot;
pub use spec::{Accel, Boot, Bus, Disk, DiskMode, Forward, MachineSpec, Network};
pub use state::{DetachedMachine, MachineState, Stopped};
pub use tls::{Identity, request};

//! `cargo xtask`: builds Keelson's binaries, the operating system image and its disks, and runs
//! and tests them.
//!
//! The stages, each skipped when nothing that it depends on has changed ([`stamp`]):
//!
//! 1. [`prerequisites`] installs what the building machine lacks ([`needs`], [`install`]).
//! 2. [`binaries`] builds our static executables.
//! 3. [`base`] lets mkosi build the Debian trees: the system and its services.
//! 4. [`overlay`] collects what we add: executables, initrd, the images of services (`layers`),
//!    defaults, the AppArmor profiles (`apparmor`).
//! 5. [`deployment`] commits both to an ostree repository and deploys the commit.
//! 6. [`disk`] writes the deployment into a GPT disk image.
//!
//! [`image`] runs these stages; [`machine`] boots the result on a disk of the developer's own
//! ([`vm_disk`]); [`testing`] runs all tests; [`beside`] measures. Helpers: [`apt`], [`distribution`], [`privilege`] and
//! [`tools`] for the building machine, [`clients`] for the programs that tests drive, [`cpio`] and
//! [`initrd`] for the initrd, [`progress`] and [`spent`] for the terminal, [`workspace`] for paths.

mod apparmor;
pub mod apt;
pub mod base;
pub mod beside;
pub mod binaries;
pub mod clients;
pub mod cpio;
pub mod deployment;
pub mod disk;
pub mod distribution;
pub mod image;
pub mod initrd;
pub mod install;
mod layers;
pub mod machine;
pub mod needs;
pub mod overlay;
pub mod prerequisites;
pub mod privilege;
pub mod progress;
pub mod spent;
pub mod stamp;
pub mod testing;
pub mod tools;
pub mod vm_disk;
pub mod workspace;

//! `cargo xtask`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use image_build::prerequisites::{self, Purpose};
use image_build::testing::Stage;
use image_build::workspace::{Profile, Workspace};
use image_build::{beside, binaries, clients, image, machine, progress, testing, vm_disk};

/// Builds Keelson's executables and images, and runs and tests them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what this machine lacks for building, running and testing.
    Setup {
        /// Only what this needs.
        #[arg(long = "for", value_enum, default_value_t = Purpose::Test)]
        purpose: Purpose,
    },
    /// Build the static executables.
    Build {
        /// As they are shipped: small and fast, and minutes of compiling.
        #[arg(long)]
        release: bool,
    },
    /// Build the operating system image: target/image/disk.raw, and kernel, initrd and command
    /// line for direct boot.
    #[command(alias = "disk")]
    Image {
        /// Take the newest Debian packages although nothing else has changed.
        #[arg(long)]
        refresh: bool,
        /// Also pack the disk into target/image/disk.qcow2.
        #[arg(long)]
        compressed: bool,
        /// With executables as they are shipped: small and fast, and minutes of compiling.
        #[arg(long)]
        release: bool,
        /// Use the existing executables instead of letting cargo build them.
        #[arg(long)]
        prebuilt: bool,
        /// Leave out the console: no ssh and no logins, for a smaller download.
        #[arg(long)]
        without_console: bool,
    },
    /// Build everything and boot it in QEMU; Ctrl-C powers the machine off.
    Run(Run),
    /// Power off the machine that `run --detach` left in the background.
    Stop,
    /// Run all tests, or some of them.
    Test {
        /// Only these, separated by commas.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Stage>,
        /// Test the executables and the image as they are shipped.
        #[arg(long)]
        release: bool,
    },
    /// Boot our image and Debian with docker.io in turns, and compare time and memory. Needs root and
    /// a machine that does nothing else.
    Beside {
        /// How often both are booted; 0 builds only.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// With executables as they are shipped: small and fast, and minutes of compiling.
        #[arg(long)]
        release: bool,
        /// Use the existing executables instead of letting cargo build them.
        #[arg(long)]
        prebuilt: bool,
    },
    /// Remove images, virtual machines and fetched tools; cargo's own files stay.
    Clean,
}

#[derive(Debug, Args)]
struct Run {
    /// Return once the API answers, and leave the machine running; `stop` ends it.
    #[arg(long)]
    detach: bool,
    /// Memory, such as 2G; 1G unless said otherwise.
    #[arg(long, value_parser = vm_disk::parse_size)]
    memory: Option<u64>,
    /// Virtual processors; 2 with KVM, 1 with software emulation.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// Size of the disk, such as 20G; the root file system grows into it.
    #[arg(long, value_parser = vm_disk::parse_size)]
    disk_size: Option<u64>,
    /// Boot through UEFI firmware and the boot loader on the disk (the default).
    #[arg(long, conflicts_with = "direct")]
    uefi: bool,
    /// Let QEMU load the kernel itself, which is faster.
    #[arg(long)]
    direct: bool,
    /// With executables as they are shipped: small and fast, and minutes of compiling.
    #[arg(long)]
    release: bool,
    /// Forward 127.0.0.1:HOST to the machine's port GUEST; may be repeated.
    #[arg(long, value_name = "HOST:GUEST", value_parser = machine::parse_publish)]
    publish: Vec<(u16, u16)>,
    /// A host.toml for the machine.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Begin with a new disk, even if that of the last run could be used again.
    #[arg(long)]
    fresh: bool,
    /// Use the existing executables instead of letting cargo build them.
    #[arg(long)]
    prebuilt: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let workspace = Workspace::locate()?;
    match arguments.command {
        Task::Setup { purpose } => {
            prerequisites::ensure(&workspace, purpose)?;
            let complete = purpose < Purpose::Test || clients::fetch(&workspace);
            progress::say(match complete {
                true => "This machine has everything.",
                false => "This machine has everything but the clients named above.",
            });
            Ok(())
        }
        Task::Build { release } => {
            let workspace = workspace.with_profile(profile(release));
            prerequisites::ensure(&workspace, Purpose::Build)?;
            binaries::build(&workspace)?;
            binaries::list(&workspace)
        }
        Task::Image {
            refresh,
            compressed,
            release,
            prebuilt,
            without_console,
        } => {
            let workspace = workspace.with_profile(profile(release));
            prerequisites::ensure(&workspace, Purpose::Image)?;
            let options = image::BuildOptions {
                refresh,
                compressed,
                prebuilt,
                without_console,
            };
            image::build(&workspace, options).map(drop)
        }
        Task::Run(run) => {
            let workspace = workspace.with_profile(profile(run.release));
            prerequisites::ensure(&workspace, Purpose::Run)?;
            let options = machine::Options {
                detach: run.detach,
                memory: run.memory,
                cpus: run.cpus,
                disk_size: run.disk_size,
                direct: run.direct,
                publish: run.publish,
                config: run.config,
                fresh: run.fresh,
                prebuilt: run.prebuilt,
            };
            machine::run(&workspace, &options)
        }
        Task::Stop => machine::stop(&workspace),
        Task::Test { only, release } => {
            let workspace = workspace.with_profile(profile(release));
            prerequisites::ensure(&workspace, Purpose::Test)?;
            testing::run(&workspace, &only)
        }
        Task::Beside {
            rounds,
            release,
            prebuilt,
        } => {
            let workspace = workspace.with_profile(profile(release));
            prerequisites::ensure(&workspace, Purpose::Run)?;
            beside::run(&workspace, rounds, prebuilt)
        }
        Task::Clean => {
            image::clean(&workspace)?;
            progress::say("Removed images, virtual machines, tools and logs.");
            Ok(())
        }
    }
}

fn profile(release: bool) -> Profile {
    if release {
        Profile::Release
    } else {
        Profile::Quick
    }
}

//! `cargo xtask`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use image_build::workspace::Workspace;
use image_build::{binaries, image, progress};

/// Builds Keelson's executables and images, and runs and tests them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the static executables.
    Build,
    /// Build the operating system image: target/image/disk.raw, and kernel, initrd and command line for direct boot.
    #[command(alias = "disk")]
    Image {
        /// Take the newest Debian packages although nothing else has changed.
        #[arg(long)]
        refresh: bool,
        /// Also pack the disk into target/image/disk.qcow2.
        #[arg(long)]
        compressed: bool,
        /// Take the executables that are there instead of letting cargo build them.
        #[arg(long)]
        prebuilt: bool,
    },
    /// Remove images, virtual machines and fetched tools; cargo's own files stay.
    Clean,
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
        Task::Build => {
            binaries::build(&workspace)?;
            binaries::list(&workspace)
        }
        Task::Image {
            refresh,
            compressed,
            prebuilt,
        } => {
            let options = image::Options {
                refresh,
                compressed,
                prebuilt,
            };
            image::build(&workspace, options).map(drop)
        }
        Task::Clean => {
            image::clean(&workspace)?;
            progress::say("Removed images, virtual machines, tools and logs.");
            Ok(())
        }
    }
}

//! Waits for the root device.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::block::{self, Examined, Tables};
use super::firmware;
use super::root::{Choice, RootSpec, choose};
use crate::cmdline::CommandLine;
use crate::console;
use crate::modules::{Loader, ModuleError, ModuleOptions, aliases_of_devices};
use crate::uevent::{Received, UeventSocket};

/// How long a second device with the same label is waited for when drivers had to be loaded:
/// disks behind the same adapter do not appear at the same moment.
const SETTLE: Duration = Duration::from_millis(500);

/// Why there is no root device.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// It did not appear in time.
    #[error("no root device {spec} within {seconds} s; block devices present: {present}")]
    Missing {
        spec: String,
        seconds: u64,
        present: String,
    },
    /// Several devices match, and nothing tells which one belongs to this system.
    #[error(
        "root device {spec} is ambiguous: {} have it. Remove all disks but one, give the copies \
         new identifiers, or name the partition by root=PARTUUID=",
        names.join(" and ")
    )]
    Ambiguous { spec: String, names: Vec<String> },
    /// The event socket broke.
    #[error("wait for device events: {0}")]
    Events(#[source] std::io::Error),
}

/// The drivers in the initrd. They are loaded only if the modules that the initrd always loads did
/// not bring up the root device: each driver costs time, and stage 2 has them all.
pub(crate) struct Drivers {
    loader: Loader,
    loaded: bool,
}

impl Drivers {
    /// Nothing is loaded yet.
    pub(crate) fn new(command_line: &CommandLine) -> Self {
        Self {
            loader: Loader::open(ModuleOptions::of(command_line.clone())),
            loaded: false,
        }
    }

    /// Loads the drivers of the devices present, once.
    fn load_for_present(&mut self) -> bool {
        if std::mem::replace(&mut self.loaded, true) {
            return false;
        }
        for alias in aliases_of_devices(Path::new("/sys")) {
            report(&self.loader.load_for_device(&alias));
        }
        true
    }

    /// Loads the drivers of a device that appeared.
    fn load_for(&mut self, modalias: &str) {
        if self.loaded {
            report(&self.loader.load_for_device(modalias));
        }
    }
}

fn report(errors: &[ModuleError]) {
    for error in errors {
        console::warning(&error.to_string());
    }
}

/// Waits until the device exists, and returns its kernel name (`vda2`). Loads drivers from the
/// initrd if they are needed for that.
pub(crate) fn wait_for(
    spec: &RootSpec,
    spec_text: &str,
    events: &UeventSocket,
    drivers: &mut Drivers,
    limit: Duration,
) -> Result<String, DeviceError> {
    let boot_partition = firmware::boot_partition(&mut drivers.loader);
    let deadline = Instant::now() + limit;
    let mut first_seen = None;
    let mut examined = Examined::default();
    loop {
        // The socket was opened before this check, so no event is missed.
        let blocks = block::devices();
        let mut tables = Tables::default();
        let candidates = block::matching(spec, &blocks, &mut tables);
        let boot = block::boot_disk(boot_partition.as_deref(), &blocks, &mut tables);
        let settle = match drivers.loaded {
            true => SETTLE,
            false => Duration::ZERO,
        };
        let choice = choose(spec, candidates, &boot, settle);
        let now = Instant::now();
        let wake = match &choice {
            Choice::Certain(name) => return Ok(name.clone()),
            Choice::None => {
                if drivers.load_for_present() || examined.examine(&blocks) {
                    continue;
                }
                deadline
            }
            Choice::Unless { better_within, .. } | Choice::Several { better_within, .. } => {
                // The better device may be behind a driver that is not loaded yet.
                if !better_within.is_zero() && drivers.load_for_present() {
                    continue;
                }
                let seen = *first_seen.get_or_insert(now);
                seen.checked_add(*better_within)
                    .map_or(deadline, |at| at.min(deadline))
            }
        };
        if now >= wake {
            return match choice {
                Choice::Unless { name, remark, .. } => {
                    if let Some(remark) = remark {
                        console::warning(&remark);
                    }
                    Ok(name)
                }
                Choice::Several { names, .. } => Err(DeviceError::Ambiguous {
                    spec: spec_text.to_owned(),
                    names,
                }),
                Choice::None | Choice::Certain(_) => Err(DeviceError::Missing {
                    spec: spec_text.to_owned(),
                    seconds: limit.as_secs(),
                    present: examined.describe(&blocks),
                }),
            };
        }
        wait_for_event(events, drivers, wake.saturating_duration_since(now))?;
    }
}

/// Waits for events of devices at most this long, and loads the drivers of those that appeared.
fn wait_for_event(
    events: &UeventSocket,
    drivers: &mut Drivers,
    limit: Duration,
) -> Result<(), DeviceError> {
    let mut descriptors = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
    // Rounded up: waking a moment early would search for nothing.
    let timeout = PollTimeout::try_from(limit + Duration::from_millis(1));
    match poll(&mut descriptors, timeout.unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(error) => return Err(DeviceError::Events(error.into())),
    }
    loop {
        match events.receive().map_err(DeviceError::Events)? {
            Received::Event(event) => {
                if let (true, Some(modalias)) = (event.action == "add", &event.modalias) {
                    drivers.load_for(modalias);
                }
            }
            Received::Lost | Received::Foreign => {}
            Received::Nothing => return Ok(()),
        }
    }
}

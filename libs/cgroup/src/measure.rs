//! Reads the figures of a cgroup and of the machine.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::Step;
use crate::figures::{
    CpuFigures, DeviceFigures, Limit, MemoryDetails, MemoryFigures, PidsFigures, ProcessorFigures,
    limit, number, value,
};
use crate::{Cgroup, CgroupError};

/// Largest file that is read, in bytes. A usual file has less than 4 KiB, but a machine may have
/// many devices.
const LARGEST: u64 = 64 << 10;

/// The usage of a cgroup and those below it. `None`: the cgroup does not have the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Processor time, which is counted without the controller, too.
    pub cpu: CpuFigures,
    /// Memory.
    pub memory: Option<MemoryFigures>,
    /// Processes and threads.
    pub pids: Option<PidsFigures>,
    /// Block devices.
    pub devices: Option<Vec<DeviceFigures>>,
}

impl Figures {
    /// Reads the figures of a cgroup.
    ///
    /// # Errors
    /// There is no such cgroup.
    pub fn read(group: &Path) -> Result<Self, CgroupError> {
        let cgroup = Cgroup::open(group.to_owned())?;
        let directory = cgroup.directory();
        let file = |name: &str| {
            read(directory, name).step(|| format!("read {}", group.join(name).display()))
        };
        // Every cgroup has this file: without it the cgroup was removed meanwhile.
        let cpu = file("cpu.stat")?
            .ok_or(io::ErrorKind::NotFound)
            .step(|| format!("read {}", group.join("cpu.stat").display()))?;
        Ok(Self {
            cpu: CpuFigures::parse(&cpu),
            memory: match file("memory.current")?.as_deref().and_then(number) {
                Some(current) => Some(MemoryFigures {
                    current,
                    limit: limit_of(file("memory.max")?),
                    out_of_memory: value(&file("memory.events")?.unwrap_or_default(), "oom"),
                    details: MemoryDetails::parse(&file("memory.stat")?.unwrap_or_default()),
                }),
                None => None,
            },
            pids: match file("pids.current")?.as_deref().and_then(number) {
                Some(current) => Some(PidsFigures {
                    current,
                    limit: limit_of(file("pids.max")?),
                }),
                None => None,
            },
            devices: file("io.stat")?.map(|text| DeviceFigures::parse_all(&text)),
        })
    }
}

impl ProcessorFigures {
    /// Reads `/proc/stat`.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read() -> Result<Self, CgroupError> {
        let text = read(rustix::fs::CWD, "/proc/stat").step(|| "read /proc/stat".to_owned())?;
        let ticks = rustix::param::clock_ticks_per_second();
        Ok(Self::parse(&text.unwrap_or_default(), ticks))
    }
}

fn limit_of(text: Option<Vec<u8>>) -> Limit {
    text.as_deref().and_then(limit).unwrap_or(Limit::Unlimited)
}

/// The complete lines of a file up to the limit; `None` if there is no such file.
fn read(directory: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut text = Vec::with_capacity(4096);
    file.take(LARGEST).read_to_end(&mut text)?;
    if text.len() as u64 == LARGEST {
        let end = text.iter().rposition(|byte| *byte == b'\n');
        text.truncate(end.map_or(0, |end| end + 1));
    }
    Ok(Some(text))
}

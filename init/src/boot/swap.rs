//! Swap space, if the machine is configured to have some: compressed in memory (zram), or a file on
//! /var.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FallocateFlags, fallocate};

use keelson_model::host::SwapConfig;

use super::program;
use crate::cmdline::CommandLine;
use crate::modules::HELPER_LOAD;

/// The swap file.
const FILE: &str = "/var/lib/keelson/swap";
const DEVICE: &str = "/dev/zram0";
const DISK_SIZE: &str = "/sys/block/zram0/disksize";
/// How long loading the module may take.
const MODULE_LIMIT: Duration = Duration::from_secs(10);
/// Compressed memory is filled first: it is faster than any disk.
const ZRAM_PRIORITY: u16 = 100;
const FILE_PRIORITY: u16 = 10;
/// Bytes of a page, which swap areas are made of.
const PAGE: u64 = 4096;

/// How much swap space the machine is to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Size of the compressed device, uncompressed, in percent of the memory; 0: none.
    pub(super) zram_percent: u32,
    /// Size of the file in bytes; 0: none.
    pub(super) file_bytes: u64,
}

impl Wanted {
    /// What the configuration says, unless `keelson.zram=` (percent) and `keelson.swap=` (MiB) on
    /// the kernel command line say otherwise.
    pub(super) fn read(command_line: &CommandLine, config: &SwapConfig) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut number = |name: &str, most: u32| match command_line.value(name)?.parse() {
            Ok(value) if value <= most => Some(value),
            _ => {
                problems.push(format!(
                    "{name}= is not a number from 0 to {most} and is passed over"
                ));
                None
            }
        };
        let zram = number("keelson.zram", 400);
        let file = number("keelson.swap", u32::MAX).map(|mib| u64::from(mib) << 20);
        let wanted = Self {
            zram_percent: zram.unwrap_or(config.zram_percent),
            file_bytes: file.unwrap_or(config.file_bytes),
        };
        (wanted, problems)
    }
}

/// Makes and uses the swap space that the command line and the configuration ask for. What is in use
/// already stays as it is.
pub(super) fn apply(command_line: &CommandLine, config: &SwapConfig) -> Vec<String> {
    let (wanted, mut problems) = Wanted::read(command_line, config);
    problems.extend(set_up(wanted, &in_use()));
    problems
}

fn set_up(wanted: Wanted, in_use: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if wanted.zram_percent > 0 && !uses(in_use, DEVICE) {
        problems.extend(
            zram(wanted.zram_percent)
                .err()
                .map(|e| format!("{DEVICE}: {e}")),
        );
    }
    if uses(in_use, FILE) {
        return problems;
    }
    if wanted.file_bytes > 0 {
        let file = Path::new(FILE);
        problems.extend(
            file_swap(file, wanted.file_bytes)
                .err()
                .map(|e| format!("{FILE}: {e}")),
        );
    } else if let Err(error) = fs::remove_file(FILE)
        && error.kind() != io::ErrorKind::NotFound
    {
        problems.push(format!("remove {FILE}: {error}"));
    }
    problems
}

/// Gives the file back before /var is unmounted. What is in it is little: all processes have ended.
pub(crate) fn release() -> Option<String> {
    if !uses(&in_use(), FILE) {
        return None;
    }
    keelson_sys::swap::off(Path::new(FILE))
        .err()
        .map(|error| format!("swapoff {FILE}: {error}"))
}

fn in_use() -> String {
    fs::read_to_string("/proc/swaps").unwrap_or_default()
}

/// Whether a file or device is in the text of /proc/swaps.
fn uses(in_use: &str, area: &str) -> bool {
    in_use
        .lines()
        .any(|line| line.split_whitespace().next() == Some(area))
}

fn zram(percent: u32) -> io::Result<()> {
    if !Path::new(DISK_SIZE).exists() {
        // In a process of its own, as all modules.
        let mut load = Command::new(crate::PROGRAM);
        load.args([HELPER_LOAD, "zram"]);
        program::succeed(&mut load, MODULE_LIMIT).map_err(io::Error::other)?;
    }
    let info = fs::read_to_string("/proc/meminfo")?;
    let memory = memory(&info).ok_or(io::ErrorKind::InvalidData)?;
    let size = memory / 100 * u64::from(percent) / PAGE * PAGE;
    fs::write(DISK_SIZE, size.to_string())?;
    let device = OpenOptions::new().write(true).open(DEVICE)?;
    device.write_all_at(&header(size).ok_or(io::ErrorKind::InvalidInput)?, 0)?;
    drop(device);
    Ok(keelson_sys::swap::on(Path::new(DEVICE), ZRAM_PRIORITY)?)
}

/// Uses the file, and makes it first if it has another size. A file that was not finished has no
/// header, and is made again.
fn file_swap(path: &Path, size: u64) -> io::Result<()> {
    let size = size / PAGE * PAGE;
    let header = header(size).ok_or(io::ErrorKind::InvalidInput)?;
    if !is_made(path, size) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let made = make(path, size, &header);
        if made.is_err() {
            let _ = fs::remove_file(path);
        }
        made?;
    }
    Ok(keelson_sys::swap::on(path, FILE_PRIORITY)?)
}

fn is_made(path: &Path, size: u64) -> bool {
    let check = || -> io::Result<bool> {
        let file = File::open(path)?;
        let mut magic = [0; 10];
        file.read_exact_at(&mut magic, PAGE - 10)?;
        Ok(file.metadata()?.len() == size && magic == *MAGIC)
    };
    check().unwrap_or(false)
}

fn make(path: &Path, size: u64, header: &[u8]) -> io::Result<()> {
    let free = nix::sys::statvfs::statvfs(path.parent().unwrap_or(path))?;
    if size > free.blocks_available().saturating_mul(free.fragment_size()) / 2 {
        return Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "it would take more than half of the free space; configure a smaller one",
        ));
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let length = i64::try_from(size).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // The kernel takes no file with holes.
    fallocate(&file, FallocateFlags::empty(), 0, length)?;
    file.sync_all()?;
    file.write_all_at(header, 0)?;
    file.sync_all()
}

/// At the end of the first page.
const MAGIC: &[u8; 10] = b"SWAPSPACE2";

/// The first page of a swap area (`union swap_header` of linux/swap.h): version 1, number of the last
/// page, magic. `None` for a size without room.
fn header(size: u64) -> Option<Vec<u8>> {
    let last = u32::try_from((size / PAGE).checked_sub(1)?)
        .ok()
        .filter(|last| *last >= 9)?;
    let mut page = vec![0; PAGE as usize];
    page.get_mut(1024..1028)?
        .copy_from_slice(&1_u32.to_le_bytes());
    page.get_mut(1028..1032)?
        .copy_from_slice(&last.to_le_bytes());
    page.get_mut(PAGE as usize - 10..)?.copy_from_slice(MAGIC);
    Some(page)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn memory(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_the_last_word() {
        let config = SwapConfig {
            zram_percent: 25,
            file_bytes: 1 << 30,
        };
        let of = |text: &str| Wanted::read(&CommandLine::parse(text.as_bytes()), &config);
        let configured = Wanted {
            zram_percent: 25,
            file_bytes: 1 << 30,
        };
        assert_eq!(of(""), (configured, Vec::new()));
        let (wanted, problems) = of("keelson.zram=50 keelson.swap=512");
        assert_eq!((wanted.zram_percent, wanted.file_bytes), (50, 512 << 20));
        assert!(problems.is_empty());
        let (wanted, problems) = of("keelson.zram=0 keelson.swap=0");
        assert_eq!((wanted, problems.len()), (Wanted::default(), 0));
        let (wanted, problems) = of("keelson.zram=much keelson.swap=-1");
        assert_eq!((wanted, problems.len()), (configured, 2));
    }

    #[test]
    fn what_is_in_use_is_left_alone() {
        let swaps =
            "Filename\tType\tSize\n/dev/zram0  partition\t1\n/var/lib/keelson/swap file 1\n";
        assert!(uses(swaps, DEVICE) && uses(swaps, FILE));
        assert!(!uses(swaps, "/dev/zram") && !uses("", FILE));
        let wanted = Wanted {
            zram_percent: 10,
            file_bytes: 1 << 30,
        };
        assert!(set_up(wanted, swaps).is_empty());
    }

    #[test]
    fn the_header_is_what_the_kernel_reads() {
        let page = header(1 << 20).unwrap();
        assert_eq!(page.len(), 4096);
        let found = crate::disk::volume::identify(|offset, length| {
            (offset == 0).then(|| page.get(..length).unwrap().to_vec())
        });
        assert_eq!(found.unwrap().kind, "swap");
        assert_eq!(page[1028..1032], 255_u32.to_le_bytes());
        assert_eq!(header(0), None);
        assert_eq!(header(4096 * 5), None);
    }

    #[test]
    fn a_file_that_was_not_finished_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("swap");
        assert!(!is_made(&path, 1 << 20));
        let page = header(1 << 20).unwrap();
        make(&path, 1 << 20, &page).unwrap();
        assert!(is_made(&path, 1 << 20));
        assert!(!is_made(&path, 2 << 20));
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&[0; 4096], 0)
            .unwrap();
        assert!(!is_made(&path, 1 << 20));
        let error = make(&directory.path().join("huge"), 1 << 60, &page).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(
            memory("MemTotal:  1000 kB\nMemFree: 1 kB\n"),
            Some(1_024_000)
        );
        assert_eq!(memory(""), None);
    }
}

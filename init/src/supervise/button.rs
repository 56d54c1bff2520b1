//! The power button, through the input subsystem (`Documentation/input/event-codes.rst`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// `EV_KEY`
const EV_KEY: u16 = 1;
/// `KEY_POWER`
const KEY_POWER: u16 = 116;
/// `struct input_event` on 64-bit machines: two 64-bit words of time, type, code, value.
const EVENT_LENGTH: usize = 24;

/// Whether a device has a key, according to the device's `capabilities/key`: words of the kernel's
/// `long` in hexadecimal, the highest first.
fn has_key(bitmap: &str, key: u16) -> bool {
    let (word, bit) = (usize::from(key / 64), key % 64);
    bitmap
        .split_whitespace()
        .rev()
        .nth(word)
        .and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> bit & 1 == 1)
}

/// Whether the bytes of events contain a press of the power button.
fn pressed(bytes: &[u8]) -> bool {
    bytes.chunks_exact(EVENT_LENGTH).any(|event| {
        let u16_at = |at: usize| {
            let field = event
                .get(at..at + 2)
                .and_then(|field| field.try_into().ok());
            field.map(u16::from_le_bytes)
        };
        let value = event.get(20..24).and_then(|field| field.try_into().ok());
        u16_at(16) == Some(EV_KEY)
            && u16_at(18) == Some(KEY_POWER)
            && value.map(i32::from_le_bytes) == Some(1)
    })
}

/// An input device with a power button.
pub(crate) struct Button {
    /// `event0`
    pub(crate) name: String,
    device: File,
}

impl Button {
    /// Opens the device `name` (`event0`) if it has a power button.
    pub(crate) fn open(name: &str) -> io::Result<Option<Self>> {
        let keys = Path::new("/sys/class/input")
            .join(name)
            .join("device/capabilities/key");
        if !crate::files::first_line(keys).is_some_and(|bitmap| has_key(&bitmap, KEY_POWER)) {
            return Ok(None);
        }
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(Path::new("/dev/input").join(name))?;
        Ok(Some(Self {
            name: name.to_owned(),
            device,
        }))
    }

    /// Names of the input devices present.
    pub(crate) fn devices() -> Vec<String> {
        std::fs::read_dir("/sys/class/input")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("event"))
            .collect()
    }

    /// Reads the pending events: whether the button was pressed. An error means that the
    /// device is gone.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        let mut found = false;
        let mut buffer = [0u8; EVENT_LENGTH * 64];
        loop {
            match self.device.read(&mut buffer) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                Ok(length) => found |= pressed(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Button {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&code.to_le_bytes());
        bytes.extend_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn bitmap_of_the_acpi_button() {
        assert!(has_key("10000000000000 0", KEY_POWER));
        assert!(!has_key("10000000000000", KEY_POWER));
        assert!(!has_key("0 0", KEY_POWER));
        assert!(!has_key("", KEY_POWER));
        assert!(!has_key("zz 0", KEY_POWER));
    }

    #[test]
    fn a_press_counts_and_a_release_does_not() {
        let mut bytes = event(0, 0, 0);
        bytes.extend(event(EV_KEY, KEY_POWER, 0));
        bytes.extend(event(EV_KEY, 30, 1));
        assert!(!pressed(&bytes));
        bytes.extend(event(EV_KEY, KEY_POWER, 1));
        assert!(pressed(&bytes));
        bytes.truncate(bytes.len() - 1);
        assert!(!pressed(&bytes));
    }
}

//! Recognises file systems by their superblocks: the type, the label and the UUID that mount(8),
//! `root=` and `/dev/disk/by-*` use. The formats are those of libblkid.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::ext4;

/// A file system or swap area on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    /// `ext4`, `xfs`, `btrfs`, `vfat`, `iso9660` or `swap`. All of ext2 to ext4 are `ext4`.
    pub(crate) kind: &'static str,
    /// The label as its bytes are, without padding; empty without one.
    pub(crate) label: Vec<u8>,
    /// The UUID in the type's own notation, in lower case except for FAT's `ABCD-0123`.
    pub(crate) uuid: String,
}

/// Reads the superblocks of a device. `None` if none is known, or the device can't be read.
pub(crate) fn of_device(node: &Path) -> Option<Volume> {
    let device = File::open(node).ok()?;
    identify(|offset, length| {
        let mut bytes = vec![0; length];
        device.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    })
}

/// Recognises what `read` (offset and length in bytes) returns the content of.
pub(crate) fn identify(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Volume> {
    let start = read(0, 4096)?;
    ext(&start)
        .or_else(|| xfs(&start))
        .or_else(|| swap(&start))
        .or_else(|| fat(&start))
        .or_else(|| iso9660(&read(0x8000, 2048)?))
        .or_else(|| btrfs(&read(0x1_0000, 1024)?))
}

fn ext(start: &[u8]) -> Option<Volume> {
    let superblock = ext4::Superblock::parse(start.get(ext4::OFFSET as usize..)?)?;
    Some(Volume {
        kind: "ext4",
        label: superblock.label,
        uuid: superblock.uuid,
    })
}

fn xfs(start: &[u8]) -> Option<Volume> {
    (start.get(..4)? == b"XFSB").then_some(())?;
    Some(Volume {
        kind: "xfs",
        label: text(start.get(108..120)?),
        uuid: uuid(start.get(32..48)?)?,
    })
}

fn swap(start: &[u8]) -> Option<Volume> {
    (start.get(4086..4096)? == b"SWAPSPACE2").then_some(())?;
    Some(Volume {
        kind: "swap",
        label: text(start.get(1052..1068)?),
        uuid: uuid(start.get(1036..1052)?)?,
    })
}

fn fat(start: &[u8]) -> Option<Volume> {
    (start.get(510..512)? == [0x55, 0xAA]).then_some(())?;
    let (serial, label) = if start.get(82..90)? == b"FAT32   " {
        (start.get(67..71)?, start.get(71..82)?)
    } else if start.get(54..58)? == b"FAT1" {
        (start.get(39..43)?, start.get(43..54)?)
    } else {
        return None;
    };
    let serial = u32::from_le_bytes(serial.try_into().ok()?);
    let label = text(label);
    Some(Volume {
        kind: "vfat",
        label: if label == b"NO NAME" {
            Vec::new()
        } else {
            label
        },
        uuid: format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff),
    })
}

fn iso9660(descriptor: &[u8]) -> Option<Volume> {
    (descriptor.get(..6)? == b"\x01CD001").then_some(())?;
    // The time of the last change, or of the creation, as digits; both may be zeros.
    let time = [830..846, 813..829]
        .into_iter()
        .filter_map(|range| descriptor.get(range))
        .find(|digits| digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|d| *d != b'0'));
    let parts = [
        (0, 4),
        (4, 6),
        (6, 8),
        (8, 10),
        (10, 12),
        (12, 14),
        (14, 16),
    ];
    let uuid: Vec<String> = parts
        .into_iter()
        .filter_map(|(from, to)| time?.get(from..to))
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    Some(Volume {
        kind: "iso9660",
        label: text(descriptor.get(40..72)?),
        uuid: uuid.join("-"),
    })
}

fn btrfs(superblock: &[u8]) -> Option<Volume> {
    (superblock.get(0x40..0x48)? == b"_BHRfS_M").then_some(())?;
    Some(Volume {
        kind: "btrfs",
        label: text(superblock.get(0x12b..0x22b)?),
        uuid: uuid(superblock.get(0x20..0x30)?)?,
    })
}

/// A field that ends at the first zero byte and is padded with blanks.
fn text(field: &[u8]) -> Vec<u8> {
    let field = field.split(|byte| *byte == 0).next().unwrap_or_default();
    field.trim_ascii_end().to_vec()
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(uuid::Uuid::from_bytes(bytes).hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Makes a file system by a tool of the distribution, and recognises it. `None` if the machine
    /// does not have the tool.
    fn made(program: &str, arguments: &[&str]) -> Option<Volume> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        File::create(&path).unwrap().set_len(320 << 20).unwrap();
        let mut command = Command::new(program);
        match command.args(arguments).arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => {
                keelson_testing::skip(program, error);
                return None;
            }
        }
        Some(of_device(&path).unwrap())
    }

    #[test]
    fn what_real_tools_write_is_recognised() {
        let wanted = "0b5c9d3e-2f60-4b8a-9c1e-7a4f5d6e8f90";
        if let Some(found) = made(
            "/usr/sbin/mkfs.ext4",
            &["-q", "-L", "my root", "-U", wanted],
        ) {
            assert_eq!(found.kind, "ext4");
            assert_eq!(found.label, b"my root");
            assert_eq!(found.uuid, wanted);
        }
        if let Some(found) = made("/usr/sbin/mkfs.vfat", &["-n", "CIDATA", "-i", "12ab34cd"]) {
            assert_eq!(found.kind, "vfat");
            assert_eq!(found.label, b"CIDATA");
            assert_eq!(found.uuid, "12AB-34CD");
        }
        if let Some(found) = made("/usr/sbin/mkswap", &["-q", "-L", "spare", "-U", wanted]) {
            assert_eq!(
                (found.kind, found.label.as_slice()),
                ("swap", &b"spare"[..])
            );
            assert_eq!(found.uuid, wanted);
        }
    }

    #[test]
    fn a_disc_is_recognised_by_its_descriptor() {
        let mut descriptor = vec![b' '; 2048];
        descriptor[..6].copy_from_slice(b"\x01CD001");
        descriptor[40..46].copy_from_slice(b"cidata");
        descriptor[813..829].copy_from_slice(b"2026113006250100");
        descriptor[830..846].copy_from_slice(b"0000000000000000");
        let read = |offset, length: usize| match offset {
            0x8000 => Some(descriptor.clone()),
            _ => Some(vec![0; length]),
        };
        let found = identify(read).unwrap();
        assert_eq!(
            (found.kind, found.label.as_slice()),
            ("iso9660", &b"cidata"[..])
        );
        assert_eq!(found.uuid, "2026-11-30-06-25-01-00");
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(identify(|_, length| Some(vec![0; length])), None);
        assert_eq!(identify(|_, _| None), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(start in proptest::collection::vec(0u8.., 0..4200)) {
            for parser in [ext, xfs, swap, fat, iso9660, btrfs] {
                let _ = parser(&start);
            }
        }
    }
}

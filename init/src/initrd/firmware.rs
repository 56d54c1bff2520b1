//! The disk that the firmware booted from, as the boot loader reports it
//! (systemd's Boot Loader Interface: EFI variable `LoaderDevicePartUUID`).

use std::fs;
use std::path::Path;

use crate::modules::Loader;
use crate::mount::{self, DATA_ONLY};

/// Exists on machines with EFI firmware.
const EFI: &str = "/sys/firmware/efi";
/// Where the variables are mounted; stage 2 keeps the mount.
const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Name and vendor GUID of the variable: the GUID of the partition that the boot loader lies on.
const DEVICE: &str = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The GUID of the EFI system partition that the boot loader was started from, in lower case.
/// `None` without EFI, or if another loader was used (or none, as by QEMU's `-kernel`).
pub(super) fn boot_partition(loader: &mut Loader) -> Option<String> {
    if !Path::new(EFI).exists() {
        return None;
    }
    let variable = Path::new(VARIABLES).join(DEVICE);
    if !variable.exists() {
        // A kernel that has the file system built in knows no such module.
        let _ = loader.load_named("efivarfs");
        let target = Path::new(VARIABLES);
        mount::mount("efivarfs", "efivarfs", target, DATA_ONLY, "").ok()?;
    }
    parse(&fs::read(variable).ok()?)
}

/// Reads the variable as efivarfs shows it: four bytes of attributes, then UTF-16 with a final
/// zero.
fn parse(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let text = String::from_utf16(&units).ok()?;
    let guid = uuid::Uuid::parse_str(&text).ok()?;
    Some(guid.hyphenated().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_variable() {
        let guid = "8F3B1A52-0C9D-4E57-9A10-2B6D7C8E9F01";
        let mut bytes = vec![6, 0, 0, 0];
        for unit in guid.encode_utf16().chain([0]) {
            bytes.extend_from_slice(&unit.to_le_bytes());
        }
        assert_eq!(parse(&bytes), Some(guid.to_ascii_lowercase()));
        assert_eq!(parse(&bytes[..20]), None);
        assert_eq!(parse(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}

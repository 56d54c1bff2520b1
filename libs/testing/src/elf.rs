//! Whether an executable is static.

/// Whether a 64-bit little-endian ELF file has a program header of type PT_INTERP. `None`: it is
/// not such a file.
#[must_use]
pub fn asks_for_loader(content: &[u8]) -> Option<bool> {
    const PT_INTERP: u64 = 3;
    let number = |offset: usize, size: usize| -> Option<u64> {
        let bytes = content.get(offset..offset.checked_add(size)?)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    };
    if content.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(number(0x20, 8)?).ok()?;
    let entry_size = usize::try_from(number(0x36, 2)?).ok()?;
    let entries = usize::try_from(number(0x38, 2)?).ok()?;
    for index in 0..entries {
        let offset = table.checked_add(index.checked_mul(entry_size)?)?;
        if number(offset, 4)? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ELF file whose second program header has this type.
    pub(crate) fn elf(kind: u8) -> Vec<u8> {
        let mut elf = vec![0; 0x40 + 2 * 56];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 56;
        elf[0x38] = 2;
        elf[0x40 + 56] = kind;
        elf
    }

    #[test]
    fn executables_with_a_loader_are_recognised() {
        assert_eq!(asks_for_loader(&elf(0)), Some(false));
        assert_eq!(asks_for_loader(&elf(3)), Some(true));
        assert_eq!(asks_for_loader(&elf(0)[..0x50]), None);
        assert_eq!(asks_for_loader(b"#!/bin/sh"), None);
    }
}

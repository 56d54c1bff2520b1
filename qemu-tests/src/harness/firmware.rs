//! Where the distributions put UEFI firmware for virtual machines.

use std::path::{Path, PathBuf};

use super::error::HarnessError;

/// OVMF's code, and the pristine variables that every machine gets its own copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firmware {
    pub(crate) code: PathBuf,
    pub(crate) variables: PathBuf,
}

/// Debian and Ubuntu (4 MB build, then the older 2 MB one), Fedora, Arch Linux.
const PLACES: [(&str, &str, &str); 4] = [
    ("/usr/share/OVMF", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF", "OVMF_CODE.fd", "OVMF_VARS.fd"),
    ("/usr/share/edk2/ovmf", "OVMF_CODE.fd", "OVMF_VARS.fd"),
    ("/usr/share/edk2/x64", "OVMF_CODE.4m.fd", "OVMF_VARS.4m.fd"),
];

impl Firmware {
    pub(crate) fn find() -> Result<Self, HarnessError> {
        PLACES
            .iter()
            .map(|(dir, code, variables)| Self {
                code: Path::new(dir).join(code),
                variables: Path::new(dir).join(variables),
            })
            .find(|firmware| firmware.code.exists() && firmware.variables.exists())
            .ok_or_else(|| HarnessError::Missing {
                object: "UEFI firmware for virtual machines (OVMF)".to_owned(),
                remedy: "install the package ovmf".to_owned(),
            })
    }
}

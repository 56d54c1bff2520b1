//! What the running machine says about itself: SMBIOS, the kernel command line, QEMU's firmware
//! configuration, links.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::network::present::PresentLink;

/// Largest file of /proc and /sys that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// A machine, or an imitation of one below a directory.
#[derive(Debug, Clone)]
pub struct HostMachine {
    root: PathBuf,
}

impl HostMachine {
    /// The machine whose `/proc` and `/sys` are below `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A path of the machine.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A value of SMBIOS, by the kernel's name for it (`/sys/class/dmi/id`).
    #[must_use]
    pub fn smbios(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.path("sys/class/dmi/id").join(name)).ok()?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// A value of SMBIOS, by dmidecode's name for it.
    #[must_use]
    pub fn smbios_keyword(&self, name: &str) -> Option<String> {
        const NAMES: [(&str, &str); 14] = [
            ("baseboard-asset-tag", "board_asset_tag"),
            ("baseboard-manufacturer", "board_vendor"),
            ("baseboard-product-name", "board_name"),
            ("baseboard-serial-number", "board_serial"),
            ("bios-vendor", "bios_vendor"),
            ("bios-version", "bios_version"),
            ("chassis-asset-tag", "chassis_asset_tag"),
            ("chassis-manufacturer", "chassis_vendor"),
            ("chassis-serial-number", "chassis_serial"),
            ("system-manufacturer", "sys_vendor"),
            ("system-product-name", "product_name"),
            ("system-serial-number", "product_serial"),
            ("system-uuid", "product_uuid"),
            ("system-version", "product_version"),
        ];
        let (_, kernel) = NAMES.iter().find(|(keyword, _)| *keyword == name)?;
        self.smbios(kernel)
    }

    /// The last value of a parameter of the kernel command line.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let line = fs::read(self.path("proc/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        words(&line)
            .iter()
            .rev()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    }

    /// A file of QEMU's firmware configuration.
    ///
    /// # Errors
    /// It is there and can't be read, or has more than 4 MiB.
    pub fn firmware_file(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let path = self
            .path("sys/firmware/qemu_fw_cfg/by_name")
            .join(name)
            .join("raw");
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other("it has more than 4 MiB"));
        }
        Ok(Some(bytes))
    }

    /// The links that have hardware.
    #[must_use]
    pub fn links(&self) -> Vec<PresentLink> {
        let mut links = Vec::new();
        for entry in fs::read_dir(self.path("sys/class/net"))
            .into_iter()
            .flatten()
            .flatten()
        {
            // Bonds and VLANs have none.
            let device = entry.path().join("device");
            if !device.exists() {
                continue;
            }
            if let Ok(name) = entry.file_name().into_string() {
                let driver = fs::read_link(device.join("driver")).ok();
                let driver = driver
                    .as_deref()
                    .and_then(Path::file_name)
                    .map(|name| name.to_string_lossy().into_owned());
                links.push(PresentLink { name, driver });
            }
        }
        links.sort_by(|left, right| left.name.cmp(&right.name));
        links
    }

    /// The SMBIOS UUID in small letters, by which a copied disk knows that it is in another machine.
    #[must_use]
    pub fn uuid(&self) -> Option<String> {
        self.smbios("product_uuid")
            .map(|text| text.to_ascii_lowercase())
    }

    /// The cloud that the machine runs in: what the kernel command line says (`keelson.platform=`),
    /// or else SMBIOS.
    ///
    /// # Errors
    /// The parameter names a cloud that is not known.
    pub fn platform(&self) -> Result<HostPlatform, PlatformError> {
        if let Some(name) = self.parameter("keelson.platform") {
            return match name.as_str() {
                "none" => Ok(HostPlatform::Off),
                "local" => Ok(HostPlatform::Local),
                "ec2" => Ok(HostPlatform::Cloud(Cloud::Ec2)),
                "openstack" => Ok(HostPlatform::Cloud(Cloud::OpenStack)),
                "gce" => Ok(HostPlatform::Cloud(Cloud::Gce)),
                "azure" => Ok(HostPlatform::Cloud(Cloud::Azure)),
                _ => Err(PlatformError(name.chars().take(40).collect())),
            };
        }
        Ok(self
            .cloud()
            .map_or(HostPlatform::Local, HostPlatform::Cloud))
    }

    fn cloud(&self) -> Option<Cloud> {
        let is = |name: &str, values: &[&str]| {
            self.smbios(name)
                .is_some_and(|text| values.iter().any(|value| text.eq_ignore_ascii_case(value)))
        };
        let starts = |name: &str, start: &str| {
            self.smbios(name)
                .is_some_and(|text| text.to_ascii_lowercase().starts_with(start))
        };
        // Nitro and Xen; the UUID alone proves nothing, unless the serial number is the same.
        let xen = starts("product_uuid", "ec2")
            && self.uuid()
                == self
                    .smbios("product_serial")
                    .map(|text| text.to_ascii_lowercase());
        if is("sys_vendor", &["Amazon EC2"]) || xen {
            return Some(Cloud::Ec2);
        }
        if is("product_name", &["Google Compute Engine"])
            || starts("product_serial", "googlecloud-")
        {
            return Some(Cloud::Gce);
        }
        if is("chassis_asset_tag", &["7783-7084-3265-9085-8269-3286-77"]) {
            return Some(Cloud::Azure);
        }
        let tags = [
            "OpenStack Nova",
            "OpenStack Compute",
            "HUAWEICLOUD",
            "OpenTelekomCloud",
            "SAP CCloud VM",
            "Samsung Cloud Platform",
        ];
        if is("product_name", &tags[..2]) || is("chassis_asset_tag", &tags) {
            return Some(Cloud::OpenStack);
        }
        None
    }
}

/// A platform that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("keelson.platform={0} is unknown: use ec2, openstack, gce, azure, local or none")]
pub struct PlatformError(String);

/// Where a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPlatform {
    /// Nothing shall be asked.
    Off,
    /// Disks, SMBIOS, firmware and the kernel command line may say something.
    Local,
    /// A metadata service, too.
    Cloud(Cloud),
}

/// Clouds with a metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloud {
    /// Amazon EC2.
    Ec2,
    /// OpenStack.
    OpenStack,
    /// Google Compute Engine.
    Gce,
    /// Microsoft Azure.
    Azure,
}

/// The words of a kernel command line: double quotes protect blanks and vanish.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in line.chars().chain([' ']) {
        match character {
            '"' => quoted = !quoted,
            c if !quoted && (c.is_ascii_whitespace() || c == '\0') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(smbios: &[(&str, &str)], line: &str) -> (tempfile::TempDir, HostMachine) {
        let dir = tempfile::tempdir().unwrap();
        let id = dir.path().join("sys/class/dmi/id");
        fs::create_dir_all(&id).unwrap();
        fs::create_dir_all(dir.path().join("proc")).unwrap();
        fs::write(dir.path().join("proc/cmdline"), line).unwrap();
        for (name, value) in smbios {
            fs::write(id.join(name), format!("{value}\n")).unwrap();
        }
        let machine = HostMachine::under(dir.path());
        (dir, machine)
    }

    #[test]
    fn clouds_are_known_by_smbios() {
        for (smbios, cloud) in [
            (&[("sys_vendor", "Amazon EC2")][..], Some(Cloud::Ec2)),
            (
                &[
                    ("product_uuid", "EC2F58AF-1"),
                    ("product_serial", "ec2f58af-1"),
                ],
                Some(Cloud::Ec2),
            ),
            // One of 4096 other machines has such a UUID.
            (&[("product_uuid", "EC2F58AF-1")], None),
            (
                &[("product_name", "Google Compute Engine")],
                Some(Cloud::Gce),
            ),
            (
                &[("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77")],
                Some(Cloud::Azure),
            ),
            (
                &[("product_name", "OpenStack Nova")],
                Some(Cloud::OpenStack),
            ),
            (
                &[("chassis_asset_tag", "HUAWEICLOUD")],
                Some(Cloud::OpenStack),
            ),
            (
                &[("product_name", "Standard PC"), ("sys_vendor", "QEMU")],
                None,
            ),
        ] {
            let (_dir, machine) = machine(smbios, "");
            let platform = cloud.map_or(HostPlatform::Local, HostPlatform::Cloud);
            assert_eq!(machine.platform(), Ok(platform), "{smbios:?}");
        }
    }

    #[test]
    fn the_command_line_overrides() {
        let line =
            "quiet keelson.platform=gce ds=\"nocloud;s=http://a b/\" keelson.platform=none\n";
        let (_dir, machine) = machine(&[("sys_vendor", "Amazon EC2")], line);
        assert_eq!(machine.platform(), Ok(HostPlatform::Off));
        assert_eq!(machine.parameter("ds").unwrap(), "nocloud;s=http://a b/");
        assert_eq!(machine.parameter("none"), None);
        let (_dir, wrong) = self::machine(&[], "keelson.platform=x");
        assert!(wrong.platform().is_err());
    }
}

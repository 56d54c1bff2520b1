//! The description of a virtual machine.

use std::path::{Path, PathBuf};

use super::error::HarnessError;

/// How the machine starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// Through UEFI firmware (OVMF) and the boot loader on the disk.
    Uefi,
    /// QEMU loads the kernel itself.
    Direct {
        /// Kernel image.
        kernel: PathBuf,
        /// Initial RAM file system.
        initrd: PathBuf,
        /// Kernel command line.
        cmdline: String,
    },
}

impl Boot {
    /// Direct boot of the files in an image directory (`target/image`): `vmlinuz`, `initrd` and
    /// `cmdline`.
    ///
    /// # Errors
    /// The command line can't be read.
    pub fn direct_from(image_dir: &Path) -> Result<Self, HarnessError> {
        let cmdline = image_dir.join("cmdline");
        let text = std::fs::read_to_string(&cmdline).map_err(HarnessError::io("read", &cmdline))?;
        Ok(Self::Direct {
            kernel: image_dir.join("vmlinuz"),
            initrd: image_dir.join("initrd"),
            cmdline: text.trim().to_owned(),
        })
    }
}

/// What happens to writes to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMode {
    /// They go to the image, and reach stable storage when the guest flushes.
    Writable,
    /// They go to a sparse private copy in the machine's directory.
    Copy,
    /// They are dropped when QEMU ends.
    Snapshot,
    /// They are refused.
    ReadOnly,
}

/// The adapter that a disk is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bus {
    /// virtio-blk.
    #[default]
    VirtioBlk,
    /// virtio-scsi.
    VirtioScsi,
    /// NVMe.
    Nvme,
    /// SATA, through the chipset's AHCI.
    Ahci,
    /// A USB stick (bulk-only transport) at an xHCI adapter.
    Usb,
    /// A fast USB disk (USB attached SCSI) at an xHCI adapter.
    UsbAttachedScsi,
    /// VMware's paravirtual SCSI.
    Pvscsi,
    /// LSI Logic SAS, VMware's and VirtualBox's other SCSI adapter.
    LsiSas,
    /// LSI MegaRAID SAS.
    MegaRaid,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Image file: raw, or qcow2 when its name ends so.
    pub path: PathBuf,
    /// What happens to writes.
    pub mode: DiskMode,
    /// Its adapter.
    pub bus: Bus,
    /// Bytes of its sectors.
    pub sector: u32,
    /// Its serial number, if it has one.
    pub serial: Option<String>,
}

impl Disk {
    /// A disk that keeps writes.
    pub fn writable(path: impl Into<PathBuf>) -> Self {
        Self::new(path, DiskMode::Writable)
    }

    /// A disk whose private copy is written to.
    pub fn copy(path: impl Into<PathBuf>) -> Self {
        Self::new(path, DiskMode::Copy)
    }

    /// A disk that drops writes at the end.
    pub fn snapshot(path: impl Into<PathBuf>) -> Self {
        Self::new(path, DiskMode::Snapshot)
    }

    /// A disk that can't be written to.
    pub fn read_only(path: impl Into<PathBuf>) -> Self {
        Self::new(path, DiskMode::ReadOnly)
    }

    fn new(path: impl Into<PathBuf>, mode: DiskMode) -> Self {
        Self {
            path: path.into(),
            mode,
            bus: Bus::default(),
            sector: 512,
            serial: None,
        }
    }

    /// The same disk behind another adapter.
    #[must_use]
    pub fn behind(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// The same disk with a serial number.
    #[must_use]
    pub fn serial(mut self, serial: impl Into<String>) -> Self {
        self.serial = Some(serial.into());
        self
    }

    /// The same disk with sectors of this many bytes: 512 or 4096.
    #[must_use]
    pub fn sector(mut self, bytes: u32) -> Self {
        self.sector = bytes;
        self
    }
}

/// How instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM if a machine can be created with it, otherwise software emulation.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// A TCP port of the host that leads to one of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Forward {
    /// Port on 127.0.0.1; 0 in a specification means a free one.
    pub host: u16,
    /// Port of the machine.
    pub guest: u16,
}

/// The machine's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// QEMU's user network: DHCP, a name server and access to the outside. Port forwards lead in.
    #[default]
    User,
    /// A link with carrier but without a DHCP server.
    Silent,
    /// No network device.
    None,
}

/// A virtual machine that has not been started.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    pub(crate) name: String,
    pub(crate) boot: Boot,
    pub(crate) disk: Option<Disk>,
    pub(crate) disks_before: Vec<Disk>,
    pub(crate) extra_disks: Vec<Disk>,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: Option<u32>,
    pub(crate) accel: Accel,
    pub(crate) network: Network,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) fw_cfg: Vec<(String, Vec<u8>)>,
    pub(crate) kernel_arguments: Vec<String>,
    pub(crate) provision: bool,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) outlives: bool,
    pub(crate) report: bool,
    pub(crate) uuid: Option<String>,
    pub(crate) devices: Vec<String>,
    pub(crate) entropy: bool,
    pub(crate) clock: Option<String>,
}

/// The guest's port where the APIs listen with mutual TLS.
pub(crate) const API_PORT: u16 = 2376;

impl MachineSpec {
    /// A machine with 1024 MiB of memory, the user network with a free port that leads to the
    /// API, and the provisioning port.
    pub fn new(name: impl Into<String>, boot: Boot) -> Self {
        Self {
            name: name.into(),
            boot,
            disk: None,
            disks_before: Vec::new(),
            extra_disks: Vec::new(),
            memory_mib: 1024,
            cpus: None,
            accel: Accel::Auto,
            network: Network::User,
            forwards: Vec::new(),
            fw_cfg: Vec::new(),
            kernel_arguments: Vec::new(),
            provision: true,
            dir: None,
            outlives: false,
            report: false,
            uuid: None,
            devices: Vec::new(),
            entropy: true,
            clock: None,
        }
    }

    /// The disk that the firmware boots from (boot index 1).
    #[must_use]
    pub fn disk(mut self, disk: Disk) -> Self {
        self.disk = Some(disk);
        self
    }

    /// A disk that the kernel finds before [`MachineSpec::disk`], but the firmware does not boot from.
    #[must_use]
    pub fn disk_before(mut self, disk: Disk) -> Self {
        self.disks_before.push(disk);
        self
    }

    /// One more disk.
    #[must_use]
    pub fn extra_disk(mut self, disk: Disk) -> Self {
        self.extra_disks.push(disk);
        self
    }

    /// Memory in MiB.
    #[must_use]
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Virtual processors. The default is two with KVM and one with software emulation, where more
    /// than one made QEMU 7.2 hang about once in seventy boots.
    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// How instructions are executed.
    #[must_use]
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// The network.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Forwards 127.0.0.1:`host` to the machine's TCP port `guest`; `host` 0 means a free port. A
    /// forward to 2376 replaces the default one.
    #[must_use]
    pub fn forward(mut self, host: u16, guest: u16) -> Self {
        self.forwards.push(Forward { host, guest });
        self
    }

    /// A firmware configuration item, `opt/io.keelson/…`.
    #[must_use]
    pub fn fw_cfg(mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.fw_cfg.push((name.into(), content.into()));
        self
    }

    /// The machine's `host.toml` of the platform layer.
    #[must_use]
    pub fn host_toml(self, content: impl Into<Vec<u8>>) -> Self {
        self.fw_cfg("opt/io.keelson/host.toml", content)
    }

    /// One more word on the kernel command line. With UEFI it travels as an SMBIOS string that
    /// systemd-boot (254 and later) appends.
    #[must_use]
    pub fn kernel_argument(mut self, word: impl Into<String>) -> Self {
        self.kernel_arguments.push(word.into());
        self
    }

    /// Leaves the provisioning port and the certificate request out.
    #[must_use]
    pub fn without_provisioning(mut self) -> Self {
        self.provision = false;
        self
    }

    /// The directory for sockets, logs, credentials and firmware variables. It is made if it does
    /// not exist, and kept afterwards. Without it, a temporary one is used and removed with the
    /// machine.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The machine's UUID in SMBIOS; without, it has none.
    #[must_use]
    pub fn uuid(mut self, uuid: impl Into<String>) -> Self {
        self.uuid = Some(uuid.into());
        self
    }

    /// One more device, in the words of QEMU's `-device`.
    #[must_use]
    pub fn device(mut self, device: impl Into<String>) -> Self {
        self.devices.push(device.into());
        self
    }

    /// Takes every source of random numbers away: the device, and the processor's instructions.
    #[must_use]
    pub fn without_entropy(mut self) -> Self {
        self.entropy = false;
        self
    }

    /// What the hardware clock shows at the start: `2099-01-01T00:00:00`.
    #[must_use]
    pub fn clock(mut self, time: impl Into<String>) -> Self {
        self.clock = Some(time.into());
        self
    }

    /// Lets `Machine::detach` leave QEMU running after this process has ended; otherwise the
    /// kernel ends it with this process.
    #[must_use]
    pub fn outlives(mut self) -> Self {
        self.outlives = true;
        self
    }

    /// Prints the end of the console to standard error when the machine is dropped. A test
    /// program shows that for tests that fail only.
    #[must_use]
    pub fn report_at_end(mut self) -> Self {
        self.report = true;
        self
    }
}

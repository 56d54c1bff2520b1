//! QEMU's command line for a machine.

use std::path::Path;

use super::firmware::Firmware;
use super::spec::{Boot, Bus, Disk, DiskMode, Forward, MachineSpec, Network};

/// Names of the files in a machine's directory. QEMU runs in that directory, so that socket
/// addresses stay short (`sun_path` holds 107 bytes).
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
pub(crate) const CONSOLE_SOCKET: &str = "console.sock";
pub(crate) const CONSOLE_LOG: &str = "console.log";
pub(crate) const PROVISION_SOCKET: &str = "provision.sock";
pub(crate) const VARIABLES: &str = "vars.fd";

/// Name of the virtio-serial port where a machine hands out its certificates.
const PROVISION_PORT: &str = "io.keelson.provision";

/// Values that are chosen at launch, in addition to the specification.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) kvm: bool,
    pub(crate) cpus: u32,
    pub(crate) firmware: Option<Firmware>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) forwards: Vec<Forward>,
    /// UDP port on 127.0.0.1 that swallows the frames of a silent network.
    pub(crate) silence: u16,
    /// Name and file, relative to the machine's directory.
    pub(crate) fw_cfg: Vec<(String, String)>,
}

/// A comma inside an option's value is written twice.
fn quoted(text: &str) -> String {
    text.replace(',', ",,")
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

pub(crate) fn arguments(spec: &MachineSpec, plan: &Plan) -> Vec<String> {
    let mut args = Arguments::default();
    args.add("-name", format!("keelson-{}", quoted(&spec.name)));
    args.add("-machine", "q35");
    let random = if spec.entropy {
        ""
    } else {
        ",rdrand=off,rdseed=off"
    };
    if plan.kvm {
        args.add("-accel", "kvm");
        args.add("-cpu", format!("host{random}"));
    } else {
        args.add("-accel", "tcg,thread=multi");
        // QEMU 7.2 emulates cmpxchg16b in a way that made about one boot in twelve panic in early
        // kernel code; without the instruction there was none in 25.
        args.add("-cpu", format!("max,cx16=off{random}"));
    }
    args.add("-smp", plan.cpus.to_string());
    args.add("-m", spec.memory_mib.to_string());
    if let Some(uuid) = &spec.uuid {
        args.add("-uuid", uuid);
    }
    if let Some(clock) = &spec.clock {
        args.add("-rtc", format!("base={}", quoted(clock)));
    }
    args.0.push("-nodefaults".to_owned());
    args.0.push("-no-reboot".to_owned());
    args.add("-display", "none");
    if spec.entropy {
        args.add("-device", "virtio-rng-pci");
    }
    // The console is the last of the sockets: QEMU waits there until the harness is connected, so
    // that no byte is lost, and the others exist by then.
    args.add(
        "-chardev",
        format!("socket,id=qmp,path={QMP_SOCKET},server=on,wait=off"),
    );
    args.add("-mon", "chardev=qmp,mode=control");
    if spec.provision {
        args.add(
            "-chardev",
            format!("socket,id=provision,path={PROVISION_SOCKET},server=on,wait=off"),
        );
        args.add("-device", "virtio-serial-pci");
        args.add(
            "-device",
            format!("virtserialport,chardev=provision,name={PROVISION_PORT}"),
        );
    }
    args.add(
        "-chardev",
        format!("socket,id=console,path={CONSOLE_SOCKET},server=on,wait=on,logfile={CONSOLE_LOG}"),
    );
    args.add("-serial", "chardev:console");
    args.boot(spec, plan);
    for (index, disk) in plan.disks.iter().enumerate() {
        // The disks before the one to boot from have no place in the firmware's order.
        let boot_index = (index + 1).checked_sub(spec.disks_before.len());
        args.disk(index, disk, boot_index.filter(|index| *index > 0));
    }
    for device in &spec.devices {
        args.add("-device", device);
    }
    args.network(spec.network, &plan.forwards, plan.silence);
    for (name, file) in &plan.fw_cfg {
        args.add(
            "-fw_cfg",
            format!("name={},file={}", quoted(name), quoted(file)),
        );
    }
    args.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }

    fn boot(&mut self, spec: &MachineSpec, plan: &Plan) {
        let extra = spec.kernel_arguments.join(" ");
        match &spec.boot {
            Boot::Direct {
                kernel,
                initrd,
                cmdline,
            } => {
                self.add("-kernel", kernel.to_string_lossy());
                self.add("-initrd", initrd.to_string_lossy());
                self.add("-append", format!("{cmdline} {extra}").trim().to_owned());
            }
            Boot::Uefi => {
                if let Some(firmware) = &plan.firmware {
                    let code = path(&firmware.code);
                    self.add(
                        "-drive",
                        format!("if=pflash,format=raw,readonly=on,file={code}"),
                    );
                    self.add("-drive", format!("if=pflash,format=raw,file={VARIABLES}"));
                }
                if !extra.is_empty() {
                    let extra = quoted(&extra);
                    self.add(
                        "-smbios",
                        format!("type=11,value=io.systemd.boot.kernel-cmdline-extra={extra}"),
                    );
                }
            }
        }
    }

    fn disk(&mut self, index: usize, disk: &Disk, boot_index: Option<usize>) {
        let format = match disk.path.extension() {
            Some(extension) if extension == "qcow2" => "qcow2",
            _ => "raw",
        };
        let mode = match disk.mode {
            DiskMode::Writable => "cache=writeback,discard=unmap",
            DiskMode::Copy => "cache=unsafe,discard=unmap",
            DiskMode::Snapshot => "cache=unsafe,snapshot=on",
            DiskMode::ReadOnly => "readonly=on",
        };
        let file = path(&disk.path);
        self.add(
            "-drive",
            format!("if=none,id=disk{index},format={format},{mode},file={file}"),
        );
        let (adapter, kind) = match disk.bus {
            Bus::VirtioBlk => (None, "virtio-blk-pci".to_owned()),
            Bus::Nvme => (None, format!("nvme,serial=disk{index}")),
            Bus::Ahci => (None, format!("ide-hd,bus=ide.{index}")),
            Bus::Usb => (Some("qemu-xhci"), "usb-storage".to_owned()),
            Bus::UsbAttachedScsi => (Some("usb-uas"), "scsi-hd".to_owned()),
            Bus::VirtioScsi => (Some("virtio-scsi-pci"), "scsi-hd".to_owned()),
            Bus::Pvscsi => (Some("pvscsi"), "scsi-hd".to_owned()),
            Bus::LsiSas => (Some("mptsas1068"), "scsi-hd".to_owned()),
            Bus::MegaRaid => (Some("megasas"), "scsi-hd".to_owned()),
        };
        let mut device = format!("{kind},drive=disk{index}");
        if let Some(adapter) = adapter {
            if disk.bus == Bus::UsbAttachedScsi {
                self.add("-device", format!("qemu-xhci,id=usb{index}"));
            }
            let host = match disk.bus {
                Bus::UsbAttachedScsi => format!(",bus=usb{index}.0"),
                _ => String::new(),
            };
            self.add("-device", format!("{adapter},id=adapter{index}{host}"));
            device += &format!(",bus=adapter{index}.0");
        }
        if disk.bus == Bus::LsiSas {
            // The driver passes over a device without an address.
            device += &format!(",wwn={:#x}", 0x5000_c500_15ea_7100_u64 + index as u64);
        }
        if let Some(serial) = &disk.serial {
            device += &format!(",serial={}", quoted(serial));
        }
        if let Some(boot_index) = boot_index {
            device += &format!(",bootindex={boot_index}");
        }
        if disk.sector != 512 {
            let size = disk.sector;
            device += &format!(",logical_block_size={size},physical_block_size={size}");
        }
        self.add("-device", device);
    }

    fn network(&mut self, network: Network, forwards: &[Forward], silence: u16) {
        let backend = match network {
            Network::None => return,
            // Frames go to a socket that no process reads, and none ever comes back.
            Network::Silent => {
                format!("socket,id=net0,udp=127.0.0.1:{silence},localaddr=127.0.0.1:0")
            }
            Network::User => forwards
                .iter()
                .fold("user,id=net0".to_owned(), |text, forward| {
                    let Forward { host, guest } = forward;
                    format!("{text},hostfwd=tcp:127.0.0.1:{host}-:{guest}")
                }),
        };
        self.add("-netdev", backend);
        self.add("-device", "virtio-net-pci,netdev=net0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(spec: &MachineSpec, plan: &Plan) -> String {
        arguments(spec, plan).join(" ")
    }

    fn plan(forwards: &[Forward]) -> Plan {
        Plan {
            kvm: false,
            cpus: 1,
            firmware: None,
            disks: Vec::new(),
            forwards: forwards.to_vec(),
            silence: 9,
            fw_cfg: Vec::new(),
        }
    }

    #[test]
    fn passes_kernel_arguments_on_both_boot_paths() {
        let uefi = MachineSpec::new("a", Boot::Uefi).kernel_argument("x=1,2");
        let text = line(&uefi, &plan(&[]));
        assert!(
            text.contains("-smbios type=11,value=io.systemd.boot.kernel-cmdline-extra=x=1,,2"),
            "{text}"
        );
        let direct = Boot::Direct {
            kernel: "/k".into(),
            initrd: "/i".into(),
            cmdline: "quiet".to_owned(),
        };
        let args = arguments(
            &MachineSpec::new("b", direct).kernel_argument("x=1,2"),
            &plan(&[]),
        );
        assert!(args.contains(&"quiet x=1,2".to_owned()), "{args:?}");
    }

    #[test]
    fn describes_disks_networks_and_items() {
        let mut plan = plan(&[Forward {
            host: 40000,
            guest: 2376,
        }]);
        plan.disks = vec![Disk::snapshot("/a,b.raw"), Disk::read_only("/c.qcow2")];
        plan.fw_cfg = vec![("opt/io.keelson/host.toml".to_owned(), "fw-0".to_owned())];
        let text = line(&MachineSpec::new("a", Boot::Uefi), &plan);
        for part in [
            "format=raw,cache=unsafe,snapshot=on,file=/a,,b.raw",
            "virtio-blk-pci,drive=disk0,bootindex=1",
            "format=qcow2,readonly=on,file=/c.qcow2",
            "user,id=net0,hostfwd=tcp:127.0.0.1:40000-:2376",
            "-fw_cfg name=opt/io.keelson/host.toml,file=fw-0",
            "name=io.keelson.provision",
            "-accel tcg,thread=multi -cpu max,cx16=off -smp 1",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let usb = Disk::snapshot("/u").behind(Bus::Usb).sector(4096);
        let spec = MachineSpec::new("a", Boot::Uefi).disk_before(usb.clone());
        plan.disks.insert(0, usb);
        let text = line(&spec, &plan);
        for part in [
            "-device qemu-xhci,id=adapter0 ",
            "usb-storage,drive=disk0,bus=adapter0.0,logical_block_size=4096",
            "virtio-blk-pci,drive=disk1,bootindex=1",
            "virtio-blk-pci,drive=disk2,bootindex=2",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let silent = MachineSpec::new("a", Boot::Uefi)
            .network(Network::Silent)
            .without_provisioning();
        let text = line(&silent, &plan);
        assert!(text.contains("socket,id=net0,udp=127.0.0.1:9"), "{text}");
        assert!(!text.contains("provision"), "{text}");
    }
}

//! PID 1 of a Keelson machine, in the initrd and in the deployment.
//!
//! - `initrd`: stage 1, from the initramfs to the deployment.
//! - `boot`: stage 2 up to the supervision: mounts, modules, identity, configuration.
//! - `supervise`: keeps netcfg and hostd running, reaps orphans, handles events of devices and
//!   buttons.
//! - `control`: the socket through which hostd asks for a stop or for the boot's record.
//! - `shutdown`: the end: processes, file systems, power.
//! - `devices`: groups and modes of nodes in /dev, and the links below /dev/disk.
//! - `kexec`: a restart without the firmware.
//! - `remote`: unmounting file systems whose server may not answer.
//! - `disk`, `modules`, `uevent`, `mount`: disks, kernel modules, devices and mounts, for all of
//!   these.
//! - `cmdline`, `console`, `files`, `emergency`: parameters, messages, small files, and the last
//!   resort when stage 1 fails.
//!
//! Parameters of the kernel command line:
//!
//! | parameter | meaning |
//! |---|---|
//! | `root=` | `PARTLABEL=`, `PARTUUID=`, `LABEL=`, `UUID=`, `/dev/NAME` or `/dev/disk/by-…/…` |
//! | `rootfstype=`, `rootflags=` | type (ext4) and options of the root file system |
//! | `fsck.mode=` | check the root file system: `auto` (default: when it asks for it), `force`, `skip` |
//! | `ostree=` | the deployment, from the root of that file system |
//! | `keelson.root_timeout=` | seconds to wait for the root device (30) |
//! | `keelson.emergency=` | when stage 1 fails: `reboot` (default), `poweroff`, `console` |
//! | `keelson.watchdog=` | seconds that hostd and netcfg may be silent before they are restarted (60; 0: forever) |
//! | `keelson.platform=` | `ec2`, `openstack`, `gce`, `azure`, `local` or `none`, instead of what SMBIOS says (docs/provisioning.md) |
//! | `keelson.hardware_watchdog=` | instead of `watchdog.timeout` in the configuration: seconds after which the hardware watchdog resets a machine that gives no sign of life (0: not used) |
//! | `keelson.zram=`, `keelson.swap=` | instead of `[swap]` in the configuration: compressed in memory, in percent of it; a file on /var, in MiB |
//! | `panic=` | seconds before that, as for the kernel (10) |
//! | `MODULE.OPTION=VALUE` | option of a module |
//!
//! The same binary loads modules in a process of its own, also for the kernel (`kernel.modprobe`).

mod boot;
mod cmdline;
mod console;
mod control;
mod devices;
mod disk;
mod emergency;
mod files;
mod initrd;
mod kexec;
mod modules;
mod mount;
mod remote;
mod shutdown;
mod supervise;
mod uevent;

use std::path::Path;
use std::process::ExitCode;

/// The path of this program in the deployment.
pub(crate) const PROGRAM: &str = "/usr/sbin/init";

const USAGE: &str = "\
init is the first process of a Keelson machine and does nothing when started by hand.
To stop the machine use `hostctl poweroff`, `hostctl reboot` or `hostctl halt`.

  init coldplug        load the modules of all devices present
  init load NAME...    load modules by name or alias
  init provision-network
                       read what the platform says over the network, and put it into effect
  init mount-storage   mount the file systems that the configuration names
  init devices         make the nodes' modes and the links in /dev up to date
";

fn main() -> ExitCode {
    if std::process::id() == 1 {
        std::panic::set_hook(Box::new(last_resort));
        if Path::new("/etc/initrd-release").exists() {
            initrd::run();
        }
        let booted = boot::run();
        let (ending, watchdog) = supervise::run(booted);
        shutdown::finish(ending, watchdog);
    }
    let mut arguments = std::env::args().skip(1);
    let failures = match arguments.next().as_deref() {
        Some(modules::HELPER_COLDPLUG) => modules::coldplug(),
        Some(boot::provision::HELPER_NETWORK) => boot::provision::network(),
        Some(boot::storage::HELPER_STORAGE) => boot::storage::helper(),
        Some(kexec::HELPER_LOAD_KERNEL) => kexec::helper(),
        // The kernel calls modprobe with `-q -- NAME`.
        Some(modules::HELPER_LOAD | "-q") => {
            modules::load_requests(arguments.filter(|argument| argument != "--"))
        }
        Some(devices::HELPER_DEVICES) => devices::update(),
        Some(remote::HELPER_UNMOUNT) => {
            let target = arguments.next().unwrap_or_default();
            let how = arguments.next();
            usize::from(!remote::helper(Path::new(&target), how.as_deref()))
        }
        Some("--version") => {
            println!("init {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// PID 1 must not end: the kernel would panic without a message about the cause. No known code path
/// leads here.
fn last_resort(panic: &std::panic::PanicHookInfo<'_>) {
    console::error(&format!("init failed, rebooting: {panic}"));
    emergency::end(&cmdline::CommandLine::read());
}

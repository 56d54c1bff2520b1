//! A restart without the firmware: the running deployment's kernel is loaded and started again
//! (kexec). Firmware takes minutes on some machines; on others, devices do not survive it, so it is
//! done on request only, and a kernel that can't be loaded is no reason to stay down.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::boot::program::{self, ProgramError};
use crate::console;

/// First argument of the process that loads the kernel: it reads large files.
pub(crate) const HELPER_LOAD_KERNEL: &str = "load-kernel";
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The EFI variable that says whether Secure Boot is on: four bytes of attributes, then 1 or 0.
const SECURE_BOOT: &str =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Why the kernel could not be loaded.
#[derive(Debug, thiserror::Error)]
enum KexecError {
    #[error("open {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("the kernel command line has a zero byte")]
    CommandLine,
    #[error("kexec_file_load: {0}")]
    Load(nix::Error),
}

/// Kernel and initial RAM file system of the running deployment.
fn files(root: &Path) -> [PathBuf; 2] {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let directory = root.join("usr/lib/modules").join(release);
    ["vmlinuz", "initramfs.img"].map(|name| directory.join(name))
}

/// Why the machine can't restart this way, if it can't.
pub(crate) fn refusal() -> Option<String> {
    refusal_below(Path::new("/"))
}

fn refusal_below(root: &Path) -> Option<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let instead = "restart through the firmware instead";
    let lockdown = read("sys/kernel/security/lockdown");
    if let Some((_, rest)) = lockdown.split_once('[')
        && let Some((mode, _)) = rest.split_once(']')
        && mode != "none"
    {
        return Some(format!(
            "the kernel is locked down ({mode}) and may not start another one; {instead}"
        ));
    }
    if fs::read(root.join(SECURE_BOOT)).is_ok_and(|bytes| bytes.get(4) == Some(&1)) {
        return Some(format!(
            "Secure Boot is on, and only the firmware can check the kernel; {instead}"
        ));
    }
    if read("proc/sys/kernel/kexec_load_disabled").trim() == "1" {
        return Some(format!(
            "kernel.kexec_load_disabled forbids to start another kernel; {instead}"
        ));
    }
    let missing = files(root).into_iter().find(|file| !file.exists())?;
    Some(format!("there is no {}; {instead}", missing.display()))
}

/// Loads the kernel. Returns the number of failures; each is printed.
pub(crate) fn helper() -> usize {
    match load_files() {
        Ok(()) => 0,
        Err(error) => {
            console::warning(&format!("load a kernel: {error}"));
            1
        }
    }
}

fn load_files() -> Result<(), KexecError> {
    let [kernel, initrd] = files(Path::new("/"))
        .map(|path| File::open(&path).map_err(|source| KexecError::Open { path, source }));
    let (kernel, initrd) = (kernel?, initrd?);
    let path = Path::new("/proc/cmdline");
    let line = fs::read_to_string(path).map_err(|source| KexecError::Open {
        path: path.to_owned(),
        source,
    })?;
    let line = CString::new(line.trim_end()).map_err(|_| KexecError::CommandLine)?;
    keelson_sys::kexec::load(&kernel, &initrd, &line).map_err(KexecError::Load)
}

/// Has the kernel loaded.
pub(crate) fn load() -> Result<(), ProgramError> {
    let mut helper = Command::new(crate::PROGRAM);
    program::succeed(helper.arg(HELPER_LOAD_KERNEL), LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_it_is_said() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &[u8]| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let refused = |word: &str| {
            let reason = refusal_below(root.path()).unwrap();
            assert!(reason.contains(word), "{reason}");
        };
        refused("vmlinuz");
        for file in files(Path::new("")) {
            write(file.to_str().unwrap(), b"");
        }
        write(
            "sys/kernel/security/lockdown",
            b"[none] integrity confidentiality\n",
        );
        write(SECURE_BOOT, &[6, 0, 0, 0, 0]);
        write("proc/sys/kernel/kexec_load_disabled", b"0\n");
        assert_eq!(refusal_below(root.path()), None);
        write("proc/sys/kernel/kexec_load_disabled", b"1\n");
        refused("kexec_load_disabled");
        write(SECURE_BOOT, &[6, 0, 0, 0, 1]);
        refused("Secure Boot");
        write(
            "sys/kernel/security/lockdown",
            b"none [integrity] confidentiality\n",
        );
        refused("locked down (integrity)");
    }
}

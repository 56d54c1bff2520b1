//! Tests that can't run on this machine report it here. In continuous integration such a test
//! fails, because a test that silently does nothing tests nothing.

use std::fmt::Display;

/// What continuous integration (`CI` is set) may lack, and why the tests that need it do not have
/// to run there.
const MAY_LACK: &[(&str, &str)] = &[
    (
        "fs-verity",
        "the file system of the machine that builds need not have it; qemu-tests/tests/sealed.rs \
         seals and reads layers in the virtual machine, whose disk has it",
    ),
    (
        "ipvlan",
        "kernels of build machines need not have it; what is asked of the kernel is compared as \
         values and bytes in hostd/networks/src/kernel/plan and libs/netlink/src/batch",
    ),
    (
        "802.1q VLANs",
        "kernels of build machines need not have it; what is asked of the kernel is compared as \
         values and bytes in hostd/networks/src/kernel/plan and libs/netlink/src/batch",
    ),
    (
        "dummy",
        "kernels of build machines need not have it; what is asked of the kernel is compared as \
         values and bytes in hostd/networks/src/kernel/plan and libs/netlink/src/batch",
    ),
    (
        "fsck.erofs that knows blocks of 512 bytes",
        "erofs-utils before 1.6 (Debian 12) refuse every index that we write; the kernel mounts \
         each of them in the same test",
    ),
];

/// Prints on standard error that a test is skipped because the machine has no `lack`, and why.
///
/// # Panics
/// In continuous integration, unless `lack` is listed above.
#[track_caller]
pub fn skip(lack: &str, detail: impl Display) {
    let automatic = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    match verdict(automatic, lack, &detail.to_string()) {
        Ok(message) => eprintln!("{message}"),
        Err(message) => panic!("{message}"),
    }
}

fn verdict(automatic: bool, lack: &str, detail: &str) -> Result<String, String> {
    if !automatic {
        return Ok(format!("SKIPPED: this machine has no {lack}: {detail}"));
    }
    match MAY_LACK.iter().find(|(known, _)| *known == lack) {
        Some((_, reason)) => Ok(format!(
            "SKIPPED: this machine has no {lack}: {detail}. Allowed, since {reason}."
        )),
        None => Err(format!(
            "skipped in continuous integration: this machine has no {lack}: {detail}. Give it \
             that, or list it with a reason in libs/testing/src/skip.rs."
        )),
    }
}

/// Whether a test that needs root can run; without root it is skipped.
///
/// # Panics
/// In continuous integration without root.
#[must_use]
#[track_caller]
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("root", "the test makes mounts, namespaces or devices");
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_fails_in_continuous_integration_unless_listed() {
        assert!(verdict(false, "tool", "not installed").is_ok());
        let refused = verdict(true, "tool", "not installed").unwrap_err();
        assert!(refused.contains("tool: not installed"), "{refused}");
        let allowed = verdict(true, "fs-verity", "EOPNOTSUPP").unwrap();
        assert!(allowed.contains("EOPNOTSUPP. Allowed, since "), "{allowed}");
    }

    #[test]
    fn every_entry_has_a_reason() {
        for (lack, reason) in MAY_LACK {
            assert!(reason.len() > 40, "{lack}: {reason}");
        }
    }
}

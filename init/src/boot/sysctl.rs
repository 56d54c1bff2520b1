//! Kernel parameters of a container host that differ from the kernel's defaults.
//!
//! Forwarding of packets is not among them: the creator of the first network that needs it turns it
//! on, so that a machine without such networks is not a router.

use std::path::Path;

use crate::cmdline::CommandLine;

/// Path below /proc/sys, value.
const PARAMETERS: &[(&str, &str)] = &[
    // The kernel calls this program for modules on demand (file systems, nftables expressions, link
    // types).
    ("kernel/modprobe", crate::PROGRAM),
    // A machine without an operator restarts by itself. Ten seconds are enough to read the console.
    ("kernel/panic", "10"),
    // After an oops the kernel's state is unknown, so a restart is safer than going on.
    ("kernel/panic_on_oops", "1"),
    // Addresses and log of the kernel help attackers only; containers never need them.
    ("kernel/kptr_restrict", "1"),
    ("kernel/dmesg_restrict", "1"),
    // Loading eBPF needs privileges: unprivileged programs were used for escapes.
    ("kernel/unprivileged_bpf_disabled", "1"),
    // Thousands of containers need more process numbers than 32768.
    ("kernel/pid_max", "4194304"),
    // Each container may have keys. The default of 200 is used up by about as many containers.
    ("kernel/keys/maxkeys", "20000"),
    ("kernel/keys/maxbytes", "2000000"),
    // Watchers in containers (log shippers, development servers) share the host's limits.
    ("fs/inotify/max_user_instances", "8192"),
    ("fs/inotify/max_user_watches", "1048576"),
    // Databases and search engines refuse to start with the default of 65530.
    ("vm/max_map_count", "1048576"),
    // Hard and symbolic links, FIFOs and files in world-writable sticky directories: the
    // well-known races with privileged programs.
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    // Accept queues longer than the default for servers under bursts.
    ("net/core/somaxconn", "4096"),
    // Source validation per RFC 3704, loose because containers may have several uplinks.
    ("net/ipv4/conf/default/rp_filter", "2"),
    ("net/ipv4/conf/all/rp_filter", "2"),
    // ICMP redirects and source routes let a neighbour steer our traffic.
    ("net/ipv4/conf/default/accept_source_route", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    // A machine with bridges would send redirects to its neighbours, into container networks.
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    // Bridges with many containers overflow the default neighbour table of 1024.
    ("net/ipv4/neigh/default/gc_thresh3", "16384"),
    ("net/ipv6/neigh/default/gc_thresh3", "16384"),
];

/// Sets all parameters, except `kernel.panic` if the kernel command line has `panic=`. Parameters
/// that this kernel doesn't have are skipped.
pub(crate) fn apply(command_line: &CommandLine) -> Vec<String> {
    apply_below(Path::new("/proc/sys"), command_line)
}

fn apply_below(root: &Path, command_line: &CommandLine) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, value) in PARAMETERS {
        if *name == "kernel/panic" && command_line.has("panic") {
            continue;
        }
        let path = root.join(name);
        match std::fs::write(&path, value) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                problems.push(format!("write {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_parameters_are_set_and_others_skipped() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("kernel")).unwrap();
        let asked = CommandLine::parse(b"panic=-1");
        assert!(apply_below(root.path(), &asked).is_empty());
        assert!(root.path().join("kernel/panic_on_oops").exists());
        assert!(!root.path().join("kernel/panic").exists());
        assert!(apply_below(root.path(), &CommandLine::default()).is_empty());
        let panic = std::fs::read_to_string(root.path().join("kernel/panic")).unwrap();
        assert_eq!(panic, "10");
    }

    #[test]
    fn no_parameter_is_listed_twice() {
        let names: std::collections::BTreeSet<_> = PARAMETERS.iter().map(|p| p.0).collect();
        assert_eq!(names.len(), PARAMETERS.len());
    }
}

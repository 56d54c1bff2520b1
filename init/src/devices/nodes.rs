//! Who may use the nodes in /dev. The kernel makes them for root only; the groups and modes are
//! those of udev's `50-udev-default.rules`, which programs and containers expect.

/// A group's name and a mode.
pub(super) type Access = (&'static str, u32);

/// Nodes by name: the node is the name itself, or begins with it if the name ends in `*` (`+`: and
/// goes on with a digit).
const BY_NAME: &[(&str, Access)] = &[
    ("kvm", ("kvm", 0o660)),
    ("vhost-net", ("kvm", 0o660)),
    ("vhost-vsock", ("kvm", 0o660)),
    ("net/tun", ("root", 0o666)),
    ("fuse", ("root", 0o666)),
    ("userfaultfd", ("root", 0o600)),
    ("rfkill", ("root", 0o664)),
    ("ptmx", ("tty", 0o666)),
    ("tty", ("tty", 0o666)),
    ("tty+", ("tty", 0o620)),
    ("vcs*", ("tty", 0o620)),
    ("ttyS+", ("dialout", 0o660)),
    ("ttyUSB+", ("dialout", 0o660)),
    ("ttyACM+", ("dialout", 0o660)),
    ("hvc+", ("dialout", 0o660)),
    ("mem", ("kmem", 0o640)),
    ("port", ("kmem", 0o640)),
    ("dri/card*", ("video", 0o660)),
    ("dri/render*", ("render", 0o666)),
    ("kfd", ("render", 0o666)),
    ("fb+", ("video", 0o660)),
    ("video+", ("video", 0o660)),
    ("input/*", ("input", 0o660)),
    ("snd/*", ("audio", 0o660)),
    ("sr+", ("cdrom", 0o660)),
    ("sg+", ("disk", 0o660)),
    ("st+", ("tape", 0o660)),
    ("loop-control", ("disk", 0o660)),
    ("btrfs-control", ("disk", 0o660)),
    ("tpmrm+", ("tss", 0o660)),
];

/// Who may use the node, if that differs from what the kernel has made. `block`: a block device.
pub(super) fn access(node: &str, block: bool) -> Option<Access> {
    let matches = |pattern: &str| match pattern.strip_suffix(['*', '+']) {
        None => node == pattern,
        Some(prefix) => node.strip_prefix(prefix).is_some_and(|rest| {
            pattern.ends_with('*') || rest.bytes().next().is_some_and(|b| b.is_ascii_digit())
        }),
    };
    BY_NAME
        .iter()
        .find(|(pattern, _)| matches(pattern))
        .map(|(_, access)| *access)
        .or_else(|| block.then_some(("disk", 0o660)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_their_usual_groups() {
        assert_eq!(access("kvm", false), Some(("kvm", 0o660)));
        assert_eq!(access("net/tun", false), Some(("root", 0o666)));
        assert_eq!(access("tty", false), Some(("tty", 0o666)));
        assert_eq!(access("tty1", false), Some(("tty", 0o620)));
        assert_eq!(access("ttyS0", false), Some(("dialout", 0o660)));
        assert_eq!(access("ttyprintk", false), None);
        assert_eq!(access("sr0", true), Some(("cdrom", 0o660)));
        assert_eq!(access("vda2", true), Some(("disk", 0o660)));
        assert_eq!(access("watchdog0", false), None);
        assert_eq!(access("input/event0", false), Some(("input", 0o660)));
    }
}

//! Cases that Keelson's runtime may fail, and cases that the others fail, each with the reason.

/// A case and why failing it is right.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[(
    "cli.create.no-pivot",
    "refused by name: pivot_root is always used, since a root that is only moved leaves the host's \
     mounts within reach",
)];

/// The reason for which a case may fail.
pub(crate) fn reason(case: &str) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(id, _)| *id == case)
        .map(|(_, reason)| *reason)
}

/// Cases that Debian 12's runc 1.1.5 and crun 1.8.1 both fail, and why the case is right all the
/// same.
pub(crate) const REVIEWED: &[(&str, &str)] = &[
    ("config.process.scheduler", NEWER),
    ("config.process.scheduler-invalid", NEWER),
    ("config.process.io-priority", NEWER),
    ("config.process.io-priority-invalid", NEWER),
    ("linux.namespaces.time-new", NEWER),
    ("linux.time-offsets.set", NEWER),
    ("linux.time-offsets.unknown-clock", NEWER),
    ("linux.resources.cpu-burst", NEWER),
    ("linux.namespaces.mount-path-nothing-left", SWAPPED),
    ("linux.namespaces.mount-path-failed-create", SWAPPED),
    ("linux.namespaces.mount-path-failed-hook", SWAPPED),
    (
        "linux.devices.file-in-the-way",
        "both use or replace what is there without looking at it",
    ),
    (
        "linux.masked-paths.absolute",
        "both resolve a relative path against the root; the specification wants it absolute",
    ),
    (
        "linux.readonly-paths.absolute",
        "both resolve a relative path against the root; the specification wants it absolute",
    ),
    (
        "linux.seccomp.names-needed",
        "both pass over a rule without names, which the specification forbids",
    ),
    (
        "linux.devices.console-not-a-link",
        "both are older than the repair of CVE-2025-52565",
    ),
    (
        "config.hooks.start-container-fails",
        "both return from start before they know; the process is not run, as required",
    ),
    (
        "config.values.zero-byte",
        "both cut the argument at the zero byte, so that another one is passed than was asked for",
    ),
];

const SWAPPED: &str = "both leave their mounts in the namespace, of which they have changed the root for all others \
     in it";

const NEWER: &str =
    "the member came with version 1.1 or 1.2 of the specification, after their release";

//! Cases that Keelson's runtime may fail, and cases that the others fail, each with the reason.

/// A case, and why it is correct to fail it.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[(
    "cli.create.no-pivot",
    "refused by name: pivot_root is always used, since a root that is only moved leaves the host's \
     mounts within reach",
)];

/// The reason why a case may fail.
pub(crate) fn reason(case: &str) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(id, _)| *id == case)
        .map(|(_, reason)| *reason)
}

/// Cases that Debian 12's runc 1.1.5 and crun 1.8.1 both fail, and why the case is correct anyway.
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
    (
        "config.hooks.order",
        "one runs poststart hooks before start, the other returns from start before those of startContainer have run",
    ),
    (
        "cli.streams.file-stays",
        "both change the owner of files as well, which then stays so on the host",
    ),
    (
        "linux.cgroups-path.not-empty",
        "the refusal came with runc 1.3; crun has none",
    ),
    (
        "config.hooks.failure-is-told",
        "the words are those of runc since 1.2; crun does not show what a hook wrote",
    ),
    (
        "cli.delete.at-once",
        "one runs the hooks twice, with the other the second call fails half way",
    ),
    (
        "cli.create.pidfd-socket",
        "the option came with runc 1.2; crun has none",
    ),
    ("cli.create.affinity", "the reset came with runc 1.3"),
];

const SWAPPED: &str = "both leave their mounts in the namespace, of which they have changed the root for all others \
     in it";

const NEWER: &str =
    "the member came with version 1.1 or 1.2 of the specification, after their release";

//! Cases that Keelson's runtime may fail though another passes, each with the reason.

/// A case and why failing it is right.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    ("config.capabilities.unknown-ignored", TO_BE_CHANGED),
    ("linux.namespaces.path-absolute", TO_BE_CHANGED),
    ("config.root.required", TO_BE_CHANGED),
    ("linux.devices.block", TO_BE_CHANGED),
    ("linux.sysctl.no-escape", TO_BE_CHANGED),
    ("config.mounts.option-iversion", TO_BE_CHANGED),
    ("config.hooks.create-container-mounts", TO_BE_CHANGED),
    ("config.hooks.failure-runs-poststop", TO_BE_CHANGED),
    ("cli.run.terminal-of-caller", TO_BE_CHANGED),
    ("cli.spec.rootless", TO_BE_CHANGED),
];

const TO_BE_CHANGED: &str = "not as required yet; to be changed";

/// The reason for which a case may fail.
pub(crate) fn reason(case: &str) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(id, _)| *id == case)
        .map(|(_, reason)| *reason)
}

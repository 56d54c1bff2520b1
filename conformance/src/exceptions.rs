//! Cases that Keelson's runtime may fail though another passes, each with the reason.

/// A case and why failing it is right.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[
    ("linux.user-namespace.new", USER_NAMESPACES),
    ("linux.user-namespace.mappings", USER_NAMESPACES),
    ("linux.user-namespace.user", USER_NAMESPACES),
    ("linux.user-namespace.ownership", USER_NAMESPACES),
    ("linux.user-namespace.capabilities", USER_NAMESPACES),
    ("linux.user-namespace.devices", USER_NAMESPACES),
    ("linux.user-namespace.exec", USER_NAMESPACES),
    ("linux.user-namespace.path", USER_NAMESPACES),
    (
        "config.capabilities.unknown-ignored",
        "refused by name instead; to be changed",
    ),
    (
        "linux.namespaces.path-absolute",
        "taken relative to the working folder; to be changed",
    ),
];

const USER_NAMESPACES: &str = "user namespaces are not built yet";

/// The reason for which a case may fail.
pub(crate) fn reason(case: &str) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(id, _)| *id == case)
        .map(|(_, reason)| *reason)
}

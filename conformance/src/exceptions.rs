//! Cases that Keelson's runtime may fail though another passes, each with the reason.

/// A case and why failing it is right.
pub(crate) const EXCEPTIONS: &[(&str, &str)] = &[];

/// The reason for which a case may fail.
pub(crate) fn reason(case: &str) -> Option<&'static str> {
    EXCEPTIONS
        .iter()
        .find(|(id, _)| *id == case)
        .map(|(_, reason)| *reason)
}

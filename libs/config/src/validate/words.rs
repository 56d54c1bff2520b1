//! Checks of single words.

/// An absolute path without empty parts, `.` and `..`.
pub(super) fn is_path(path: &str) -> bool {
    let part = |part: &str| !matches!(part, "" | "." | "..");
    path.len() < 4096
        && !path.contains('\0')
        && path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(part))
}

/// What can't be a reference to an image; the registry's client says more.
pub(super) fn is_no_reference(image: &str) -> bool {
    image.is_empty()
        || image.len() > 512
        || image.starts_with(['/', '-', '.'])
        || image.contains(|c: char| c.is_whitespace() || c.is_control())
}

//! Where a file of a foreign document lies on this machine.

/// Directories that are links here, and where they lead (mkosi.finalize makes them).
const LINKS: [(&str, &str); 7] = [
    ("/home", "/var/home"),
    ("/root", "/var/roothome"),
    ("/opt", "/var/opt"),
    ("/srv", "/var/srv"),
    ("/mnt", "/var/mnt"),
    ("/usr/local", "/var/usrlocal"),
    ("/media", "/run/media"),
];

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("it is not an absolute path without . and ..")]
    NotPlain,
    #[error("/usr belongs to the operating system and is read-only; use /etc or /var")]
    ReadOnly,
    #[error("it is gone at the next boot, or never reaches a disk; use /etc or /var")]
    Volatile,
    #[error("only /etc and /var can be written")]
    Elsewhere,
    #[error("the operating system writes it itself")]
    Own,
}

/// The path below /etc or /var that a document's path means.
pub(crate) fn placed(path: &str) -> Result<String, PathError> {
    let plain = path.starts_with('/')
        && path.len() <= 4096
        && !path.contains('\0')
        && path
            .split('/')
            .skip(1)
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if !plain {
        return Err(PathError::NotPlain);
    }
    let moved = LINKS.iter().find_map(|(from, to)| {
        let rest = path.strip_prefix(from)?;
        rest.starts_with('/').then(|| format!("{to}{rest}"))
    });
    let path = moved.unwrap_or_else(|| path.to_owned());
    let below = |directory: &str| {
        path.strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    if ["/var/lib/keelson", "/etc/keelson"]
        .iter()
        .any(|own| below(own))
    {
        return Err(PathError::Own);
    }
    if below("/etc") || below("/var") {
        return Ok(path);
    }
    if ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/boot"]
        .iter()
        .any(|own| below(own))
    {
        return Err(PathError::ReadOnly);
    }
    if ["/run", "/tmp", "/proc", "/sys", "/dev"]
        .iter()
        .any(|own| below(own))
    {
        return Err(PathError::Volatile);
    }
    Err(PathError::Elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_links_of_the_image() {
        assert_eq!(placed("/etc/motd").unwrap(), "/etc/motd");
        assert_eq!(placed("/home/a/.profile").unwrap(), "/var/home/a/.profile");
        assert_eq!(placed("/usr/local/bin/x").unwrap(), "/var/usrlocal/bin/x");
        assert_eq!(placed("/usr/bin/x"), Err(PathError::ReadOnly));
        assert_eq!(placed("/run/x"), Err(PathError::Volatile));
        assert_eq!(placed("/data/x"), Err(PathError::Elsewhere));
        assert_eq!(placed("/etc/../usr/x"), Err(PathError::NotPlain));
        assert_eq!(placed("etc/x"), Err(PathError::NotPlain));
        assert_eq!(placed("/etc/keelson/host.toml"), Err(PathError::Own));
        assert_eq!(placed("/etc"), Err(PathError::Elsewhere));
    }
}

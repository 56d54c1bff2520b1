//! API versions and their negotiation.

use std::fmt;

/// Requests that skopeo and podman send with a fixed old version (`docker-daemon:` of
/// containers/image before 5.28). With each, the version since which it has not changed.
const OLD_ARCHIVES: (ApiVersion, [&str; 2]) =
    (ApiVersion::new(1, 22), ["/images/get", "/images/load"]);

/// A version of the Docker Engine API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The oldest version that is served.
    pub const MIN: Self = Self::new(1, 24);
    /// The newest version that is served, and the one that a path without a version means.
    pub const MAX: Self = Self::new(1, 51);

    /// A version by its numbers.
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The minor number of a version that is served; all have the same major one.
    pub const fn minor(self) -> u16 {
        self.minor
    }

    /// Reads `1.24`.
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        // A number that does not fit is newer than anything known.
        let number = |s: &str| s.parse().unwrap_or(u16::MAX);
        Some(Self::new(number(major), number(minor)))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A version in a path is out of range. Clients match on the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct VersionError(String);

/// Splits `/v1.44/info` into version and `/info`. A path without a version is left as it is and
/// gets [`ApiVersion::MAX`].
///
/// # Errors
/// The message for the client when the version is out of range, in the words that clients match
/// on.
pub fn split(path: &str) -> Result<(ApiVersion, &str), VersionError> {
    let unversioned = Ok((ApiVersion::MAX, path));
    let Some(rest) = path.strip_prefix("/v") else {
        return unversioned;
    };
    let (text, tail) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let Some(version) = ApiVersion::parse(text) else {
        return unversioned;
    };
    if version >= OLD_ARCHIVES.0 && version < ApiVersion::MIN && OLD_ARCHIVES.1.contains(&tail) {
        return Ok((ApiVersion::MIN, tail));
    }
    if version < ApiVersion::MIN {
        return Err(VersionError(format!(
            "client version {text} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            ApiVersion::MIN
        )));
    }
    if version > ApiVersion::MAX {
        return Err(VersionError(format!(
            "client version {text} is too new. Maximum supported API version is {}",
            ApiVersion::MAX
        )));
    }
    Ok((version, tail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_split_off() {
        assert_eq!(split("/v1.44/info"), Ok((ApiVersion::new(1, 44), "/info")));
        assert_eq!(split("/info"), Ok((ApiVersion::MAX, "/info")));
        assert_eq!(split("/version"), Ok((ApiVersion::MAX, "/version")));
        assert_eq!(split("/volumes"), Ok((ApiVersion::MAX, "/volumes")));
        assert_eq!(split("/v1.24"), Ok((ApiVersion::MIN, "/")));
    }

    #[test]
    fn versions_out_of_range_are_refused_in_dockers_words() {
        assert_eq!(
            split("/v1.99/info").unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert!(split("/v1.23/info").unwrap_err().0.contains("too old"));
        for (path, served) in [
            ("/v1.22/images/get", true),
            ("/v1.23/images/load", true),
            ("/v1.21/images/get", false),
            ("/v1.22/images/json", false),
        ] {
            assert_eq!(split(path).is_ok(), served, "{path}");
        }
        assert!(
            split("/v99999999.1/info")
                .unwrap_err()
                .0
                .contains("too new")
        );
    }

    proptest! {
        #[test]
        fn any_path_is_survived(path in ".{0,60}") {
            let _ = split(&path);
        }
    }
}

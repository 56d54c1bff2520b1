//! Which Linux distribution the building machine runs.

use std::fs;

use anyhow::{Context, Result};

/// The content of `os-release(5)`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// `debian`, `ubuntu`, ….
    pub id: String,
    /// `12`, `24.04`, …; empty for rolling ones.
    pub version: String,
    /// `bookworm`, `noble`, …; empty where there is none.
    pub codename: String,
    /// Name for people.
    pub name: String,
    /// Distributions that it is made from.
    pub like: Vec<String>,
}

impl Distribution {
    /// The distribution that this program runs on.
    ///
    /// # Errors
    /// There is no readable os-release file.
    pub fn detect() -> Result<Self> {
        let text = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .context("read /etc/os-release to know the distribution")?;
        Ok(Self::parse(&text))
    }

    /// Reads the file's `NAME=value` lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |wanted: &str| {
            text.lines()
                .filter_map(|line| line.trim().split_once('='))
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.trim_matches(['"', '\'']).to_owned())
                .unwrap_or_default()
        };
        Self {
            id: value("ID"),
            version: value("VERSION_ID"),
            codename: value("VERSION_CODENAME"),
            name: value("PRETTY_NAME"),
            like: value("ID_LIKE")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether packages come from apt under Debian's names.
    #[must_use]
    pub fn has_debian_packages(&self) -> bool {
        let known = ["debian", "ubuntu"];
        known.contains(&self.id.as_str())
            || self.like.iter().any(|like| known.contains(&like.as_str()))
    }

    /// Whether this is a version that Keelson is built on regularly: Debian 12 and later, Ubuntu
    /// 22.04 and later.
    #[must_use]
    pub fn is_supported(&self) -> bool {
        // Debian's testing has no version.
        let major = self
            .version
            .split('.')
            .next()
            .unwrap_or_default()
            .parse::<u32>()
            .ok();
        match self.id.as_str() {
            "debian" => major.is_none_or(|major| major >= 12),
            "ubuntu" => major.is_some_and(|major| major >= 22),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distributions() {
        let debian = Distribution::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n\
             VERSION_CODENAME=bookworm\n",
        );
        assert!(debian.is_supported() && debian.has_debian_packages());
        assert_eq!(debian.name, "Debian GNU/Linux 12");
        assert_eq!(debian.codename, "bookworm");
        assert!(Distribution::parse("ID=debian\n").is_supported());
        assert!(!Distribution::parse("ID=debian\nVERSION_ID=\"11\"\n").is_supported());
        assert!(Distribution::parse("ID=ubuntu\nVERSION_ID=\"24.04\"\n").is_supported());
        assert!(!Distribution::parse("ID=ubuntu\nVERSION_ID=\"20.04\"\n").is_supported());
        let mint =
            Distribution::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"22\"\n");
        assert!(mint.has_debian_packages() && !mint.is_supported());
        let fedora = Distribution::parse("ID=fedora\nVERSION_ID=41\n");
        assert!(!fedora.has_debian_packages() && !fedora.is_supported());
    }
}

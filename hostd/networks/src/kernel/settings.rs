//! Kernel parameters below `/proc/sys/net`. They belong to the network namespace of the thread that
//! opens the file.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::KernelError;

/// A parameter and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The parts of its name. A part may contain dots, as names of links do.
    pub(super) name: Vec<String>,
    /// The value.
    pub(super) value: String,
    /// Whether the kernel may lack it, because IPv6 can be left out or switched off.
    pub(super) optional: bool,
}

impl Setting {
    /// A parameter of a link: `net.ipv4.conf.<link>.<name>`. Those of IPv6 are optional.
    pub(super) fn of_link(ipv6: bool, link: &str, name: &str, value: u8) -> Self {
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        Self {
            name: ["net", family, "conf", link, name]
                .map(str::to_owned)
                .to_vec(),
            value: value.to_string(),
            optional: ipv6,
        }
    }

    /// Parses a parameter that a user set for an interface. The name has dots, and `IFNAME` in
    /// place of the interface's name. Only parameters of an interface are allowed, because only
    /// they affect the container alone.
    pub(super) fn of_user(name: &str, value: &str, interface: &str) -> Result<Self, KernelError> {
        let parts: Vec<&str> = name.split('.').collect();
        let placeholder = |part: &&str| part.eq_ignore_ascii_case("IFNAME");
        let fits = matches!(parts.as_slice(), ["net", _, _, link, _, ..] if placeholder(link));
        let plain = |part: &&str| !part.is_empty() && !part.contains(['/', '\0']);
        if !fits || !parts.iter().all(plain) {
            let name = name.to_owned();
            return Err(KernelError::NotOfInterface { name });
        }
        let part = |part: &str| match placeholder(&part) {
            true => interface.to_owned(),
            false => part.to_owned(),
        };
        Ok(Self {
            name: parts.into_iter().map(part).collect(),
            value: value.to_owned(),
            optional: false,
        })
    }

    /// Whether it is the parameter of this name of any link.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.last().is_some_and(|last| last == name)
    }

    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/proc/sys");
        path.extend(&self.name);
        path
    }

    /// Sets it in the network namespace of the calling thread.
    pub(super) fn apply(&self) -> Result<(), KernelError> {
        let write = || {
            // Some starts wait for this, so avoid unnecessary system calls.
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::open(self.path(), flags, Mode::empty())?;
            // The kernel takes a value completely or not at all.
            rustix::io::write(&file, self.value.as_bytes())?;
            Ok::<_, io::Error>(())
        };
        match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.optional => Ok(()),
            Err(source) => Err(KernelError::Setting {
                name: self.name.join("."),
                value: self.value.clone(),
                source,
            }),
            Ok(()) => Ok(()),
        }
    }

    /// Its current value, without the line end; `None` if the kernel does not have it.
    pub(super) fn current(&self) -> Option<String> {
        let mut text = String::new();
        let file = OpenOptions::new().read(true).open(self.path()).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        Some(text.trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_set_parameters_of_the_interface_only() {
        let setting = Setting::of_user("net.ipv4.conf.ifname.log_martians", "1", "eth0.5").unwrap();
        let path = "/proc/sys/net/ipv4/conf/eth0.5/log_martians";
        assert_eq!(setting.path(), PathBuf::from(path));
        for bad in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "kernel.x.conf.IFNAME.y",
            "net.ipv4.conf.IFNAME",
            "net.ipv4.conf.IFNAME.",
            "net.ipv4.conf.IFNAME.x/../../../all/y",
            "net.ipv4/../ipv6.conf.IFNAME.y",
        ] {
            let error = Setting::of_user(bad, "1", "eth0").unwrap_err();
            assert!(error.to_string().contains("IFNAME"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_missing_parameter_is_an_error_unless_it_is_optional() {
        let setting = |ipv6| Setting::of_link(ipv6, "no-such-link", "forwarding", 1);
        setting(true).apply().unwrap();
        let error = setting(false).apply().unwrap_err().to_string();
        assert!(
            error.contains("net.ipv4.conf.no-such-link.forwarding"),
            "{error}"
        );
        assert_eq!(setting(false).current(), None);
    }
}

//! The mounts of the driver `local`: the options `type`, `device` and `o`, as in mount(8).

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};

use rustix::mount::MountFlags;

use crate::unfit::Unfit;

/// The known options, each with the options that it requires.
const KNOWN: &[(&str, &[&str])] = &[
    ("device", &["type"]),
    ("o", &["device", "type"]),
    ("type", &["device"]),
];

/// A mount that a volume's options ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The type of the file system; `none` for a bind mount.
    pub(crate) kind: String,
    /// The source of the mount.
    pub(crate) device: String,
    /// Flags of mount(2).
    pub(crate) flags: MountFlags,
    /// Data of mount(2).
    pub(crate) data: String,
}

/// Whether the driver accepts options.
///
/// # Errors
/// What is wrong with them, in Docker's words.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<(), Unfit> {
    for name in options.keys() {
        if name == "size" {
            return Err(
                "quota size requested but no quota support: use a tmpfs with o=size=… instead"
                    .into(),
            );
        }
        if !KNOWN.iter().any(|(known, _)| known == name) {
            return Err(format!("invalid option: {name:?}").into());
        }
    }
    for (name, needed) in KNOWN {
        if options.contains_key(*name)
            && let Some(missing) = needed.iter().find(|other| !options.contains_key(**other))
        {
            return Err(format!("missing required option: {missing:?}").into());
        }
    }
    Ok(())
}

/// The mount that options request, if any.
pub(crate) fn wanted(options: &BTreeMap<String, String>) -> Option<Wanted> {
    let get = |name: &str| options.get(name).cloned().unwrap_or_default();
    let (kind, device) = (get("type"), get("device"));
    if device.is_empty() || kind.is_empty() {
        return None;
    }
    let (flags, data) = parse(&get("o"));
    Some(Wanted {
        kind,
        device,
        flags,
        data,
    })
}

/// Splits mount(8)'s options into flags and options for the file system.
fn parse(text: &str) -> (MountFlags, String) {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (set, flag) = match option {
            "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" => continue,
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "diratime" => (false, MountFlags::NODIRATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "norelatime" => (false, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            "nostrictatime" => (false, MountFlags::STRICTATIME),
            "bind" => (true, MountFlags::BIND),
            "rbind" => (true, MountFlags::BIND | MountFlags::REC),
            _ => {
                data.push(option);
                continue;
            }
        };
        flags.set(flag, set);
    }
    (flags, data.join(","))
}

/// Replaces the host name of `addr=` by an address, because the kernel does not resolve names.
///
/// # Errors
/// The name can't be resolved.
pub(crate) fn resolved(wanted: &Wanted) -> std::io::Result<String> {
    if !matches!(wanted.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3") {
        return Ok(wanted.data.clone());
    }
    let mut options = Vec::new();
    for option in wanted.data.split(',') {
        let name = option
            .strip_prefix("addr=")
            .filter(|name| name.parse::<IpAddr>().is_err());
        options.push(match name {
            None => option.to_owned(),
            Some(name) => {
                let found = (name, 0).to_socket_addrs()?.next();
                let found = found.ok_or_else(|| {
                    std::io::Error::new(
                        std::io::ErrorKind::NotFound,
                        format!("{name} has no address"),
                    )
                })?;
                format!("addr={}", found.ip())
            }
        });
    }
    Ok(options.join(","))
}

/// The data without passwords.
pub(crate) fn without_secrets(data: &str) -> String {
    let hidden = data.split(',').map(|option| match option.split_once('=') {
        Some((name @ ("password" | "pass"), _)) => format!("{name}=********"),
        _ => option.to_owned(),
    });
    hidden.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn unknown_options_are_refused() {
        for (list, reason) in [
            (&[("foo", "1")][..], "invalid option: \"foo\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "bind")], "missing required option: \"device\""),
        ] {
            assert_eq!(check(&options(list)), Err(reason.into()));
        }
        assert!(
            check(&options(&[("size", "1g")]))
                .unwrap_err()
                .to_string()
                .contains("quota")
        );
        assert_eq!(check(&BTreeMap::new()), Ok(()));
        let whole = options(&[("type", "none"), ("device", "/x"), ("o", "bind,ro")]);
        assert_eq!(check(&whole), Ok(()));
    }

    #[test]
    fn flags_and_data_are_separated() {
        let list = options(&[
            ("type", "nfs"),
            ("device", ":/x"),
            ("o", "addr=127.0.0.1,ro,rw,nosuid,vers=4"),
        ]);
        let wanted = wanted(&list).unwrap();
        assert_eq!(wanted.flags, MountFlags::NOSUID);
        assert_eq!(wanted.data, "addr=127.0.0.1,vers=4");
        assert_eq!(resolved(&wanted).unwrap(), wanted.data);
        assert_eq!(super::wanted(&BTreeMap::new()), None);
        assert_eq!(parse("rbind").0, MountFlags::BIND | MountFlags::REC);
        assert_eq!(
            without_secrets("user=a,password=b"),
            "user=a,password=********"
        );
    }
}

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
pub(crate) struct MountOptions {
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
pub(crate) fn wanted(options: &BTreeMap<String, String>) -> Option<MountOptions> {
    let get = |name: &str| options.get(name).cloned().unwrap_or_default();
    let (kind, device) = (get("type"), get("device"));
    if device.is_empty() || kind.is_empty() {
        return None;
    }
    let (flags, data) = parse(&get("o"));
    Some(MountOptions {
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

/// The data with the server's address: the kernel knows no names. `addr=` with a name gets the address;
/// without `addr=` (or `ip=`) the server is the one of the device, as for mount.nfs and mount.cifs.
///
/// # Errors
/// The name can't be resolved.
pub(crate) fn resolved(wanted: &MountOptions) -> std::io::Result<String> {
    let server = match wanted.kind.as_str() {
        "nfs" | "nfs4" => server_of_nfs(&wanted.device),
        "cifs" | "smb3" => server_of_cifs(&wanted.device),
        _ => return Ok(wanted.data.clone()),
    };
    let mut options = Vec::new();
    let mut is_named = false;
    for option in wanted.data.split(',').filter(|option| !option.is_empty()) {
        options.push(match option.split_once('=') {
            Some((name @ ("addr" | "ip"), server)) => {
                is_named = true;
                format!("{name}={}", address(server)?)
            }
            _ => option.to_owned(),
        });
    }
    if let Some(server) = server
        && !is_named
    {
        options.push(format!("addr={}", address(server)?));
    }
    Ok(options.join(","))
}

/// `SERVER:/path`, with an IPv6 address in brackets. Without a server, `addr=` must name it.
fn server_of_nfs(device: &str) -> Option<&str> {
    let (server, _) = device.split_once(":/")?;
    let server = server
        .strip_prefix('[')
        .map_or(server, |server| server.strip_suffix(']').unwrap_or(server));
    (!server.is_empty()).then_some(server)
}

/// `//SERVER/share`.
fn server_of_cifs(device: &str) -> Option<&str> {
    let (server, _) = device.strip_prefix("//")?.split_once('/')?;
    (!server.is_empty()).then_some(server)
}

/// The address of a server.
fn address(server: &str) -> std::io::Result<IpAddr> {
    if let Ok(address) = server.parse() {
        return Ok(address);
    }
    let mut found = (server, 0).to_socket_addrs()?;
    let found = found.next().ok_or_else(|| {
        std::io::Error::new(
            std::io::ErrorKind::NotFound,
            format!("{server} has no address"),
        )
    })?;
    Ok(found.ip())
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

    /// What the kernel is told of a server, which this machine's kernel need not have a client for.
    #[test]
    fn servers_are_named_by_their_addresses() {
        let local: IpAddr = ("localhost", 0)
            .to_socket_addrs()
            .unwrap()
            .next()
            .unwrap()
            .ip();
        for (kind, device, o, wanted) in [
            (
                "nfs",
                ":/x",
                "addr=192.0.2.1,vers=3",
                "addr=192.0.2.1,vers=3".to_owned(),
            ),
            (
                "nfs",
                ":/x",
                "addr=localhost,ro,soft",
                format!("addr={local},soft"),
            ),
            (
                "nfs4",
                "192.0.2.1:/x",
                "vers=4.2",
                "vers=4.2,addr=192.0.2.1".to_owned(),
            ),
            ("nfs", "[2001:db8::1]:/x", "", "addr=2001:db8::1".to_owned()),
            ("nfs", "localhost:/x", "", format!("addr={local}")),
            (
                "nfs",
                "other:/x",
                "addr=192.0.2.1",
                "addr=192.0.2.1".to_owned(),
            ),
            (
                "cifs",
                "//192.0.2.1/s",
                "username=a",
                "username=a,addr=192.0.2.1".to_owned(),
            ),
            ("cifs", "//localhost/s", "", format!("addr={local}")),
            (
                "smb3",
                "//other/s",
                "ip=192.0.2.1",
                "ip=192.0.2.1".to_owned(),
            ),
            (
                "tmpfs",
                "tmpfs",
                "size=1m,addr=x",
                "size=1m,addr=x".to_owned(),
            ),
        ] {
            let options = options(&[("type", kind), ("device", device), ("o", o)]);
            let wanted_mount = super::wanted(&options).unwrap();
            assert_eq!(
                resolved(&wanted_mount).unwrap(),
                wanted,
                "{kind} {device} {o}"
            );
            assert_eq!(
                wanted_mount.flags.contains(MountFlags::RDONLY),
                o.contains("ro,")
            );
        }
        let unknown = options(&[("type", "nfs"), ("device", "no-such-host.invalid:/x")]);
        assert!(resolved(&super::wanted(&unknown).unwrap()).is_err());
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

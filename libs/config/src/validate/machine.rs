//! Checks of what the configuration says about the machine itself.

use std::collections::HashSet;

use keelson_model::host::{
    CommandConfig, FileConfig, MachineConfig, MountConfig, SysctlValue, UserConfig,
};

use super::keys::check_key;
use super::words::{is_no_reference, is_path};
use super::{Faults, check_domain_name, check_host_name};
use crate::path;

/// What `[[file]]` may not write: the configuration itself, and hostd's state.
const OURS: &[&str] = &[
    "/etc/keelson/host.toml",
    "/etc/keelson/host.toml.d",
    "/var/lib/keelson",
];

pub(super) fn check(config: &MachineConfig, faults: &mut Faults) {
    if let Some(name) = &config.fqdn {
        let first = name.split('.').next().unwrap_or_default();
        let good = check_domain_name(name).and_then(|()| check_host_name(first));
        match good {
            Ok(()) if name.trim_end_matches('.').contains('.') => {}
            Ok(()) => faults.add("fqdn", format!("\"{name}\" has no domain")),
            Err(why) => faults.add("fqdn", format!("\"{name}\" {why}")),
        }
    }
    check_users(&config.user, faults);
    check_files(&config.file, faults);
    for (index, command) in config.command.iter().enumerate() {
        check_command(command, &format!("command[{index}]"), faults);
    }
    for (name, value) in &config.sysctl {
        check_sysctl(name, value, faults);
    }
    for (index, module) in config.modules.load.iter().enumerate() {
        if !is_module(module) {
            faults.add(
                &format!("modules.load[{index}]"),
                format!("{module:?} is no name of a module"),
            );
        }
    }
    for name in config
        .modules
        .options
        .keys()
        .filter(|name| !is_module(name))
    {
        faults.add(
            "modules.options",
            format!("{name:?} is no name of a module"),
        );
    }
    let zram = config.swap.zram_percent;
    if zram > 200 {
        faults.add("swap.zram_percent", format!("{zram} is out of range"));
    }
    if let Some(timeout) = config.watchdog.timeout.filter(|timeout| *timeout > 3600) {
        faults.add("watchdog.timeout", format!("{timeout} is out of range"));
    }
    for (index, mount) in config.storage.mount.iter().enumerate() {
        check_mount(mount, &format!("storage.mount[{index}]"), faults);
    }
}

/// Users of Debian's base system and of the console's programs. `root` may have keys.
const SYSTEM_USERS: &[&str] = &[
    "_apt",
    "backup",
    "bin",
    "daemon",
    "games",
    "irc",
    "list",
    "lp",
    "mail",
    "man",
    "messagebus",
    "news",
    "nobody",
    "proxy",
    "sshd",
    "sync",
    "sys",
    "tcpdump",
    "uucp",
    "www-data",
];

/// As useradd(8) accepts it.
fn is_user_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

fn check_users(users: &[UserConfig], faults: &mut Faults) {
    let mut names = HashSet::new();
    for (index, user) in users.iter().enumerate() {
        let at = format!("user[{index}]");
        let name = user.name.as_str();
        if !is_user_name(name) {
            faults.add(&format!("{at}.name"), format!("{name:?} is no login name"));
        } else if SYSTEM_USERS.contains(&name) {
            faults.add(
                &format!("{at}.name"),
                format!("\"{name}\" is a user of the system"),
            );
        }
        if !names.insert(name) {
            faults.advise(
                &format!("{at}.name"),
                format!("\"{name}\" is configured twice"),
                "write one [[user]] for each user",
            );
        }
        for (number, key) in user.ssh_authorized_keys.iter().enumerate() {
            if let Err(why) = check_key(key) {
                let field = format!("{at}.ssh_authorized_keys[{number}]");
                faults.add(&field, format!("this {why}"));
            }
        }
        for (number, group) in user.groups.iter().enumerate() {
            if !is_user_name(group) {
                faults.add(
                    &format!("{at}.groups[{number}]"),
                    format!("{group:?} is no name of a group"),
                );
            }
        }
        let hash = user.password_hash.as_deref();
        if hash.is_some_and(|hash| hash.is_empty() || hash.contains([':', '\n', '\0', ' '])) {
            faults.add(
                &format!("{at}.password_hash"),
                "this is no hash of crypt(5)".to_owned(),
            );
        }
        if user.container.as_deref().is_some_and(is_no_reference) {
            faults.add(
                &format!("{at}.container"),
                "this is no name of an image".to_owned(),
            );
        }
        if let Some(shell) = user.shell.as_deref().filter(|shell| !is_path(shell)) {
            faults.add(
                &format!("{at}.shell"),
                format!("{shell:?} is not an absolute path"),
            );
        }
    }
}

fn check_files(files: &[FileConfig], faults: &mut Faults) {
    let mut paths = HashSet::new();
    for (index, file) in files.iter().enumerate() {
        let at = format!("file[{index}]");
        if let Err(why) = check_file_path(&file.path) {
            faults.add(&format!("{at}.path"), format!("{:?} {why}", file.path));
        }
        if !paths.insert(file.path.as_str()) && !file.append {
            faults.advise(
                &format!("{at}.path"),
                format!("{:?} is configured twice", file.path),
                "write one [[file]] for each file, or append = true in the later ones",
            );
        }
        match (&file.contents, &file.base64) {
            (None, None) => faults.add(&at, "it has neither contents nor base64".to_owned()),
            (Some(_), Some(_)) => faults.add(&at, "it has both contents and base64".to_owned()),
            (None, Some(text)) if !is_base64(text) => {
                faults.advise(
                    &format!("{at}.base64"),
                    "this is not base64".to_owned(),
                    "write what base64(1) prints",
                );
            }
            _ => {}
        }
        let mode = file.mode.as_deref();
        if let Some(mode) = mode.filter(|mode| parse_mode(mode).is_none()) {
            faults.add(
                &format!("{at}.mode"),
                format!("{mode:?} is no octal number up to 7777"),
            );
        }
        let part = |part: &str| is_user_name(part) || part.parse::<u32>().is_ok();
        let owner = file.owner.as_deref();
        if let Some(owner) =
            owner.filter(|owner| owner.split(':').count() > 2 || !owner.split(':').all(part))
        {
            faults.add(&format!("{at}.owner"), format!("{owner:?} is no owner"));
        }
    }
}

fn check_file_path(path: &str) -> Result<(), &'static str> {
    if !is_path(path) {
        return Err("is not an absolute path without \".\" and \"..\"");
    }
    if !(path.starts_with("/etc/") || path.starts_with("/var/")) {
        return Err("is outside of /etc and /var");
    }
    let ours = |ours: &str| {
        path.strip_prefix(ours)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match OURS.iter().any(|path| ours(path)) {
        true => Err("belongs to Keelson"),
        false => Ok(()),
    }
}

/// The permission bits in `text`, which are octal digits.
#[must_use]
pub fn parse_mode(text: &str) -> Option<u32> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| digits)?;
    (mode <= 0o7777).then_some(mode)
}

fn is_base64(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let body = digits
        .iter()
        .rposition(|b| *b != b'=')
        .map_or(0, |at| at + 1);
    let fill = digits.len() - body;
    digits.len().is_multiple_of(4)
        && fill <= 2
        && digits
            .iter()
            .take(body)
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

fn check_command(command: &CommandConfig, at: &str, faults: &mut Faults) {
    let ways = [
        !command.argv.is_empty(),
        command.shell.is_some(),
        command.script.is_some(),
    ];
    let ways = ways.into_iter().filter(|way| *way).count();
    if ways != 1 {
        faults.advise(
            at,
            format!("it has {ways} of argv, shell and script"),
            "write exactly one of argv, shell and script",
        );
    }
    if command
        .script
        .as_deref()
        .is_some_and(|text| !text.starts_with("#!"))
    {
        faults.add(
            &format!("{at}.script"),
            "it names no interpreter".to_owned(),
        );
    }
}

/// The path below /proc/sys of a parameter, as sysctl(8) finds it: if the first separator is a dot,
/// dots separate and slashes stand for dots. `None` if it is no name of a parameter.
#[must_use]
pub fn sysctl_path(name: &str) -> Option<String> {
    let separator = name.chars().find(|c| matches!(c, '.' | '/'))?;
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = match separator {
        '.' => name.chars().map(swapped).collect(),
        _ => name.to_owned(),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b':');
    let part = |part: &str| !matches!(part, "" | "." | "..");
    (name.len() <= 255 && path.bytes().all(known) && path.split('/').all(part)).then_some(path)
}

fn check_sysctl(name: &str, value: &SysctlValue, faults: &mut Faults) {
    let at = path::join("sysctl", name);
    match sysctl_path(name).as_deref() {
        None => faults.advise(
            &at,
            format!("{name:?} is no name of a parameter"),
            "write the whole name in quotes, such as \"vm.swappiness\"",
        ),
        Some("kernel/modprobe") => faults.advise(
            &at,
            "kernel.modprobe belongs to PID 1".to_owned(),
            "leave it out",
        ),
        Some(_) => {}
    }
    if let SysctlValue::Text(text) = value
        && (text.len() > 4096 || text.contains(['\n', '\0']))
    {
        faults.advise(
            &at,
            "the value has a line break or is longer than 4096 bytes".to_owned(),
            "write one line",
        );
    }
}

fn is_module(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn check_mount(mount: &MountConfig, at: &str, faults: &mut Faults) {
    let tags = ["LABEL=", "UUID=", "PARTLABEL=", "PARTUUID="];
    let tagged = tags.iter().any(|tag| {
        let name = mount.device.strip_prefix(tag);
        name.is_some_and(|name| !name.is_empty())
    });
    let path = mount.device.starts_with("/dev/") && is_path(&mount.device);
    if !tagged && !path {
        faults.add(
            &format!("{at}.device"),
            format!("{:?} names no device", mount.device),
        );
    }
    let good = is_path(&mount.path) && mount.path.starts_with("/var/");
    if !good || mount.path.starts_with("/var/lib/keelson/host") {
        faults.add(
            &format!("{at}.path"),
            format!("{:?} is no directory below /var for this", mount.path),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_as_by_sysctl() {
        for (name, path) in [
            ("vm.swappiness", Some("vm/swappiness")),
            (
                "net.ipv4.conf.eth0/7.forwarding",
                Some("net/ipv4/conf/eth0.7/forwarding"),
            ),
            (
                "net/ipv4/conf/eth0.7/forwarding",
                Some("net/ipv4/conf/eth0.7/forwarding"),
            ),
            ("vm", None),
            ("vm..swappiness", None),
            ("/etc/passwd", None),
            ("vm/../../etc/passwd", None),
            ("a.//.b", None),
        ] {
            assert_eq!(sysctl_path(name).as_deref(), path, "{name}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0644"), Some(0o644));
        assert_eq!(parse_mode("4755"), Some(0o4755));
        for wrong in ["", "0o644", "888", "77777", "+644", "000644"] {
            assert_eq!(parse_mode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn base64_is_recognised() {
        for good in ["", "YQ==", "YWI=", "YWJj", "YW\nJj\n"] {
            assert!(is_base64(good), "{good}");
        }
        for wrong in ["Y", "YQ=", "Y===", "YQ==YQ==", "YW-j"] {
            assert!(!is_base64(wrong), "{wrong}");
        }
    }
}

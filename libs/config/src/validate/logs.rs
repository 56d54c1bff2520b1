//! Checks of `[logs]`.

use std::collections::HashSet;

use keelson_model::host::{ForwardConfig, LogTarget, LogTransport, LogsConfig};

use super::Faults;

/// The smallest store, in bytes.
const SMALLEST: u64 = 1 << 20;
/// The longest time that lines are kept, in days.
const OLDEST: u32 = 36_500;
/// How many targets there may be.
const MOST_TARGETS: usize = 8;

pub(super) fn check(logs: &LogsConfig, faults: &mut Faults) {
    if logs.max_size < SMALLEST {
        faults.add("logs.max_size", format!("{} is too small", logs.max_size));
    }
    if logs.max_age > OLDEST {
        faults.add("logs.max_age", format!("{} is out of range", logs.max_age));
    }
    if logs.forward.len() > MOST_TARGETS {
        faults.advise(
            "logs.forward",
            format!("{} targets are too many", logs.forward.len()),
            "write at most 8, and let one of them pass the lines on",
        );
    }
    let mut names = HashSet::new();
    for (index, forward) in logs.forward.iter().enumerate() {
        let at = format!("logs.forward[{index}]");
        if !names.insert(forward.name.as_str()) {
            faults.advise(
                &format!("{at}.name"),
                format!("\"{}\" is configured twice", forward.name),
                "give each target a name of its own",
            );
        }
        check_forward(forward, &at, faults);
    }
}

fn check_forward(forward: &ForwardConfig, at: &str, faults: &mut Faults) {
    let name = forward.name.as_str();
    let small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=32).contains(&name.len()) || !name.bytes().all(small) || name.starts_with('-') {
        faults.add(
            &format!("{at}.name"),
            format!("{name:?} is no name of a target"),
        );
    }
    let transport = match forward.target.parse::<LogTarget>() {
        Ok(target) => Some(target.transport),
        Err(why) => {
            faults.add(
                &format!("{at}.target"),
                format!("{:?} {why}", forward.target),
            );
            None
        }
    };
    for (index, unit) in forward.units.iter().enumerate() {
        if unit.is_empty() || unit.len() > 64 || unit.contains(['/', ' ', '\n']) {
            faults.add(
                &format!("{at}.units[{index}]"),
                format!("{unit:?} is no name of a unit"),
            );
        }
    }
    let encrypted = transport.is_none_or(LogTransport::is_encrypted);
    for (member, path) in [
        ("ca", &forward.ca),
        ("certificate", &forward.certificate),
        ("key", &forward.key),
        ("token", &forward.token),
    ] {
        let Some(path) = path else { continue };
        let field = format!("{at}.{member}");
        if !path.is_absolute() {
            faults.add(
                &field,
                format!("{} is not an absolute path", path.display()),
            );
        } else if !encrypted {
            faults.advise(
                &field,
                format!("{member} has no meaning for {}", forward.target),
                "use a tls:// or https:// target, or leave it out",
            );
        }
    }
    if forward.certificate.is_some() != forward.key.is_some() {
        let member = ["certificate", "key"][usize::from(forward.certificate.is_none())];
        faults.add(&format!("{at}.{member}"), format!("{member} stands alone"));
    }
    if forward.token.is_some() && transport == Some(LogTransport::Tls) {
        faults.add(&format!("{at}.token"), "syslog knows no tokens".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;

    fn problems(text: &str) -> Vec<(String, String)> {
        let found = parse(text.as_bytes(), "x".as_ref())
            .err()
            .unwrap_or_default();
        found
            .into_iter()
            .map(|problem| (problem.field, problem.message))
            .collect()
    }

    #[test]
    fn good_targets_are_accepted() {
        let text = "[logs]\nmax_size = 1048576\nmax_age = 0\n\
            [[logs.forward]]\nname = 'a'\ntarget = 'udp://192.0.2.1'\nunits = ['kernel']\npriority = 'warning'\n\
            [[logs.forward]]\nname = 'b'\ntarget = 'https://h/in'\nca = '/a'\ncertificate = '/b'\nkey = '/c'\ntoken = '/d'\n";
        assert_eq!(problems(text), []);
    }

    #[test]
    fn wrong_ones_are_named() {
        let forward =
            |more: &str| format!("[[logs.forward]]\nname = 'a'\ntarget = 'tls://h'\n{more}");
        for (text, field, part) in [
            ("[logs]\nmax_size = 5", "logs.max_size", "too small"),
            ("[logs]\nmax_age = 40000", "logs.max_age", "out of range"),
            (
                "[[logs.forward]]\nname = 'A'\ntarget = 'udp://h'",
                "logs.forward[0].name",
                "no name",
            ),
            (
                "[[logs.forward]]\nname = 'a'\ntarget = 'h:514'",
                "logs.forward[0].target",
                "udp://",
            ),
            (
                "[[logs.forward]]\nname = 'a'\ntarget = 'udp://h'\nca = '/x'",
                "logs.forward[0].ca",
                "no meaning",
            ),
            (&forward("ca = 'x'"), "logs.forward[0].ca", "absolute"),
            (&forward("key = '/x'"), "logs.forward[0].key", "alone"),
            (
                &forward("token = '/x'"),
                "logs.forward[0].token",
                "no tokens",
            ),
            (
                &forward("units = ['a/b']"),
                "logs.forward[0].units[0]",
                "no name",
            ),
            (
                &forward("priority = 'loud'"),
                "logs.forward[0].priority",
                "loud",
            ),
            (&forward(&forward("")), "logs.forward[1].name", "twice"),
        ] {
            let found = problems(text);
            assert!(
                found
                    .iter()
                    .any(|(at, message)| at == field && message.contains(part)),
                "{text}: {found:?}"
            );
        }
    }
}

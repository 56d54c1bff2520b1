//! Paths of fields: `network.link[0].mtu`, `sysctl."vm.swappiness"`.

/// The path of member `key` of the table at `path`. A key that TOML wants in quotes has them here,
/// too.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let key = match !key.is_empty() && key.bytes().all(plain) {
        true => key.to_owned(),
        false => format!("{key:?}"),
    };
    match path {
        "" => key,
        _ => format!("{path}.{key}"),
    }
}

/// Whether `path` is `ancestor` or lies below it.
pub(crate) fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `network.link[2].mtu` → `network.link[].mtu`.
pub(crate) fn pattern(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let (mut index, mut quoted) = (false, false);
    for character in field.chars() {
        match character {
            '"' => quoted = !quoted,
            '[' if !quoted => index = true,
            ']' if !quoted => index = false,
            _ if index => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_dots_are_quoted() {
        assert_eq!(join("", "hostname"), "hostname");
        assert_eq!(join("sysctl", "vm.swappiness"), "sysctl.\"vm.swappiness\"");
    }

    #[test]
    fn paths_end_at_their_borders() {
        assert!(is_within("network.link[0].mtu", "network.link"));
        assert!(is_within("network", "network"));
        assert!(!is_within("networks", "network"));
        assert_eq!(pattern("network.link[12].mtu"), "network.link[].mtu");
        assert_eq!(pattern("sysctl.\"a[0]\""), "sysctl.\"a[0]\"");
    }
}

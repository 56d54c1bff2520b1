//! The valid values of each field, in words for an operator.

/// Path pattern of a field (list indexes as `[]`) and the remedy that is shown when its value is
/// wrong.
const REMEDIES: &[(&str, &str)] = &[
    (
        "hostname",
        "use letters, digits and hyphens, at most 63, such as \"node-1\"",
    ),
    ("network", "write a table: [network]"),
    ("network.link", "write [[network.link]] once for each link"),
    (
        "network.link[].name",
        "use the kernel's name of the link, such as \"eth0\"",
    ),
    ("network.link[].dhcp4", "use true or false"),
    (
        "network.link[].addresses",
        "use a list of addresses with prefix length, such as [\"192.0.2.10/24\"]",
    ),
    (
        "network.link[].gateways",
        "use a list of addresses, at most one for each family, such as [\"192.0.2.1\"]",
    ),
    (
        "network.link[].mtu",
        "use a number of bytes between 576 and 65535, such as 1500",
    ),
    (
        "network.nameservers",
        "use a list of addresses, such as [\"192.0.2.53\"]",
    ),
    (
        "network.search",
        "use a list of domains, such as [\"example.net\"]",
    ),
    ("api", "write a table: [api]"),
    (
        "api.listen",
        "use a list of addresses with port, such as [\"0.0.0.0:2376\"]",
    ),
    ("time", "write a table: [time]"),
    (
        "time.servers",
        "use a list of host names or addresses, such as [\"ntp.example.net\"]",
    ),
    ("registries", "write a table: [registries]"),
    (
        "registries.mirrors",
        "use a list of URLs without path, such as [\"https://mirror.example.net\"]",
    ),
    (
        "registries.insecure",
        "use a list of hosts or prefixes, such as [\"registry.lan:5000\", \"10.0.0.0/8\"]",
    ),
    (
        "registries.auth_file",
        "use an absolute path, such as \"/etc/keelson/registry-auth.json\"",
    ),
    ("images", "write a table: [images]"),
    ("images.keep_compressed", "use true or false"),
    ("engine", "write a table: [engine]"),
    (
        "engine.stop_timeout",
        "use a number of seconds between 0 and 86400",
    ),
    (
        "engine.log_max_size",
        "use a number of bytes, at least 65536",
    ),
    (
        "engine.log_max_files",
        "use a number of files between 1 and 1000",
    ),
    ("engine.init", "use true or false"),
    (
        "engine.cdi_directories",
        "use a list of absolute paths: [\"/etc/cdi\"]",
    ),
    (
        "engine.user_namespaces",
        "write a table: [engine.user_namespaces]",
    ),
    ("engine.user_namespaces.enabled", "use true or false"),
    (
        "engine.user_namespaces.base",
        "use the first of a range of ids that nobody on the host has, at least 65536, such as 100000",
    ),
    (
        "engine.user_namespaces.size",
        "use a number of ids, at least 65536, such as 65536",
    ),
    (
        "engine.runtimes",
        "write a table for each: [engine.runtimes.NAME], of letters, digits, '.', '_' and '-'",
    ),
    ("engine.networks", "write a table: [engine.networks]"),
    (
        "engine.networks.bridge",
        "use a name of a link of at most 15 letters, digits, '.', '_' and '-', or \"none\"",
    ),
    (
        "engine.networks.address",
        "use an IPv4 address with prefix length, such as \"172.17.0.1/16\"",
    ),
    (
        "engine.networks.address_ipv6",
        "use an IPv6 address with prefix length, such as \"fd00:17::1/64\"",
    ),
    (
        "engine.networks.mtu",
        "use a number of bytes between 68 and 65535, such as 1500",
    ),
    ("engine.networks.inter_container", "use true or false"),
    (
        "engine.networks.publish_address",
        "use an address of the host, such as \"127.0.0.1\"",
    ),
    (
        "engine.networks.address_pools",
        "use a list of pools, such as [{ base = \"10.200.0.0/16\", size = 24 }]",
    ),
    (
        "engine.networks.nameservers",
        "use a list of addresses, such as [\"192.0.2.53\"]",
    ),
    (
        "engine.networks.search",
        "use a list of domains, such as [\"example.net\"]",
    ),
];

/// The remedy for a wrong value of `field`, for example `network.link[2].mtu`. If the field has
/// none, the remedy of the nearest enclosing field.
pub(crate) fn remedy(field: &str) -> &'static str {
    let pattern = pattern(field);
    let mut rest = pattern.as_str();
    loop {
        if let Some((_, remedy)) = REMEDIES.iter().find(|(path, _)| *path == rest) {
            return remedy;
        }
        rest = match rest.strip_suffix("[]") {
            Some(list) => list,
            None => match rest.rsplit_once('.') {
                Some((parent, _)) => parent,
                None => return "",
            },
        };
    }
}

/// `network.link[2].mtu` → `network.link[].mtu`.
fn pattern(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut inside = false;
    for character in field.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            _ if inside => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

/// The name, in messages, of the table that holds a field.
pub(crate) fn table_name(path: &str) -> String {
    match path {
        "" => "the top level".to_owned(),
        _ if path.ends_with(']') => format!("[[{}]]", pattern(path).trim_end_matches("[]")),
        _ => format!("[{path}]"),
    }
}

/// The known name that is most similar to `name`, if `name` looks like a typing error of it.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, ignoring case and taking `-` for `_`. Only the first 64 characters
/// count, which bounds the work for a hostile key.
fn distance(left: &str, right: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars()
            .take(64)
            .map(|c| {
                if c == '-' {
                    '_'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect()
    };
    let (left, right) = (fold(left), fold(right));
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut last = i + 1;
        next.push(last);
        for (b, pair) in right.iter().zip(row.windows(2)) {
            let (diagonal, above) = match pair {
                [diagonal, above] => (*diagonal, *above),
                _ => continue,
            };
            last = (diagonal + usize::from(a != b))
                .min(above + 1)
                .min(last + 1);
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_errors() {
        let known = ["hostname", "network", "api", "time", "engine"];
        assert_eq!(nearest("hostnam", &known), Some("hostname"));
        assert_eq!(nearest("Netwrok", &known), Some("network"));
        assert_eq!(nearest("bananas", &known), None);
        assert_eq!(
            nearest("stop-timeout", &["stop_timeout"]),
            Some("stop_timeout")
        );
    }

    #[test]
    fn remedies_reach_into_lists() {
        assert_eq!(
            remedy("network.link[12].addresses[3]"),
            remedy("network.link[].addresses")
        );
        assert_eq!(remedy("network.unknown"), remedy("network"));
        assert_eq!(remedy(""), "");
    }

    #[test]
    fn tables_have_names() {
        assert_eq!(table_name(""), "the top level");
        assert_eq!(table_name("network"), "[network]");
        assert_eq!(table_name("network.link[1]"), "[[network.link]]");
    }
}

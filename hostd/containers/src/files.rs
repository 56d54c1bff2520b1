//! Writes a container's /etc/hostname, and /etc/hosts and /etc/resolv.conf of a container without
//! networks.

use std::net::IpAddr;

use hostd_networks::names::resolv_conf::Wishes;
use keelson_model::spec::{HostName, NameSpec, NetworkMode};

const HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The host name of a container: what `hostname` and `$HOSTNAME` say in it.
pub(crate) fn host_name(names: &NameSpec, id: &str) -> String {
    match &names.hostname {
        HostName::OfContainer => id.get(..12).unwrap_or(id).to_owned(),
        HostName::OfMachine => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        HostName::Given(name) => name.clone(),
    }
}

/// /etc/hosts. With the host's network it begins with the host's file.
pub(crate) fn hosts(
    entries: &[(String, IpAddr)],
    network: &NetworkMode,
    hosts_of_host: &str,
) -> String {
    let mut text = match network {
        NetworkMode::Host => hosts_of_host.to_owned(),
        NetworkMode::Bridge | NetworkMode::None => HOSTS.to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in entries {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// /etc/resolv.conf: that of the host, with the container's own values.
pub(crate) fn resolv_conf(wishes: &Wishes, resolv_of_host: &str) -> String {
    let Wishes {
        servers,
        search,
        options,
    } = wishes;
    let mut text = String::new();
    for line in resolv_of_host.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("nameserver") => !servers.is_empty(),
            Some("search" | "domain") => !search.is_empty(),
            Some("options") => !options.is_empty(),
            Some(word) if word.starts_with(['#', ';']) => true,
            Some(_) => false,
            None => true,
        };
        if !replaced {
            text.push_str(line);
            text.push('\n');
        }
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    // A single dot means no search domain.
    if !search.is_empty() && search.as_slice() != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let id = "0123456789abcdef";
        let name = |hostname| {
            let names = NameSpec {
                hostname,
                ..NameSpec::default()
            };
            host_name(&names, id)
        };
        assert_eq!(name(HostName::OfContainer), "0123456789ab");
        assert_eq!(name(HostName::Given("ship".to_owned())), "ship");
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(name(HostName::OfMachine), machine.trim_end());
    }

    #[test]
    fn files() {
        let entries = [("db".to_owned(), "10.0.0.1".parse().unwrap())];
        let own = hosts(&entries, &NetworkMode::None, "x");
        assert!(own.starts_with("127.0.0.1") && own.ends_with("10.0.0.1\tdb\n"));
        assert_eq!(
            hosts(&entries, &NetworkMode::Host, "1.1.1.1 x"),
            "1.1.1.1 x\n10.0.0.1\tdb\n"
        );

        let of_host = "# made by x\nnameserver 1.1.1.1\nsearch a b\n\noptions ndots:1\n";
        let mut wishes = Wishes::default();
        assert_eq!(
            resolv_conf(&wishes, of_host),
            "nameserver 1.1.1.1\nsearch a b\noptions ndots:1\n"
        );
        wishes.servers = vec!["9.9.9.9".parse().unwrap()];
        wishes.search = vec![".".to_owned()];
        assert_eq!(
            resolv_conf(&wishes, of_host),
            "options ndots:1\nnameserver 9.9.9.9\n"
        );
    }
}

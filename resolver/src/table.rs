//! The names and addresses of all containers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use keelson_resolver_protocol::{Container, Membership};

/// All containers, and an index of them for each network.
#[derive(Debug, Default)]
pub struct Table {
    containers: HashMap<Rc<str>, Rc<Container>>,
    networks: HashMap<String, Network>,
}

/// The index of a network.
#[derive(Debug, Default)]
struct Network {
    members: HashMap<Rc<str>, Addresses>,
    /// Identifiers of containers by name, lower-case.
    names: HashMap<String, Vec<Rc<str>>>,
    /// The reverse name of each address, and its owner.
    addresses: HashMap<IpAddr, (Rc<str>, String)>,
}

/// Addresses by family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of IPv4.
    pub ipv4: Vec<Ipv4Addr>,
    /// Of IPv6.
    pub ipv6: Vec<Ipv6Addr>,
}

impl Addresses {
    fn new(list: &[IpAddr]) -> Self {
        let mut addresses = Self::default();
        for address in list {
            match address {
                IpAddr::V4(address) => addresses.ipv4.push(*address),
                IpAddr::V6(address) => addresses.ipv6.push(*address),
            }
        }
        addresses
    }

    /// For each family, all addresses come from the first network that has any.
    fn fill_with(&mut self, other: &Self) {
        if self.ipv4.is_empty() {
            self.ipv4.clone_from(&other.ipv4);
        }
        if self.ipv6.is_empty() {
            self.ipv6.clone_from(&other.ipv6);
        }
    }

    fn extend(&mut self, other: &Self) {
        self.ipv4.extend_from_slice(&other.ipv4);
        self.ipv6.extend_from_slice(&other.ipv6);
    }
}

/// Normalises a name: lower-case, without a final dot.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

impl Table {
    /// Replaces what is known about a container.
    pub fn set(&mut self, container: Container) {
        self.remove(&container.id);
        let id: Rc<str> = container.id.as_str().into();
        for membership in &container.networks {
            let network = self.networks.entry(membership.network.clone()).or_default();
            network.add(&id, membership);
        }
        self.containers.insert(id, Rc::new(container));
    }

    /// Forgets a container.
    pub fn remove(&mut self, id: &str) {
        let Some(container) = self.containers.remove(id) else {
            return;
        };
        for membership in &container.networks {
            if let Some(network) = self.networks.get_mut(&membership.network) {
                network.remove(id, membership);
                if network.members.is_empty() {
                    self.networks.remove(&membership.network);
                }
            }
        }
    }

    /// Returns a container's description.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<Rc<Container>> {
        self.containers.get(id).cloned()
    }

    /// Looks up the addresses of a name for a container. `None`: no container that it may know has
    /// the name. A known name may have no addresses.
    #[must_use]
    pub fn find(&self, asker: &str, name: &str) -> Option<Addresses> {
        let asker = self.containers.get(asker)?;
        let name = key(name);
        let mut found: Option<Addresses> = None;
        let mut try_in = |membership: &Membership, name: &str| {
            let network = self.networks.get(&membership.network);
            if let Some(addresses) = network.and_then(|network| network.find(membership, name)) {
                found.get_or_insert_default().fill_with(&addresses);
            }
        };
        for membership in &asker.networks {
            try_in(membership, &name);
        }
        // Names of containers and of networks may have dots, so each dot may be the one between them.
        for (dot, _) in name.match_indices('.').rev() {
            let (name, suffix) = (name.get(..dot)?, name.get(dot + 1..)?);
            for membership in &asker.networks {
                if membership.name.eq_ignore_ascii_case(suffix) {
                    try_in(membership, name);
                }
            }
        }
        found
    }

    /// Looks up an address for a container: the owner's first name and the network's name, if the
    /// container may know it.
    #[must_use]
    pub fn reverse(&self, asker: &str, address: IpAddr) -> Option<String> {
        let asker = self.containers.get(asker)?;
        asker.networks.iter().find_map(|membership| {
            let network = self.networks.get(&membership.network)?;
            let (_, name) = network.addresses.get(&address)?;
            Some(format!("{name}.{}", membership.name))
        })
    }
}

impl Network {
    fn add(&mut self, id: &Rc<str>, membership: &Membership) {
        let addresses = Addresses::new(&membership.addresses);
        for name in &membership.names {
            let owners = self.names.entry(key(name)).or_default();
            if !owners.contains(id) {
                owners.push(id.clone());
            }
        }
        if let Some(first) = membership.names.first() {
            for address in &membership.addresses {
                let owner = (id.clone(), first.clone());
                self.addresses.insert(*address, owner);
            }
        }
        self.members.insert(id.clone(), addresses);
    }

    fn remove(&mut self, id: &str, membership: &Membership) {
        self.members.remove(id);
        for name in &membership.names {
            let name = key(name);
            if let Some(owners) = self.names.get_mut(&name) {
                owners.retain(|owner| &**owner != id);
                if owners.is_empty() {
                    self.names.remove(&name);
                }
            }
        }
        for address in &membership.addresses {
            // Another container may have the name by now.
            if self
                .addresses
                .get(address)
                .is_some_and(|(owner, _)| &**owner == id)
            {
                self.addresses.remove(address);
            }
        }
    }

    /// Looks up a name for the holder of this membership. Its own links come first.
    fn find(&self, membership: &Membership, name: &str) -> Option<Addresses> {
        let mut links = membership.links.iter();
        if let Some(link) = links.find(|link| key(&link.alias) == name) {
            if let Some(addresses) = self.members.get(link.target.as_str()) {
                return Some(addresses.clone());
            }
            return self.of_name(&key(&link.target));
        }
        self.of_name(name)
    }

    fn of_name(&self, name: &str) -> Option<Addresses> {
        let mut addresses = Addresses::default();
        for owner in self.names.get(name)? {
            if let Some(of_owner) = self.members.get(owner) {
                addresses.extend(of_owner);
            }
        }
        Some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use keelson_resolver_protocol::NamedLink;
    use proptest::prelude::*;

    use super::*;

    fn member(network: &str, names: &[&str], addresses: &[&str]) -> Membership {
        Membership {
            network: format!("id-{network}"),
            name: network.to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            links: Vec::new(),
        }
    }

    fn container(id: &str, networks: Vec<Membership>) -> Container {
        Container {
            id: id.to_owned(),
            networks,
            ..Container::default()
        }
    }

    fn found(table: &Table, asker: &str, name: &str) -> Option<Vec<String>> {
        let addresses = table.find(asker, name)?;
        let ipv4 = addresses.ipv4.iter().map(ToString::to_string);
        let mut all: Vec<_> = ipv4
            .chain(addresses.ipv6.iter().map(ToString::to_string))
            .collect();
        all.sort();
        Some(all)
    }

    fn some(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&text| text.to_owned()).collect())
    }

    #[test]
    fn names_are_found_with_and_without_the_network_in_any_case() {
        let mut table = Table::default();
        let names = ["Web", "0123456789ab", "www", "my.alias"];
        let web = member("front.end", &names, &["10.0.0.2", "fd00::2"]);
        table.set(container("web", vec![web]));
        table.set(container(
            "asker",
            vec![member("front.end", &["me"], &["10.0.0.3"])],
        ));
        let both = some(&["10.0.0.2", "fd00::2"]);
        for name in [
            "web",
            "WEB",
            "web.",
            "0123456789ab",
            "www",
            "my.alias",
            "web.front.end",
            "WWW.Front.End.",
            "my.alias.front.end",
        ] {
            assert_eq!(found(&table, "asker", name), both, "{name}");
        }
        for name in [
            "",
            ".",
            "we",
            "web.front",
            "web.other",
            "front.end",
            "alias",
        ] {
            assert_eq!(found(&table, "asker", name), None, "{name}");
        }
        // A container finds its own name, too.
        assert_eq!(found(&table, "asker", "me"), some(&["10.0.0.3"]));
        let reverse = |text: &str| table.reverse("asker", text.parse().unwrap());
        assert_eq!(reverse("10.0.0.2").as_deref(), Some("Web.front.end"));
        assert_eq!(reverse("fd00::2").as_deref(), Some("Web.front.end"));
        assert_eq!(reverse("10.0.0.9"), None);
    }

    #[test]
    fn networks_are_separated() {
        let mut table = Table::default();
        table.set(container("a", vec![member("one", &["a"], &["10.1.0.2"])]));
        table.set(container("b", vec![member("two", &["b"], &["10.2.0.2"])]));
        let both = vec![
            member("two", &["c"], &["10.2.0.3"]),
            member("one", &["c"], &["10.1.0.3"]),
        ];
        table.set(container("c", both));
        assert_eq!(found(&table, "a", "b"), None);
        assert_eq!(found(&table, "a", "b.two"), None);
        assert_eq!(found(&table, "nobody", "a"), None);
        // Each sees the other's address in the network that they share.
        assert_eq!(found(&table, "a", "c"), some(&["10.1.0.3"]));
        assert_eq!(found(&table, "b", "c"), some(&["10.2.0.3"]));
        // The first of the client's networks that knows the name counts.
        assert_eq!(found(&table, "c", "c"), some(&["10.2.0.3"]));
        assert_eq!(found(&table, "c", "c.one"), some(&["10.1.0.3"]));
        assert_eq!(table.reverse("a", "10.2.0.2".parse().unwrap()), None);
    }

    #[test]
    fn a_shared_alias_finds_all_containers_that_have_it_until_they_stop() {
        let mut table = Table::default();
        for number in 1..=3 {
            let address = format!("10.0.0.{number}");
            let name = format!("db-{number}");
            let membership = member("net", &[&name, "db"], &[&address]);
            table.set(container(&name, vec![membership]));
        }
        assert_eq!(
            found(&table, "db-1", "db"),
            some(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])
        );
        table.remove("db-2");
        assert_eq!(found(&table, "db-1", "db"), some(&["10.0.0.1", "10.0.0.3"]));
        assert_eq!(found(&table, "db-1", "db-2"), None);
        assert_eq!(table.reverse("db-1", "10.0.0.2".parse().unwrap()), None);
        // A rename changes all at once.
        table.set(container(
            "db-3",
            vec![member("net", &["new", "db"], &["10.0.0.3"])],
        ));
        assert_eq!(found(&table, "db-1", "db-3"), None);
        assert_eq!(found(&table, "db-1", "new"), some(&["10.0.0.3"]));
        for id in ["db-1", "db-3"] {
            table.remove(id);
        }
        assert!(table.networks.is_empty());
    }

    #[test]
    fn links_are_names_that_only_one_container_uses() {
        let mut table = Table::default();
        table.set(container(
            "id-of-db",
            vec![member("net", &["db"], &["10.0.0.2"])],
        ));
        let mut linked = member("net", &["web"], &["10.0.0.3"]);
        for (alias, target) in [("Store", "db"), ("same", "id-of-db"), ("gone", "nobody")] {
            let (alias, target) = (alias.to_owned(), target.to_owned());
            linked.links.push(NamedLink { alias, target });
        }
        table.set(container("web", vec![linked]));
        for name in ["store", "STORE.net", "same", "db"] {
            assert_eq!(found(&table, "web", name), some(&["10.0.0.2"]), "{name}");
        }
        assert_eq!(found(&table, "web", "gone"), None);
        assert_eq!(found(&table, "id-of-db", "store"), None);
    }

    #[test]
    fn a_family_is_taken_from_the_first_network_that_has_it() {
        let mut table = Table::default();
        let networks = || {
            vec![
                member("four", &["me"], &["10.0.0.3"]),
                member("six", &["me"], &["fd00::3"]),
            ]
        };
        table.set(container("asker", networks()));
        let mut other = networks();
        other[0] = member("four", &["x"], &["10.0.0.4"]);
        other[1] = member("six", &["x"], &["fd00::4"]);
        table.set(container("x", other));
        assert_eq!(found(&table, "asker", "x"), some(&["10.0.0.4", "fd00::4"]));
        table.set(container("y", vec![member("four", &["y"], &[])]));
        // The name is known and has no addresses.
        assert_eq!(found(&table, "asker", "y"), some(&[]));
    }

    proptest! {
        /// After any changes, the table equals one that is made from the remaining containers.
        #[test]
        fn the_order_of_changes_leaves_no_trace(
            steps in proptest::collection::vec((0..5_u8, 0..4_u8, 0..3_u8, any::<bool>()), 1..40)
        ) {
            let mut table = Table::default();
            let mut left = BTreeMap::new();
            for (id, name, network, remove) in steps {
                let id = format!("c{id}");
                if remove {
                    table.remove(&id);
                    left.remove(&id);
                    continue;
                }
                let address = format!("10.0.{network}.{}", &id[1..]);
                let network = format!("net{network}");
                let names = [format!("name{name}"), "shared".to_owned()];
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let made = container(&id, vec![member(&network, &names, &[&address])]);
                table.set(made.clone());
                left.insert(id, made);
            }
            let mut fresh = Table::default();
            for container in left.values() {
                fresh.set(container.clone());
            }
            for asker in left.keys() {
                for name in ["shared", "name0", "name1", "name2", "name3.net1"] {
                    prop_assert_eq!(found(&table, asker, name), found(&fresh, asker, name));
                }
            }
            prop_assert_eq!(table.networks.len(), fresh.networks.len());
        }
    }
}

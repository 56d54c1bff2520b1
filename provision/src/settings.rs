//! What a platform wants, in the words of our configuration (`host.toml`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use toml::Table;

/// The user that keys without a user are for.
pub const DEFAULT_USER: &str = "core";

/// The platform's layer of the configuration, before it is text.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Settings {
    /// The machine's short name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its full name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fqdn: Option<String>,
    /// Network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Time servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeSettings>,
    /// People.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user: Vec<User>,
    /// Files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub file: Vec<File>,
    /// Commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<Command>,
    /// The default user, until [`Settings::into_table`] makes a [`User`] of it.
    #[serde(skip)]
    pub default_user: DefaultUser,
}

/// What is known about the default user.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultUser {
    /// Its name.
    pub name: String,
    /// Keys that may log in as it.
    pub keys: Vec<String>,
    /// Hash of its password, crypt(5).
    pub password_hash: Option<String>,
    /// A list of users without the word `default` says that there is none.
    pub wanted: bool,
}

impl Default for DefaultUser {
    fn default() -> Self {
        Self {
            name: DEFAULT_USER.to_owned(),
            keys: Vec::new(),
            password_hash: None,
            wanted: true,
        }
    }
}

/// `[time]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TimeSettings {
    /// NTP servers.
    pub servers: Vec<String>,
}

/// `[[user]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Keys in the form of `authorized_keys`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ssh_authorized_keys: Vec<String>,
    /// Further groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Hash of the password, crypt(5); absent: the password is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Login shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// May become root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sudo: bool,
}

/// `[[file]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct File {
    /// Absolute path below /etc or /var.
    pub path: String,
    /// Content that is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<String>,
    /// Content that is not, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Permissions as octal digits; `0644` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `user:group`; root when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Added to the end of what is there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub append: bool,
}

impl File {
    /// A file with the content `bytes`, as text where that is possible.
    #[must_use]
    pub fn of_bytes(path: String, bytes: Vec<u8>) -> Self {
        let (contents, base64) = match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => (Some(text), None),
            Ok(text) => (None, Some(BASE64_STANDARD.encode(text))),
            Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
        };
        Self {
            path,
            contents,
            base64,
            ..Self::default()
        }
    }
}

/// A login name that useradd(8) would take.
pub(crate) fn good_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && name.len() <= 32
        && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// `[[command]]`: exactly one of the first three.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Command {
    /// A program and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Lines for one `/bin/sh`. One that fails does not keep the next from running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// A whole script, whose first line names its interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// At every boot, and before the other commands; otherwise once for each instance.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub every_boot: bool,
}

/// `[network]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Network {
    /// Name servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// `[[network.link]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link: Vec<LinkSettings>,
}

impl Network {
    /// Adds name servers and search domains that are not there yet.
    pub fn resolve_with(&mut self, servers: Vec<IpAddr>, search: Vec<String>) {
        for server in servers {
            if !self.nameservers.contains(&server) {
                self.nameservers.push(server);
            }
        }
        for domain in search {
            if !self.search.contains(&domain) {
                self.search.push(domain);
            }
        }
    }

    /// Gives links new names (old, new) where bonds, bridges and VLANs name them.
    pub fn rename_references(&mut self, renamed: &[(String, String)]) {
        let rename = |name: &mut String| {
            if let Some((_, new)) = renamed.iter().find(|(old, _)| old == name) {
                name.clone_from(new);
            }
        };
        for link in &mut self.link {
            if let Some(vlan) = &mut link.vlan {
                rename(&mut vlan.parent);
            }
            let bond = link.bond.iter_mut().flat_map(|bond| &mut bond.members);
            let bridge = link
                .bridge
                .iter_mut()
                .flat_map(|bridge| &mut bridge.members);
            bond.chain(bridge).for_each(rename);
        }
    }
}

/// `[[network.link]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LinkSettings {
    /// Name.
    pub name: String,
    /// The link with this hardware address, in small letters with colons, gets the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The link with this driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// DHCPv4.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp4: bool,
    /// DHCPv6.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dhcp6: bool,
    /// Whether router advertisements are accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_ra: Option<bool>,
    /// Addresses with prefix length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Default gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Maximum transmission unit in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Further routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSettings>,
    /// A bond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// A VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<Vlan>,
    /// A bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
}

/// One of `routes`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteSettings {
    /// Destination with prefix length.
    pub to: String,
    /// Router.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// `bond`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bond {
    /// Members, by name of their link.
    pub members: Vec<String>,
    /// `802.3ad`, `active-backup`, ….
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Milliseconds between two looks at the carrier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miimon: Option<u32>,
    /// Other parameters, by the kernel's names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// `vlan`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vlan {
    /// Identifier, 0 to 4094.
    pub id: u16,
    /// Link below.
    pub parent: String,
}

/// `bridge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bridge {
    /// Members, by name of their link.
    pub members: Vec<String>,
    /// Spanning tree protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stp: Option<bool>,
}

impl Settings {
    /// The network, which is empty if nothing said anything yet.
    pub fn network(&mut self) -> &mut Network {
        self.network.get_or_insert_default()
    }

    /// Sets the names from one that may have dots. The host name is what stands before the first.
    pub fn name(&mut self, name: &str) {
        let short = name.split('.').next().unwrap_or(name);
        if short.is_empty() {
            return;
        }
        self.hostname = Some(short.to_owned());
        self.fqdn = (short != name).then(|| name.trim_end_matches('.').to_owned());
    }

    /// Adds a file; of two with the same path the later one counts, unless it is appended.
    pub fn write(&mut self, file: File) {
        if !file.append {
            self.file.retain(|before| before.path != file.path);
        }
        self.file.push(file);
    }

    /// As TOML.
    ///
    /// # Errors
    /// A value is outside of what TOML can say, such as a number above 63 bits.
    pub fn into_table(mut self) -> Result<Table, toml::ser::Error> {
        let default = std::mem::take(&mut self.default_user);
        let listed = self.user.iter_mut().find(|user| user.name == default.name);
        if let Some(user) = listed {
            for key in default.keys {
                if !user.ssh_authorized_keys.contains(&key) {
                    user.ssh_authorized_keys.push(key);
                }
            }
        } else if default.wanted && !(default.keys.is_empty() && default.password_hash.is_none()) {
            let user = User {
                name: default.name,
                ssh_authorized_keys: default.keys,
                password_hash: default.password_hash,
                groups: vec!["docker".to_owned()],
                sudo: true,
                ..User::default()
            };
            self.user.insert(0, user);
        }
        Table::try_from(self)
    }
}

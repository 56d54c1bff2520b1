//! A network's document on disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use keelson_model::ip::{IpPrefix, PrefixError};
use keelson_store::document::Rest;
use keelson_store::{Document, Objects, document};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::predefined;
use crate::NetworkError;
use crate::options::{self, Asked, OptionError};
use crate::types::{Addressing, Driver, Network, Subnet};

/// Name of the document. A network exists while it has one.
pub(super) const NETWORK: &str = "network.json";
/// Largest unreadable document, in bytes, that is searched for known members.
const LONGEST: u64 = 4 << 20;

/// `network.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NetworkDocument {
    id: String,
    name: String,
    created: Timestamp,
    driver: String,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachable: bool,
    ipv4: bool,
    ipv6: bool,
    /// The allocated subnets. The request is in `addressing`, and the two are never mixed: a copy
    /// of the request must not contain allocated values.
    #[serde(default)]
    subnets: Vec<SubnetDocument>,
    #[serde(default)]
    addressing: Addressing,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SubnetDocument {
    subnet: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    auxiliary: BTreeMap<String, IpAddr>,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for NetworkDocument {
    const VERSION: u32 = 1;
}

/// Why a document that was read describes no network.
#[derive(Debug, thiserror::Error)]
enum NoNetwork {
    #[error(transparent)]
    Driver(#[from] OptionError),
    #[error("subnet {text:?}: {source}")]
    Subnet { text: String, source: PrefixError },
}

impl NetworkDocument {
    pub(super) fn new(network: &Network) -> Self {
        let subnets = network.subnets.iter().map(|subnet| SubnetDocument {
            subnet: subnet.prefix.to_string(),
            range: subnet.range.map(|range| range.to_string()),
            gateway: subnet.gateway,
            auxiliary: subnet.auxiliary.clone(),
            rest: Rest::default(),
        });
        Self {
            id: network.id.clone(),
            name: network.name.clone(),
            created: network.created,
            driver: network.driver.as_str().to_owned(),
            internal: network.internal,
            attachable: network.attachable,
            ipv4: network.ipv4,
            ipv6: network.ipv6,
            subnets: subnets.collect(),
            addressing: network.asked.clone(),
            options: network.options.clone(),
            labels: network.labels.clone(),
            rest: Rest::default(),
        }
    }

    /// The network that it describes.
    fn network(self, engine: &str) -> Result<Network, NoNetwork> {
        let predefined = self.id == predefined::id(predefined::BRIDGE, engine);
        let understood = options::read(Asked {
            id: &self.id,
            driver: &self.driver,
            options: &self.options,
            internal: self.internal,
            of_engine: predefined,
        })?;
        // An engine with other rules made it. It works on, without the option.
        for problem in &understood.problems {
            tracing::warn!(name = self.name, %problem, "option of a network has no effect");
        }
        let subnets = self.subnets.into_iter().map(SubnetDocument::subnet);
        Ok(Network {
            id: self.id,
            name: self.name,
            created: self.created,
            driver: understood.driver,
            internal: understood.internal,
            attachable: self.attachable,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            subnets: subnets.collect::<Result<_, _>>()?,
            asked: self.addressing,
            options: self.options,
            labels: self.labels,
            predefined,
            unreadable: None,
        })
    }
}

impl SubnetDocument {
    fn subnet(self) -> Result<Subnet, NoNetwork> {
        let prefix = |text: &str| {
            let prefix = text.parse::<IpPrefix>();
            prefix.map_err(|source| NoNetwork::Subnet {
                text: text.to_owned(),
                source,
            })
        };
        Ok(Subnet {
            prefix: prefix(&self.subnet)?,
            range: self.range.as_deref().map(prefix).transpose()?,
            gateway: self.gateway,
            auxiliary: self.auxiliary,
        })
    }
}

/// Makes the document of a network.
pub(super) fn read(objects: &Objects, id: &str, engine: &str) -> Network {
    let path = match objects.document(id) {
        Ok(path) => path,
        Err(error) => return unreadable(id, Path::new(""), error.to_string()),
    };
    let why = match document::read::<NetworkDocument>(&path) {
        Ok(Some(found)) if found.id == id => match found.network(engine) {
            Ok(network) => return network,
            Err(why) => why.to_string(),
        },
        Ok(Some(found)) => format!("its document is of network {}", found.id),
        Ok(None) => "its document is missing".to_owned(),
        Err(error) => error.to_string(),
    };
    unreadable(id, &path, why)
}

/// Finds the name and subnets of a network in an unreadable document. A newer engine may have
/// written it, with these members in their usual place.
fn unreadable(id: &str, path: &Path, why: String) -> Network {
    tracing::error!(id, error = why, "network can't be read");
    let known = members(path);
    let name = known.get("name").and_then(Value::as_str);
    let subnets = known.get("subnets").and_then(Value::as_array);
    let subnets = subnets.into_iter().flatten().filter_map(|subnet| {
        let prefix = subnet.get("subnet")?.as_str()?.parse().ok()?;
        Some(Subnet {
            prefix,
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
        })
    });
    Network {
        id: id.to_owned(),
        name: name.unwrap_or(id).to_owned(),
        created: Timestamp::UNIX_EPOCH,
        driver: Driver::Nothing,
        internal: false,
        attachable: false,
        ipv4: false,
        ipv6: false,
        subnets: subnets.collect(),
        asked: Addressing::default(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        unreadable: Some(why),
    }
}

/// The members of a document, if it is JSON.
fn members(path: &Path) -> Value {
    let read = || {
        let mut text = String::new();
        let file = File::open(path).ok()?;
        file.take(LONGEST).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    };
    read().unwrap_or_default()
}

/// Writes a network's document, which makes the network exist.
pub(super) fn write(
    objects: &Objects,
    era: keelson_store::Era,
    network: &Network,
) -> Result<(), NetworkError> {
    let path = objects.document(&network.id)?;
    let found = NetworkDocument::new(network);
    Ok(document::write(
        &path,
        &found,
        era,
        keelson_store::Durability::Flushed,
    )?)
}

#[cfg(test)]
mod tests {
    use keelson_store::document::assert_goes_back;

    use super::*;

    const GOLDEN: [(u32, &str); 1] = [(1, include_str!("../../tests/golden/network.1.json"))];

    #[test]
    fn network_json_goes_back() {
        assert_goes_back::<NetworkDocument>(&GOLDEN);
    }

    #[test]
    fn a_document_restores_its_network() {
        let path = Path::new("network.json");
        let read = |text: &str| document::parse::<NetworkDocument>(path, text.as_bytes()).unwrap();
        let found = read(GOLDEN[0].1);
        let network = found.clone().network("engine").unwrap();
        assert_eq!(NetworkDocument::new(&network), found);
        // An engine with stricter rules must not lose it.
        let other = GOLDEN[0].1.replace("routed", "sideways");
        let other = read(&other).network("engine").unwrap();
        assert_eq!(other.bridge().unwrap().mode_ipv4, crate::GatewayMode::Nat);
        assert_eq!(other.subnets, network.subnets);
    }
}

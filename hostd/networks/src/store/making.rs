//! Creates and removes networks. Each has two steps, with the kernel's part in between. The
//! document is written before the kernel's part is created, and removed after that is removed. If
//! this process is killed in between, the next one finds the document, and repeats the kernel's
//! part.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_model::limits;
use keelson_store::objects::remove_tree;

use super::predefined::{is_reserved, own_routes_left_out};
use super::state::{Phase, State};
use super::{HostRoute, Store, document, new_id};
use crate::NetworkError;
use crate::ipam::{SubnetRequest, allocate_subnets};
use crate::options::{self, Asked, Understood};
use crate::types::{Driver, MacvlanMode, Network, NetworkAction, NewNetwork};

/// Longest name of a network, in bytes.
const LONGEST_NAME: usize = 255;
/// The smallest MTU for IPv6, in bytes (RFC 8200).
const SMALLEST_MTU_IPV6: u32 = 1280;

/// A new network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) network: Arc<Network>,
    /// Requested options that have no effect, one sentence each.
    pub(crate) warnings: Vec<String>,
}

impl Store {
    /// Starts to create a network: its name and subnets are reserved, its document is written, and
    /// nobody sees it yet. The caller must then call [`Store::publish`] or [`Store::abandon`].
    ///
    /// # Errors
    /// The name is taken or invalid, the driver or an option does not exist, the subnets
    /// are not available, or the disk fails. Nothing of the network remains.
    pub(crate) fn begin(
        &self,
        new: NewNetwork,
        routes: &[HostRoute],
    ) -> Result<Made, NetworkError> {
        check_name(&new.name)?;
        check_size(&new)?;
        let new = self.with_default_options(new);
        let (ipv4, ipv6) = options::families(new.ipv4, new.ipv6, &new.options)?;
        let id = new_id();
        let understood = understand(&id, &new)?;
        check_driver(&understood.driver, ipv4, ipv6)?;
        let (network, warnings) = {
            let mut state = self.state();
            check_conflicts(&state, &id, &new.name, &understood.driver)?;
            let wants =
                |ipv6| options::wants_gateway(&understood.driver, understood.internal, ipv6);
            let allocated = allocate_subnets(SubnetRequest {
                asked: &new.addressing,
                ipv4,
                ipv6,
                gateway_ipv4: wants(false),
                gateway_ipv6: wants(true),
                one_each: matches!(understood.driver, Driver::Bridge(_)),
                taken: &state.subnets_but(&id),
                on_link: &own_routes_left_out(&state, routes),
                pools: &self.pools,
            })?;
            let network = state.begin(Network {
                id,
                name: new.name,
                created: Timestamp::now(),
                driver: understood.driver,
                internal: understood.internal,
                attachable: new.attachable,
                ipv4,
                ipv6,
                subnets: allocated.subnets,
                asked: new.addressing,
                options: new.options,
                labels: new.labels,
                predefined: false,
                unreadable: None,
            });
            (network, allocated.warnings)
        };
        match self.keep(&network) {
            Ok(()) => Ok(Made { network, warnings }),
            Err(error) => {
                self.abandon(&network.id);
                Err(error)
            }
        }
    }

    /// Adds default options. The request's own values have priority.
    fn with_default_options(&self, mut new: NewNetwork) -> NewNetwork {
        let driver = match new.driver.as_str() {
            "" => "bridge",
            driver => driver,
        };
        for (name, value) in self.default_options.get(driver).into_iter().flatten() {
            let said = match name.as_str() {
                options::ENABLE_IPV4 => new.ipv4.is_some(),
                options::ENABLE_IPV6 => new.ipv6.is_some(),
                _ => false,
            };
            if !said && !new.options.contains_key(name) {
                new.options.insert(name.clone(), value.clone());
            }
        }
        new
    }

    /// Makes a new network visible, once the kernel's part exists.
    pub(crate) fn publish(&self, id: &str) {
        let mut state = self.state();
        if let Some(entry) = state.network_mut(id) {
            entry.phase = Phase::Ready;
            self.emit(NetworkAction::Create, &entry.network);
        }
    }

    /// Forgets a new network, because the kernel's part has failed and is undone.
    pub(crate) fn abandon(&self, id: &str) {
        self.discard(id);
        self.state().remove(id);
    }

    /// Starts to remove a network: from now on nobody finds it, so no container can be connected to
    /// it. The caller must then call [`Store::finish_removal`] or [`Store::give_up_removal`].
    ///
    /// # Errors
    /// The network does not exist or is predefined, or containers are in it.
    pub(crate) fn begin_removal(&self, term: &str) -> Result<Arc<Network>, NetworkError> {
        let mut state = self.state();
        let network = Arc::clone(&state.find(term)?.network);
        if network.predefined {
            return Err(NetworkError::NotRemovable(network.name.clone()));
        }
        if state.is_held(&network.id) {
            return Err(NetworkError::InUse {
                name: network.name.clone(),
                endpoints: state.holders(&network.id),
            });
        }
        if let Some(entry) = state.network_mut(&network.id) {
            entry.phase = Phase::Going;
        }
        Ok(network)
    }

    /// Removes a network, once its part in the kernel is gone.
    ///
    /// # Errors
    /// The disk fails. The network then exists as before, and the caller must create its
    /// part in the kernel again.
    pub(crate) fn finish_removal(&self, id: &str) -> Result<(), NetworkError> {
        let trash = match self.objects.discard(id) {
            Ok(trash) => trash,
            Err(error) => {
                self.give_up_removal(id);
                return Err(error.into());
            }
        };
        if let Some(trash) = trash
            && let Err(error) = remove_tree(&trash)
        {
            tracing::warn!(id, %error, "files of a removed network not deleted");
        }
        let mut state = self.state();
        if let Some(entry) = state.network(id) {
            self.emit(NetworkAction::Destroy, &entry.network);
        }
        state.remove(id);
        Ok(())
    }

    /// Makes a network visible again, because its removal has failed.
    pub(crate) fn give_up_removal(&self, id: &str) {
        if let Some(entry) = self.state().network_mut(id) {
            entry.phase = Phase::Ready;
        }
    }

    /// The networks that a prune may remove: those without containers.
    pub(crate) fn unused(&self) -> Vec<Arc<Network>> {
        let state = self.state();
        let mut list = state.list();
        list.retain(|network| {
            !network.predefined && network.unreadable.is_none() && !state.is_held(&network.id)
        });
        list
    }

    /// Writes a network's document. The network exists from then on.
    pub(super) fn keep(&self, network: &Network) -> Result<(), NetworkError> {
        if !self.objects.directory(&network.id)?.is_dir() {
            self.objects.prepare(&network.id)?;
        }
        document::write(&self.objects, self.era, network)?;
        self.objects.settle(&network.id);
        Ok(())
    }

    /// Removes the files of a network that was never visible.
    fn discard(&self, id: &str) {
        let gone = self.objects.discard(id).and_then(|trash| match trash {
            Some(trash) => remove_tree(&trash),
            None => Ok(()),
        });
        if let Err(error) = gone {
            tracing::warn!(id, %error, "files of a network that was not made not removed");
        }
    }
}

fn invalid<T>(message: impl Into<String>) -> Result<T, NetworkError> {
    Err(NetworkError::Invalid(message.into()))
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    if name.trim().is_empty() {
        return invalid("invalid name: name is empty");
    }
    if is_reserved(name) {
        return Err(NetworkError::Predefined(name.to_owned()));
    }
    if name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        return invalid(format!(
            "invalid name {:?}: use at most {LONGEST_NAME} bytes and no control characters",
            limits::shortened(name, LONGEST_NAME)
        ));
    }
    Ok(())
}

/// Clients' options and labels stay in memory as long as the network exists.
fn check_size(new: &NewNetwork) -> Result<(), NetworkError> {
    let bytes = |map: &BTreeMap<String, String>| -> usize {
        map.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    };
    let subnets = new.addressing.subnets.iter();
    let subnets: usize = subnets
        .map(|one| {
            let texts = [&one.subnet, &one.range, &one.gateway];
            bytes(&one.auxiliary) + texts.map(String::len).iter().sum::<usize>()
        })
        .sum();
    let of_options = new.addressing.options.as_ref().map_or(0, bytes);
    for (name, size) in [
        ("Labels", bytes(&new.labels)),
        ("Options", bytes(&new.options)),
        ("IPAM", subnets + of_options),
    ] {
        if size > limits::LABELS {
            return invalid(format!(
                "{name} have {size} bytes, at most {} are allowed",
                limits::LABELS
            ));
        }
    }
    Ok(())
}

fn understand(id: &str, new: &NewNetwork) -> Result<Understood, NetworkError> {
    let mut understood = options::read(Asked {
        id,
        driver: &new.driver,
        options: &new.options,
        internal: new.internal,
        of_engine: false,
    })?;
    match understood.problems.len() {
        0 => Ok(understood),
        1 => Err(understood.problems.remove(0).into()),
        _ => {
            let problems = understood.problems.iter().map(ToString::to_string);
            invalid(format!("* {}", problems.collect::<Vec<_>>().join("\n* ")))
        }
    }
}

fn check_driver(driver: &Driver, ipv4: bool, ipv6: bool) -> Result<(), NetworkError> {
    let mtu = match driver {
        Driver::Bridge(_) if !ipv4 && !ipv6 => {
            return invalid("IPv4 or IPv6 must be enabled");
        }
        Driver::Bridge(bridge) => bridge.mtu,
        Driver::Macvlan(parent) => parent.mtu,
        Driver::Ipvlan(parent) => parent.mtu,
        Driver::Host | Driver::Nothing => None,
    };
    match mtu {
        Some(bytes) if ipv6 && bytes < SMALLEST_MTU_IPV6 => invalid(format!(
            "invalid MTU number: {bytes}: IPv6 needs at least {SMALLEST_MTU_IPV6}"
        )),
        _ => Ok(()),
    }
}

/// Checks for conflicts between two networks.
fn check_conflicts(
    state: &State,
    id: &str,
    name: &str,
    driver: &Driver,
) -> Result<(), NetworkError> {
    if state.all().any(|other| other.name == name) {
        return Err(NetworkError::Exists(name.to_owned()));
    }
    for other in state.all() {
        match (driver, &other.driver) {
            (Driver::Bridge(own), Driver::Bridge(theirs)) if own.link == theirs.link => {
                return Err(NetworkError::Conflict {
                    id: id.to_owned(),
                    link: own.link.clone(),
                    other: other.id.clone(),
                    other_link: theirs.link.clone(),
                    reason: "networks have same bridge name",
                });
            }
            (Driver::Macvlan(own), Driver::Macvlan(theirs))
                if own.link.is_some() && own.link == theirs.link =>
            {
                let parent = own.link.as_ref().map_or("", |link| &link.name);
                if own.mode == MacvlanMode::Passthru {
                    return invalid(format!(
                        "cannot use mode passthru, macvlan network {} is already using parent interface {parent}",
                        other.id
                    ));
                }
                if theirs.mode == MacvlanMode::Passthru {
                    return invalid(format!(
                        "macvlan network {} is already using parent interface {parent} in mode passthru",
                        other.id
                    ));
                }
            }
            // The kernel has one mode for all ipvlan links of a parent.
            (Driver::Ipvlan(own), Driver::Ipvlan(theirs))
                if own.link.is_some() && own.link == theirs.link =>
            {
                let parent = own.link.as_ref().map_or("", |link| &link.name);
                return invalid(format!(
                    "network {} is already using parent interface {parent}",
                    other.id
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

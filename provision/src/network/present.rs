//! Which of the machine's links a network configuration means.

use crate::notes::Notes;
use crate::settings::Network;

/// A link that the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentLink {
    /// The kernel's name.
    pub name: String,
    /// Hardware address in small letters with colons.
    pub mac: String,
    /// Name of its driver, if it has one.
    pub driver: Option<String>,
}

/// Whether all links that are chosen by hardware address are there.
#[must_use]
pub fn complete(network: &Network, links: &[PresentLink]) -> bool {
    network.link.iter().all(|link| {
        let wanted = link.mac.as_ref();
        wanted.is_none_or(|mac| links.iter().any(|present| present.mac == *mac))
    })
}

/// Gives links that are chosen by hardware address or driver the names that they have on this
/// machine, also where bonds, bridges and VLANs name them.
pub fn bind(network: &mut Network, links: &[PresentLink], notes: &mut Notes) {
    let mut renamed: Vec<(String, String)> = Vec::new();
    for link in &mut network.link {
        if link.mac.is_none() && link.driver.is_none() {
            // `eth*` of `match.name`: the first.
            if let Some(prefix) = link.name.strip_suffix('*')
                && let Some(found) = links
                    .iter()
                    .find(|present| present.name.starts_with(prefix))
            {
                renamed.push((link.name.clone(), found.name.clone()));
                link.name.clone_from(&found.name);
            }
            continue;
        }
        let found = links.iter().find(|present| {
            link.mac.as_ref().is_none_or(|mac| present.mac == *mac)
                && link
                    .driver
                    .as_ref()
                    .is_none_or(|driver| present.driver.as_ref() == Some(driver))
        });
        match found {
            Some(found) => {
                renamed.push((link.name.clone(), found.name.clone()));
                link.name.clone_from(&found.name);
                link.mac = None;
                link.driver = None;
            }
            None => notes.say(format!(
                "link {:?} with {} is not there",
                link.name,
                link.mac
                    .as_deref()
                    .or(link.driver.as_deref())
                    .unwrap_or_default()
            )),
        }
    }
    let rename = |name: &mut String| {
        if let Some((_, new)) = renamed.iter().find(|(old, _)| old == name) {
            name.clone_from(new);
        }
    };
    for link in &mut network.link {
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

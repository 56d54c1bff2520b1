//! Which of the machine's links a network configuration means by its driver.

use crate::notes::Notes;
use crate::settings::Network;

/// A link that the machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentLink {
    /// The kernel's name.
    pub name: String,
    /// Name of its driver, if it has one.
    pub driver: Option<String>,
}

/// Gives links that are chosen by driver the names that they have on this machine, also where bonds,
/// bridges and VLANs name them. Hardware addresses and patterns of names stay in the configuration:
/// netcfg finds those links, whenever they appear.
pub fn bind(network: &mut Network, links: &[PresentLink], notes: &mut Notes) {
    let mut renamed: Vec<(String, String)> = Vec::new();
    for link in &mut network.link {
        let Some(driver) = link.driver.take_if(|_| link.mac.is_none()) else {
            // An address says more than a driver.
            link.driver = None;
            continue;
        };
        match links.iter().find(|p| p.driver.as_ref() == Some(&driver)) {
            Some(found) => {
                renamed.push((link.name.clone(), found.name.clone()));
                link.name.clone_from(&found.name);
            }
            None => {
                notes.say(format!(
                    "link {:?} with driver {driver} is not there",
                    link.name
                ));
                link.driver = Some(driver);
            }
        }
    }
    network.rename_references(&renamed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{LinkSettings, Vlan};

    #[test]
    fn only_drivers_are_looked_up() {
        let link = |name: &str, mac: Option<&str>, driver: Option<&str>| LinkSettings {
            name: name.to_owned(),
            mac: mac.map(str::to_owned),
            driver: driver.map(str::to_owned),
            ..LinkSettings::default()
        };
        let vlan = Vlan {
            id: 7,
            parent: "fast".to_owned(),
        };
        let mut network = Network {
            link: vec![
                link("fast", None, Some("virtio_net")),
                link("lan", Some("02:00:00:00:00:01"), Some("virtio_net")),
                link("eth*", None, None),
                link("slow", None, Some("e1000")),
                LinkSettings {
                    vlan: Some(vlan),
                    ..link("vlan7", None, None)
                },
            ],
            ..Network::default()
        };
        let present = [PresentLink {
            name: "ens3".to_owned(),
            driver: Some("virtio_net".to_owned()),
        }];
        let mut notes = Notes::new();
        bind(&mut network, &present, &mut notes);
        let names = network.link.iter().map(|link| link.name.as_str());
        assert_eq!(
            Vec::from_iter(names),
            ["ens3", "lan", "eth*", "slow", "vlan7"]
        );
        let drivers = network.link.iter().map(|link| link.driver.as_deref());
        assert_eq!(
            Vec::from_iter(drivers),
            [None, None, None, Some("e1000"), None]
        );
        assert!(network.link[1].mac.is_some());
        assert_eq!(network.link[4].vlan.as_ref().unwrap().parent, "ens3");
        assert_eq!(notes.finish().len(), 1);
    }
}

//! From a seed to the platform's layer of the configuration.

use toml::{Table, Value};

use crate::fit;
use crate::network::{self, present};
use crate::notes::{Notes, Warning};
use crate::resources::{ResourceError, Resources};
use crate::seed::{NetworkDocument, Seed};
use crate::settings::Settings;
use crate::user_data::{self, Target};

/// The layer, and what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// The layer. The schema of `host.toml` takes it.
    pub table: Table,
    /// What was left out.
    pub warnings: Vec<Warning>,
}

/// Most settings that are named. A hostile document could have millions.
const MOST_NAMED: usize = 500;

impl Composed {
    /// The settings in the layer, by their paths and without their values, which may be secret:
    /// `hostname`, `file[0] (/etc/motd)`.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let mut names = Vec::new();
        name_settings(&self.table, "", &mut names);
        names.truncate(MOST_NAMED);
        names
    }
}

fn name_settings(table: &Table, prefix: &str, names: &mut Vec<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => name_settings(inner, &format!("{path}."), names),
            Value::Array(entries) if entries.iter().all(Value::is_table) => {
                names.extend(entries.iter().enumerate().map(|(index, entry)| {
                    let known = ["name", "path"].map(|key| entry.get(key).and_then(Value::as_str));
                    match known.into_iter().flatten().next() {
                        Some(name) => format!("{path}[{index}] ({name})"),
                        None => format!("{path}[{index}]"),
                    }
                }));
            }
            _ => names.push(path),
        }
    }
}

/// Translates all documents of a seed: what the source knows, the network, the provider's wishes,
/// the owner's wishes, each over the ones before. `links` are those that the machine has.
///
/// # Errors
/// A document refers to something that needs the network ([`ResourceError::Later`]).
pub fn compose(
    seed: &Seed,
    resources: &mut dyn Resources,
    links: &[present::PresentLink],
) -> Result<Composed, ResourceError> {
    let mut settings = Settings::default();
    let mut own = Table::new();
    let mut notes = Notes::new();
    notes.enter("meta-data");
    if let Some(name) = &seed.hostname {
        settings.name(name);
    }
    settings.default_user.keys.clone_from(&seed.public_keys);
    match &seed.network {
        None => {}
        Some(NetworkDocument::CloudInit(bytes)) => {
            notes.enter("network-config");
            match network::translate(&bytes.0, &mut notes) {
                Ok(network) => settings.network = network,
                Err(error) => notes.say(error.to_string()),
            }
        }
        Some(NetworkDocument::Openstack(bytes)) => {
            notes.enter("network_data.json");
            match network::openstack::translate(&bytes.0, &mut notes) {
                Ok(network) => settings.network = Some(network),
                Err(error) => notes.say(format!("it can't be read: {error}")),
            }
        }
    }
    for (name, document) in [
        ("vendor-data", &seed.vendor_data),
        ("user-data", &seed.user_data),
    ] {
        let Some(bytes) = document else {
            continue;
        };
        notes.enter(name);
        let mut target = Target {
            settings: &mut settings,
            own: &mut own,
            notes: &mut notes,
        };
        user_data::translate(&bytes.0, &mut target, resources)?;
    }
    notes.enter("network-config");
    if let Some(network) = &mut settings.network {
        present::bind(network, links, &mut notes);
    }
    notes.enter("host.toml");
    let mut table = settings.into_table().unwrap_or_else(|error| {
        notes.say(format!("the settings can't be written as TOML: {error}"));
        Table::new()
    });
    keelson_config::merge(&mut table, own);
    let table = fit::to_schema(table, &mut notes);
    Ok(Composed {
        table,
        warnings: notes.finish(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_without_their_values() {
        let text = "hostname = 'a'\n[time]\nservers = ['b']\n[[user]]\nname = 'core'\n\
            password_hash = '$6$secret'\n[[file]]\npath = '/etc/motd'\ncontents = 'secret'\n\
            [[command]]\nshell = 'secret'\n[network]\nlink = [{ name = 'eth0' }]\n";
        let composed = Composed {
            table: text.parse().unwrap(),
            warnings: Vec::new(),
        };
        let mut settings = composed.settings();
        settings.sort_unstable();
        assert_eq!(
            settings,
            [
                "command[0]",
                "file[0] (/etc/motd)",
                "hostname",
                "network.link[0] (eth0)",
                "time.servers",
                "user[0] (core)"
            ]
        );
    }
}

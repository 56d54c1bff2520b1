//! The order of containers, by Compose's labels and Docker's links.

use std::collections::BTreeMap;

use keelson_model::spec::{Part, StartOrder};

use crate::wire::{Config, HostConfig};

const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// `db:service_healthy:false,cache:service_started:true`.
const DEPENDS_ON: &str = "com.docker.compose.depends_on";

/// The requested order. Containers of `--volumes-from` are added where they are resolved.
pub(super) fn order(config: &Config, host: &HostConfig) -> StartOrder {
    let part_of = part(&config.labels);
    let depends_on = match &part_of {
        Some(_) => config.labels.get(DEPENDS_ON).map_or("", String::as_str),
        None => "",
    };
    let services = services(depends_on);
    let healthy = services.iter().filter(|(_, healthy)| *healthy);
    let links = host.links.iter().flatten();
    let after = links.map(|link| link.split(':').next().unwrap_or_default());
    StartOrder {
        part_of,
        healthy_services: healthy.map(|(name, _)| name.clone()).collect(),
        after_services: services.into_iter().map(|(name, _)| name).collect(),
        after: after
            .map(|name| name.trim_start_matches('/').to_owned())
            .collect(),
    }
}

fn part(labels: &BTreeMap<String, String>) -> Option<Part> {
    let label = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
    Some(Part {
        group: label(PROJECT)?,
        service: label(SERVICE)?,
    })
}

/// The services, and whether they must be healthy.
fn services(text: &str) -> Vec<(String, bool)> {
    let entries = text.split(',').map(|entry| {
        let mut parts = entry.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        (name, parts.next() == Some("service_healthy"))
    });
    entries.filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composes_labels_are_understood() {
        let labels = [
            (PROJECT, "shop"),
            (SERVICE, "web"),
            (
                DEPENDS_ON,
                "db:service_healthy:false, cache:service_started,queue",
            ),
        ];
        let mut config = Config {
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..Config::default()
        };
        let host = HostConfig {
            links: Some(vec!["/old:alias".to_owned()]),
            ..HostConfig::default()
        };
        let found = order(&config, &host);
        assert_eq!(
            found.part_of,
            Some(Part {
                group: "shop".to_owned(),
                service: "web".to_owned()
            })
        );
        assert_eq!(found.after_services, ["db", "cache", "queue"]);
        assert_eq!(found.healthy_services, ["db"]);
        assert_eq!(found.after, ["old"]);
        config.labels.remove(PROJECT);
        let found = order(&config, &HostConfig::default());
        assert_eq!(found, StartOrder::default());
        for (text, wanted) in [("", vec![]), (",:,a", vec![("a".to_owned(), false)])] {
            assert_eq!(services(text), wanted);
        }
    }
}

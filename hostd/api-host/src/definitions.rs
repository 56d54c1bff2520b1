//! Services as the configuration describes them.

use std::collections::BTreeMap;

use hostd_host_services::definition::Definition;
use keelson_config::LoadedConfig;

/// Every service of a configuration, with the file and line of each of its values.
pub fn definitions(loaded: &LoadedConfig) -> BTreeMap<String, Definition> {
    let services = loaded.config.services.iter();
    services
        .map(|(name, config)| {
            let prefix = format!("services.{name}.");
            let places = loaded.origins.iter().filter_map(|(field, origin)| {
                let field = field.strip_prefix(&prefix)?;
                let mut place = origin.file.as_ref()?.display().to_string();
                if let Some(line) = origin.line {
                    place += &format!(":{line}");
                }
                Some((field.to_owned(), place))
            });
            let definition = Definition {
                config: config.clone(),
                places: places.collect(),
            };
            (name.clone(), definition)
        })
        .collect()
}

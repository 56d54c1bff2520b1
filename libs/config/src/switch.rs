//! Switching services on and off: a drop-in file of the operator's that says nothing else.

use std::fs;
use std::io;

use toml::{Table, Value};

use crate::change::{self, Applied, Proposal};
use crate::effective::current;
use crate::error::ChangeError;
use crate::sources::Sources;

/// Name of the drop-in, which comes after most others.
const DROP_IN: &str = "90-services";
/// What the file begins with.
const HEAD: &str = "# Written by hostctl service enable and disable.\n";

/// Switches a service on or off, for this and later boots.
///
/// # Errors
/// There is no such service, another file has the last word, another change waits, or a file can't be
/// read or written.
pub fn switch_service(
    sources: &Sources,
    name: &str,
    enabled: bool,
) -> Result<Applied, ChangeError> {
    let known = current(sources).config.services;
    if !known.contains_key(name) {
        let known: Vec<String> = known.into_keys().collect();
        return Err(ChangeError::NoService {
            name: name.to_owned(),
            known: known.join(", "),
        });
    }
    let file = sources.operator_dir.join(format!("{DROP_IN}.toml"));
    let unreadable = |reason: String| ChangeError::Unreadable {
        path: file.clone(),
        reason,
    };
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| unreadable(error.message().to_owned()))?;
    let services = table
        .entry("services")
        .or_insert_with(|| Value::Table(Table::new()));
    let service = services.as_table_mut().map(|services| {
        services
            .entry(name)
            .or_insert_with(|| Value::Table(Table::new()))
    });
    let service = service.and_then(Value::as_table_mut);
    let service = service.ok_or_else(|| unreadable("[services] is no table".to_owned()))?;
    service.insert("enabled".to_owned(), Value::Boolean(enabled));
    let text = toml::to_string(&table).map_err(|error| unreadable(error.to_string()))?;
    let proposal = Proposal {
        drop_in: Some(DROP_IN.to_owned()),
        text: format!("{HEAD}{text}"),
    };
    let applied = change::apply(sources, &proposal, None)?;
    let now = applied.loaded.config.services.get(name);
    if now.is_some_and(|service| service.is_enabled() != enabled) {
        let field = crate::path::join(&crate::path::join("services", name), "enabled");
        let origin = applied.loaded.origins.get(&field);
        return Err(ChangeError::Overridden {
            field,
            origin: origin.map(ToString::to_string).unwrap_or_default(),
        });
    }
    Ok(applied)
}

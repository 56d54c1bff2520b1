//! A service as it is configured.

use std::collections::BTreeMap;
use std::fmt;

use keelson_model::host::ServiceConfig;

/// A service as it is configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    /// What it is.
    pub config: ServiceConfig,
    /// The file and line of each value (`file:line`), by the name of its field: `image`,
    /// `health.command`.
    pub places: BTreeMap<String, String>,
}

impl Definition {
    /// The image for people.
    pub fn image(&self) -> String {
        match &self.config.image {
            Some(image) => image.clone(),
            None => self.config.layers.join(" + "),
        }
    }

    /// The error of a field, or of an item of a list: `layers[0]`.
    pub fn error(
        &self,
        name: &str,
        field: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> DefinitionError {
        let value = field.split('[').next().unwrap_or(field);
        // A value that no file says is missing: then the file that says anything of the service.
        let place = self
            .places
            .get(value)
            .or_else(|| self.places.values().next());
        DefinitionError {
            place: place.cloned().unwrap_or_default(),
            field: format!("services.{name}.{field}"),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Why a service can't run as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DefinitionError {
    /// `file:line`; empty if no file says anything of the service.
    pub place: String,
    /// Path of the field: `services.console.image`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(
            f,
            "field {} is wrong: {}: {}",
            self.field, self.message, self.remedy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_file_field_and_remedy() {
        let mut definition = Definition::default();
        let error = definition.error("x", "image", "it is missing", "name one");
        assert_eq!(
            error.to_string(),
            "field services.x.image is wrong: it is missing: name one"
        );
        let places = [("command", "/b.toml:2"), ("layers", "/a.toml:7")];
        definition.places = places.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (field, place) in [("layers[1]", "/a.toml:7"), ("image", "/b.toml:2")] {
            let error = definition.error("x", field, "", "").to_string();
            assert!(error.starts_with(&format!("{place}: field")), "{error}");
        }
    }
}

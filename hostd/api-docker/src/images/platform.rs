//! Platforms as clients name them: OCI's object as JSON.

use std::fmt;

use hostd_images::Image;
use keelson_model::error::ErrorKind;
use keelson_model::json;
use serde::Deserialize;

use crate::error::ApiError;
use crate::query::Query;

/// The processor architecture in Go's words.
pub(crate) fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The platform that a request means. Every stored image is for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.os)?;
        for part in [&self.architecture, &self.variant] {
            if !part.is_empty() {
                write!(formatter, "/{part}")?;
            }
        }
        Ok(())
    }
}

impl Platform {
    fn parse(text: &str) -> Result<Self, ApiError> {
        json::from_slice(text.as_bytes())
            .map_err(|error| ApiError::invalid(format!("failed to parse platform: {error}")))
    }

    /// The platform in a query parameter.
    pub(crate) fn of_query(query: &Query, name: &str) -> Result<Option<Self>, ApiError> {
        query.get(name).map(Self::parse).transpose()
    }

    /// The platform in a parameter that clients of newer versions may repeat.
    ///
    /// # Errors
    /// `InvalidInput`, also when there are several: an image is for one platform, and the others would
    /// be ignored silently.
    pub(crate) fn only_of_query(query: &Query, name: &str) -> Result<Option<Self>, ApiError> {
        match query.all(name).count() {
            0 | 1 => Self::of_query(query, name),
            _ => Err(ApiError::invalid(format!(
                "multiple {name} parameters not supported: name one"
            ))),
        }
    }

    /// All platforms of a parameter that may be repeated.
    pub(crate) fn all_of_query(query: &Query, name: &str) -> Result<Vec<Self>, ApiError> {
        query
            .all(name)
            .filter(|text| !text.is_empty())
            .map(Self::parse)
            .collect()
    }

    /// Reads `os[/architecture[/variant]]`, or the object of newer clients. An architecture may have
    /// its kernel name.
    pub(crate) fn named(text: &str) -> Result<Self, ApiError> {
        if text.starts_with('{') {
            return Self::parse(text);
        }
        let mut parts = text.splitn(3, '/').map(str::to_ascii_lowercase);
        let os = parts.next().unwrap_or_default();
        let architecture = match parts.next().unwrap_or_default().as_str() {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        Ok(Self {
            os,
            architecture,
            variant: parts.next().unwrap_or_default(),
        })
    }

    /// The platform of an image.
    pub(crate) fn of(image: &Image) -> Self {
        Self {
            os: image.config.os.clone(),
            architecture: image.config.architecture.clone(),
            variant: image.config.variant.clone().unwrap_or_default(),
        }
    }

    /// The platform of this machine, without the processor's variant: it runs older variants, too.
    pub(crate) fn of_machine() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: go_architecture().to_owned(),
            variant: String::new(),
        }
    }

    /// Whether the image is for this platform. Parts that are not named fit every image.
    pub(crate) fn fits(&self, image: &Image) -> bool {
        let config = &image.config;
        let same = |wanted: &str, is: &str| wanted.is_empty() || is.is_empty() || wanted == is;
        same(&self.os, &config.os)
            && same(&self.architecture, &config.architecture)
            && same(&self.variant, config.variant.as_deref().unwrap_or_default())
    }

    /// # Errors
    /// The image is for another platform. The text is Docker's.
    pub(crate) fn check(&self, image: &Image, name: &str) -> Result<(), ApiError> {
        match self.fits(image) {
            true => Ok(()),
            false => Err(ApiError::new(
                ErrorKind::NotFound,
                format!(
                    "image with reference {name} was found but does not provide the specified platform ({self})"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read_and_shown() {
        let arm = Platform::parse(r#"{"os":"linux","architecture":"arm","variant":"v7"}"#).unwrap();
        assert_eq!(arm.to_string(), "linux/arm/v7");
        assert_eq!(
            Platform::parse(r#"{"os":"linux"}"#).unwrap().to_string(),
            "linux"
        );
        for wrong in ["linux/arm", "{}", "1", r#"{"os":1}"#] {
            assert!(Platform::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! user-data: one channel for many formats, told apart by their first line (cloud-init
//! documentation, "User data formats"). What is not supported is an error by name.

mod mime;

use toml::Table;

use crate::cloud_config;
use crate::gzip;
use crate::ignition;
use crate::notes::Notes;
use crate::resources::{ResourceError, Resources};
use crate::settings::{Command, Settings};
use crate::yaml;

/// Largest user-data after unpacking, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most parts of one user-data, those of parts and includes counted.
const MAX_PARTS: usize = 128;
/// Deepest nesting of archives and includes.
const MAX_DEPTH: usize = 8;
/// The first line of a document in our own words.
pub const OWN: &str = "#keelson-config";

/// Why a part of user-data has no effect.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UserDataError {
    /// A format that is known and not supported.
    #[error("{format} is not supported: {remedy}")]
    Unsupported {
        /// Its name.
        format: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// The first line says nothing known.
    #[error(
        "the format is unknown: the first line must be #cloud-config, #keelson-config, #! or #include, \
         or it is MIME multipart or Ignition's JSON"
    )]
    Unknown,
    /// It can't be unpacked.
    #[error(transparent)]
    Gzip(#[from] gzip::GzipError),
    /// It is no valid YAML.
    #[error("cloud-config: {0}")]
    CloudConfig(yaml::YamlError),
    /// It is no valid list of parts.
    #[error("#cloud-config-archive: {0}")]
    Archive(yaml::YamlError),
    /// It is no valid multipart message.
    #[error("the MIME message has no readable parts")]
    Mime,
    /// It is no valid TOML.
    #[error("#keelson-config: {0}")]
    Toml(String),
    /// It is no valid Ignition.
    #[error(transparent)]
    Ignition(#[from] ignition::IgnitionError),
    /// A resource is not there.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// Too many parts, or too deep.
    #[error("there are more than {MAX_PARTS} parts, or they are nested deeper than {MAX_DEPTH}")]
    TooMany,
}

impl UserDataError {
    /// Whether it would succeed with a network.
    #[must_use]
    pub fn is_later(&self) -> bool {
        matches!(
            self,
            Self::Resource(ResourceError::Later(_))
                | Self::Ignition(ignition::IgnitionError::Resource(ResourceError::Later(_)))
        )
    }
}

/// What a translation is made into.
pub struct Target<'a> {
    /// Settings in foreign words.
    pub settings: &'a mut Settings,
    /// Settings in our own words, which go over the others.
    pub own: &'a mut Table,
    /// Warnings.
    pub notes: &'a mut Notes,
}

/// Translates user-data of any format. A part that fails is left out with a warning, and the others
/// have effect.
///
/// # Errors
/// A resource needs the network. Nothing should be used then; there will be a second attempt.
pub fn translate(
    bytes: &[u8],
    target: &mut Target<'_>,
    resources: &mut dyn Resources,
) -> Result<(), ResourceError> {
    let mut reader = Reader {
        target,
        resources,
        parts: 0,
    };
    reader.attempt(bytes, 0)
}

struct Reader<'a, 'b> {
    target: &'a mut Target<'b>,
    resources: &'a mut dyn Resources,
    parts: usize,
}

impl Reader<'_, '_> {
    /// One part; its failure is a warning.
    fn attempt(&mut self, bytes: &[u8], depth: usize) -> Result<(), ResourceError> {
        match self.part(bytes, depth) {
            Ok(()) => Ok(()),
            Err(
                UserDataError::Resource(later @ ResourceError::Later(_))
                | UserDataError::Ignition(ignition::IgnitionError::Resource(
                    later @ ResourceError::Later(_),
                )),
            ) => Err(later),
            Err(error) => {
                let line = match &error {
                    UserDataError::CloudConfig(
                        yaml::YamlError::Syntax { line, .. }
                        | yaml::YamlError::TooLarge { line, .. },
                    ) => *line,
                    _ => 0,
                };
                self.target.notes.at(line, error.to_string());
                Ok(())
            }
        }
    }

    fn part(&mut self, bytes: &[u8], depth: usize) -> Result<(), UserDataError> {
        self.parts += 1;
        if self.parts > MAX_PARTS || depth > MAX_DEPTH {
            return Err(UserDataError::TooMany);
        }
        if gzip::is_gzip(bytes) {
            let unpacked = gzip::unpack(bytes, MAX_BYTES)?;
            return self.part(&unpacked, depth + 1);
        }
        let target = &mut *self.target;
        match Format::of(bytes) {
            Format::Empty => Ok(()),
            Format::CloudConfig => cloud_config::translate(bytes, target.settings, target.notes)
                .map_err(UserDataError::CloudConfig),
            Format::Own => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| UserDataError::Toml("it is not UTF-8 text".to_owned()))?;
                let table = text
                    .parse::<Table>()
                    .map_err(|error| UserDataError::Toml(error.to_string().trim().to_owned()))?;
                keelson_config::merge(target.own, table);
                Ok(())
            }
            Format::Script => {
                match String::from_utf8(bytes.to_vec()) {
                    Ok(script) => target.settings.command.push(Command {
                        script: Some(script),
                        ..Command::default()
                    }),
                    Err(_) => target
                        .notes
                        .say("the script is not UTF-8 text and is left out"),
                }
                Ok(())
            }
            Format::Include => self.includes(bytes, depth),
            Format::Archive => self.archive(bytes, depth),
            Format::Multipart => {
                let parts = mime::parts(bytes).ok_or(UserDataError::Mime)?;
                self.all(parts, depth)
            }
            Format::Ignition => {
                ignition::translate(bytes, target.settings, target.notes, self.resources)?;
                Ok(())
            }
            Format::Unsupported(format, remedy) => {
                Err(UserDataError::Unsupported { format, remedy })
            }
            Format::Unknown => Err(UserDataError::Unknown),
        }
    }

    fn all(&mut self, parts: Vec<mime::Part>, depth: usize) -> Result<(), UserDataError> {
        let before = self.target.notes.document().to_owned();
        for (number, part) in parts.into_iter().enumerate() {
            let name = part.name.unwrap_or_else(|| format!("part {}", number + 1));
            let name: String = name.chars().take(60).collect();
            self.target.notes.enter(&format!("{before} ({name})"));
            let result = self.attempt(&part.bytes, depth + 1);
            self.target.notes.enter(&before);
            result?;
        }
        Ok(())
    }

    /// `#include`: one URL in each line.
    fn includes(&mut self, bytes: &[u8], depth: usize) -> Result<(), UserDataError> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut parts = Vec::new();
        for line in text.lines().map(str::trim) {
            let line = ["#include-once", "#include"]
                .iter()
                .find_map(|word| line.strip_prefix(word))
                .unwrap_or(line)
                .trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if parts.len() >= MAX_PARTS {
                return Err(UserDataError::TooMany);
            }
            match self.resources.get(line) {
                Ok(bytes) => parts.push(mime::Part {
                    name: Some(crate::resources::shown(line)),
                    bytes,
                }),
                Err(later @ ResourceError::Later(_)) => return Err(later.into()),
                Err(error) => self.target.notes.say(error.to_string()),
            }
        }
        self.all(parts, depth)
    }

    /// `#cloud-config-archive`: a list of texts and of mappings with `content`.
    fn archive(&mut self, bytes: &[u8], depth: usize) -> Result<(), UserDataError> {
        let root = yaml::parse(bytes).map_err(UserDataError::Archive)?;
        let mut parts = Vec::new();
        for item in root.list().unwrap_or_default() {
            let content = item.get("content").unwrap_or(item);
            match content.bytes() {
                Some(bytes) => parts.push(mime::Part {
                    name: item
                        .get("filename")
                        .and_then(yaml::YamlNode::text)
                        .map(str::to_owned),
                    bytes: bytes.into_owned(),
                }),
                None => self
                    .target
                    .notes
                    .at(item.line, "a part has no content and is left out"),
            }
        }
        self.all(parts, depth)
    }
}

/// The formats that a first line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Empty,
    CloudConfig,
    Own,
    Script,
    Include,
    Archive,
    Multipart,
    Ignition,
    Unsupported(&'static str, &'static str),
    Unknown,
}

impl Format {
    fn of(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let start = bytes.trim_ascii_start();
        if start.is_empty() {
            return Self::Empty;
        }
        let first = start
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let first = String::from_utf8_lossy(first.get(..200).unwrap_or(first));
        let first = first.trim_end();
        if mime::is_message(start) {
            return Self::Multipart;
        }
        match first {
            "#cloud-config" => Self::CloudConfig,
            OWN => Self::Own,
            "#cloud-config-archive" => Self::Archive,
            "#cloud-config-jsonp" => Self::Unsupported("#cloud-config-jsonp", "use #cloud-config"),
            "#part-handler" => Self::Unsupported("#part-handler", "the host runs no Python"),
            "#cloud-boothook" => {
                Self::Unsupported("#cloud-boothook", "use bootcmd of #cloud-config")
            }
            first if first.starts_with("#!") => Self::Script,
            first if first.starts_with("#include") => Self::Include,
            first if first.starts_with("## template:") => Self::Unsupported(
                "a jinja template",
                "fill it in before you give it to the machine",
            ),
            first if first.starts_with("#upstart-job") => {
                Self::Unsupported("#upstart-job", "run the job in a container")
            }
            // A hyphen is forgotten, or something stands behind it: the most common mistake.
            first if first.starts_with("#cloud") => {
                Self::Unsupported("this first line", "it must be exactly #cloud-config")
            }
            first if first.starts_with('{') => Self::Ignition,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_line() {
        for (text, format) in [
            ("", Format::Empty),
            ("\n \n", Format::Empty),
            ("#cloud-config\na: b", Format::CloudConfig),
            ("#cloud-config \r\na: b", Format::CloudConfig),
            ("#!/bin/sh\n", Format::Script),
            ("#include\nhttp://a/", Format::Include),
            ("#include http://a/", Format::Include),
            ("#cloud-config-archive\n- a", Format::Archive),
            ("#keelson-config\n", Format::Own),
            ("{\"ignition\": {}}", Format::Ignition),
            (
                "Content-Type: multipart/mixed; boundary=x\n\n",
                Format::Multipart,
            ),
            (
                "MIME-Version: 1.0\nContent-Type: text/plain\n",
                Format::Multipart,
            ),
            ("hello", Format::Unknown),
        ] {
            assert_eq!(Format::of(text.as_bytes()), format, "{text:?}");
        }
        for text in [
            "## template: jinja\n#cloud-config",
            "#cloudconfig",
            "#part-handler",
        ] {
            assert!(
                matches!(Format::of(text.as_bytes()), Format::Unsupported(..)),
                "{text}"
            );
        }
    }
}

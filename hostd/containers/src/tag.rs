//! The tag of a container in its log: a template with its properties, such as `{{.Name}}/{{.ID}}`.

use keelson_model::spec::ContainerSpec;

use crate::EngineError;
use crate::types::Snapshot;

/// A property that may be used in a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Id,
    FullId,
    Name,
    ImageName,
    ImageId,
    ImageFullId,
    Command,
    DaemonName,
}

/// A part of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Property(Property),
}

/// Checks a tag.
///
/// # Errors
/// [`EngineError::Invalid`], naming the text in braces that is no property.
pub fn check_tag(tag: &str) -> Result<(), EngineError> {
    parse(tag).map(drop)
}

/// The tag of a container's log; empty when it has none.
pub fn tag_of(container: &Snapshot) -> String {
    let tag = container.spec.log.marks().map(|marks| marks.tag.as_str());
    // It was checked when the container was created.
    let parts = parse(tag.unwrap_or_default()).unwrap_or_default();
    let render = |part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Property(property) => value(property, container),
    };
    parts.into_iter().map(render).collect()
}

fn value(property: Property, container: &Snapshot) -> String {
    let image = || container.image_id().trim_start_matches("sha256:");
    match property {
        Property::Id => short(&container.id).to_owned(),
        Property::FullId => container.id.clone(),
        Property::Name => container.name.clone(),
        Property::ImageName => container.image().into_owned(),
        Property::ImageId => short(image()).to_owned(),
        Property::ImageFullId => container.image_id().to_owned(),
        Property::Command => command(&container.spec),
        Property::DaemonName => "docker".to_owned(),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn command(spec: &ContainerSpec) -> String {
    let words = [&spec.process.command].into_iter();
    let words: Vec<_> = words
        .chain(&spec.process.args)
        .map(String::as_str)
        .collect();
    words.join(" ")
}

fn parse(tag: &str) -> Result<Vec<Part<'_>>, EngineError> {
    let mut parts = Vec::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inside, behind)) = after.split_once("}}") else {
            return Err(EngineError::Invalid(format!(
                "log-opt tag {tag:?}: \"}}}}\" is missing"
            )));
        };
        let property = match inside.trim() {
            ".ID" => Property::Id,
            ".FullID" | ".ContainerID" => Property::FullId,
            ".Name" | ".ContainerName" => Property::Name,
            ".ImageName" | ".ContainerImageName" => Property::ImageName,
            ".ImageID" => Property::ImageId,
            ".ImageFullID" | ".ContainerImageID" => Property::ImageFullId,
            ".Command" => Property::Command,
            ".DaemonName" => Property::DaemonName,
            _ => {
                return Err(EngineError::Invalid(format!(
                    "log-opt tag {tag:?}: {{{{{inside}}}}} is unknown; use .ID, .FullID, .Name, .ImageName, .ImageID, .ImageFullID, .Command and .DaemonName"
                )));
            }
        };
        parts.extend((!before.is_empty()).then_some(Part::Text(before)));
        parts.push(Part::Property(property));
        rest = behind;
    }
    parts.extend((!rest.is_empty()).then_some(Part::Text(rest)));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_places() {
        assert_eq!(
            parse("a/{{.Name}}{{ .ID }}-").unwrap(),
            [
                Part::Text("a/"),
                Part::Property(Property::Name),
                Part::Property(Property::Id),
                Part::Text("-"),
            ]
        );
        assert_eq!(parse("").unwrap(), []);
        for wrong in ["{{.Nope}}", "{{.Name", "{{index .Labels}}"] {
            assert!(check_tag(wrong).is_err(), "{wrong}");
        }
    }
}

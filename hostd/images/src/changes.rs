//! Dockerfile instructions that change an image's configuration (`--change` of import and commit).

mod health;
mod words;

use std::path::{Component, Path};

use keelson_oci::config::{ContainerDefaults, USUAL_SHELL};
use keelson_oci::reference::Reference;
use serde_json::{Map, Value};

use crate::error::ImageError;
use words::{pairs, single, words};

/// Why an instruction can't be applied, in Docker's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct BadChange(String);

impl From<String> for BadChange {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for BadChange {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The name of a new image.
pub(crate) fn new_name(name: &str) -> Result<Reference, ImageError> {
    let reference = name.parse::<Reference>()?.with_default_tag();
    match reference.digest() {
        None => Ok(reference),
        // Docker uses the same words for commits.
        Some(_) => Err(ImageError::Invalid(
            "cannot import digest reference".to_owned(),
        )),
    }
}

/// Completes the options of a commit from its container, by Docker's rules.
pub(crate) fn inherit(wanted: &mut ContainerDefaults, container: ContainerDefaults) {
    fn union<T>(
        wanted: &mut Option<std::collections::BTreeMap<String, T>>,
        container: Option<std::collections::BTreeMap<String, T>>,
    ) {
        for (key, value) in container.into_iter().flatten() {
            wanted.get_or_insert_default().entry(key).or_insert(value);
        }
    }
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    if wanted.user.is_empty() {
        wanted.user = container.user;
    }
    union(&mut wanted.exposed_ports, container.exposed_ports);
    union(&mut wanted.labels, container.labels);
    union(&mut wanted.volumes, container.volumes);
    for variable in container.env.into_iter().flatten() {
        let list = wanted.env.get_or_insert_default();
        if !list.iter().any(|other| name(other) == name(&variable)) {
            list.push(variable);
        }
    }
    if wanted.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if wanted.cmd.as_ref().is_none_or(Vec::is_empty) {
            wanted.cmd = container.cmd;
        }
        if wanted.entrypoint.is_none() {
            wanted.entrypoint = container.entrypoint;
        }
    }
    if wanted.working_dir.is_empty() {
        wanted.working_dir = container.working_dir;
    }
    wanted.stop_signal = wanted.stop_signal.take().or(container.stop_signal);
    wanted.healthcheck = wanted.healthcheck.take().or(container.healthcheck);
    wanted.shell = wanted.shell.take().or(container.shell);
    wanted.on_build = wanted.on_build.take().or(container.on_build);
}

/// Applies instructions in order.
pub(crate) fn apply(
    defaults: &mut ContainerDefaults,
    changes: &[String],
) -> Result<(), ImageError> {
    let mut has_command = false;
    for change in changes.iter().flat_map(|changes| changes.lines()) {
        let change = change.trim();
        if change.is_empty() || change.starts_with('#') {
            continue;
        }
        let (instruction, rest) = match change.split_once(char::is_whitespace) {
            Some((instruction, rest)) => (instruction, rest.trim()),
            None => (change, ""),
        };
        let instruction = instruction.to_ascii_uppercase();
        one(defaults, &instruction, rest)
            .map_err(|reason| ImageError::Invalid(format!("change {change:?}: {reason}")))?;
        match instruction.as_str() {
            "CMD" => has_command = true,
            // The old arguments belonged to another entry point.
            "ENTRYPOINT" if !has_command => defaults.cmd = None,
            _ => {}
        }
    }
    Ok(())
}

fn one(defaults: &mut ContainerDefaults, instruction: &str, rest: &str) -> Result<(), BadChange> {
    if rest.is_empty() {
        return Err(format!("{instruction} requires an argument").into());
    }
    let environment = defaults.env.clone().unwrap_or_default();
    let variable = |name: &str| {
        let prefix = format!("{name}=");
        let found = environment
            .iter()
            .find_map(|entry| entry.strip_prefix(&prefix));
        found.map(str::to_owned)
    };
    match instruction {
        "CMD" => defaults.cmd = Some(command(rest, defaults.shell.as_deref())),
        "ENTRYPOINT" => defaults.entrypoint = Some(command(rest, defaults.shell.as_deref())),
        "USER" => defaults.user = single(rest, &variable)?,
        "STOPSIGNAL" => defaults.stop_signal = Some(single(rest, &variable)?),
        "WORKDIR" => {
            let path = single(rest, &variable)?;
            // A path that begins with a slash replaces the present one.
            let path = Path::new("/").join(&defaults.working_dir).join(path);
            defaults.working_dir = lexical(&path);
        }
        "ENV" => {
            let list = defaults.env.get_or_insert_default();
            for (name, value) in pairs(rest, &variable)? {
                let prefix = format!("{name}=");
                match list
                    .iter_mut()
                    .find(|variable| variable.starts_with(&prefix))
                {
                    Some(variable) => *variable = format!("{name}={value}"),
                    None => list.push(format!("{name}={value}")),
                }
            }
        }
        "LABEL" => defaults
            .labels
            .get_or_insert_default()
            .extend(pairs(rest, &variable)?),
        "EXPOSE" => {
            for port in words(rest, &variable)? {
                let ports = defaults.exposed_ports.get_or_insert_default();
                for port in exposed(&port)? {
                    ports.insert(port, Value::Object(Map::new()));
                }
            }
        }
        "VOLUME" => {
            let paths = if rest.starts_with('[') {
                json_list(rest)?
            } else {
                words(rest, &variable)?
            };
            for path in paths {
                defaults
                    .volumes
                    .get_or_insert_default()
                    .insert(path, Value::Object(Map::new()));
            }
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default();
            match trigger.to_ascii_uppercase().as_str() {
                "ONBUILD" => {
                    return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into());
                }
                trigger @ ("FROM" | "MAINTAINER") => {
                    return Err(format!("{trigger} isn't allowed as an ONBUILD trigger").into());
                }
                _ => {}
            }
            let triggers = defaults.on_build.get_or_insert_default();
            triggers.push(rest.to_owned());
        }
        "HEALTHCHECK" => defaults.healthcheck = Some(health::parse(rest)?),
        "SHELL" => defaults.shell = Some(json_list(rest)?),
        _ => {
            return Err(format!(
                "{} is not a valid change command",
                instruction.to_ascii_lowercase()
            )
            .into());
        }
    }
    Ok(())
}

/// An absolute path without `.` and `..`. Links are not followed.
fn lexical(path: &Path) -> String {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp` or `80-82/tcp`, each port with its protocol.
fn exposed(text: &str) -> Result<Vec<String>, BadChange> {
    let wrong = || BadChange::from(format!("invalid containerPort: {text}"));
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last || !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    let ports = (first..=last).map(|port| format!("{port}/{protocol}"));
    Ok(ports.collect())
}

/// A JSON list, or a line for the shell.
fn command(rest: &str, shell: Option<&[String]>) -> Vec<String> {
    if rest.starts_with('[')
        && let Ok(list) = json_list(rest)
    {
        return list;
    }
    let mut command = match shell {
        Some(shell) => shell.to_vec(),
        None => USUAL_SHELL.map(str::to_owned).to_vec(),
    };
    command.push(rest.to_owned());
    command
}

fn json_list(rest: &str) -> Result<Vec<String>, BadChange> {
    serde_json::from_str(rest).map_err(|error| format!("not a list of strings: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerDefaults, ImageError> {
        let mut defaults = ContainerDefaults::default();
        let changes: Vec<_> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(&mut defaults, &changes).map(|()| defaults)
    }

    #[test]
    fn instructions_set_their_members() {
        let defaults = changed(&[
            r#"CMD ["sh", "-l"]"#,
            "entrypoint echo hi",
            "ENV A=1 B=\"two words\" C=x\\ y",
            "ENV A old form",
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "VOLUME /data /more",
            "WORKDIR /a",
            "WORKDIR b",
            "USER 1000:1000",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
        ])
        .unwrap();
        assert_eq!(defaults.cmd.unwrap(), ["sh", "-l"]);
        assert_eq!(defaults.entrypoint.unwrap(), ["/bin/sh", "-c", "echo hi"]);
        assert_eq!(
            defaults.env.unwrap(),
            ["A=old form", "B=two words", "C=x y"]
        );
        assert_eq!(defaults.labels.unwrap()["a.b"], "c");
        assert!(
            defaults
                .exposed_ports
                .unwrap()
                .keys()
                .eq(["53/udp", "80/tcp"])
        );
        assert!(defaults.volumes.unwrap().keys().eq(["/data", "/more"]));
        assert_eq!(defaults.working_dir, "/a/b");
        assert_eq!(defaults.user, "1000:1000");
        assert_eq!(defaults.stop_signal.as_deref(), Some("SIGINT"));
        assert_eq!(defaults.on_build.unwrap(), ["RUN true"]);
    }

    #[test]
    fn values_are_read_as_docker_reads_them() {
        let defaults = changed(&[
            "EXPOSE 80-82/TCP",
            "WORKDIR a/../.",
            "WORKDIR /x/../a b/",
            "USER a  b",
        ])
        .unwrap();
        assert!(
            defaults
                .exposed_ports
                .unwrap()
                .keys()
                .eq(["80/tcp", "81/tcp", "82/tcp"])
        );
        assert_eq!((&*defaults.working_dir, &*defaults.user), ("/a b", "a b"));
        // A new entry point does not get the old arguments.
        let defaults = changed(&["CMD a", "ENTRYPOINT b"]).unwrap();
        assert!(defaults.cmd.is_some());
        let mut defaults = changed(&["CMD a"]).unwrap();
        apply(&mut defaults, &["ENTRYPOINT b".to_owned()]).unwrap();
        assert!(defaults.cmd.is_none());
        for (wrong, words) in [
            ("EXPOSE 82-80", "invalid containerPort"),
            ("EXPOSE 70000", "invalid containerPort"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("ONBUILD onbuild RUN x", "Chaining ONBUILD"),
        ] {
            let error = changed(&[wrong]).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn several_lines_are_several_instructions() {
        let defaults = changed(&[
            "SHELL [\"ash\", \"-ec\"]\n# remark\n\nCMD date\nENV A=1\nENV B=$A-${A}${C:-2} C='$A'",
        ])
        .unwrap();
        assert_eq!(defaults.cmd.unwrap(), ["ash", "-ec", "date"]);
        assert_eq!(defaults.env.unwrap(), ["A=1", "B=1-12", "C=$A"]);
    }

    #[test]
    fn commits_inherit_what_they_do_not_set() {
        let mut wanted = changed(&["ENV A=1", "ENTRYPOINT [\"x\"]", "LABEL l=new"]).unwrap();
        let container = changed(&[
            "ENV A=0 B=2",
            "CMD [\"c\"]",
            "USER u",
            "LABEL l=old m=old",
            "STOPSIGNAL 9",
        ]);
        inherit(&mut wanted, container.unwrap());
        assert_eq!(wanted.env.unwrap(), ["A=1", "B=2"]);
        assert_eq!(wanted.cmd, None, "a command belongs to its entry point");
        assert_eq!(wanted.user, "u");
        assert_eq!(wanted.labels.as_ref().unwrap()["l"], "new");
        assert_eq!(wanted.labels.unwrap()["m"], "old");
        assert_eq!(wanted.stop_signal.as_deref(), Some("9"));
    }

    #[test]
    fn other_instructions_are_refused() {
        for change in [
            "RUN true",
            "CMD",
            "ENV",
            "ENV =x",
            "EXPOSE x",
            "ENV A=\"x",
            "SHELL sh",
            "HEALTHCHECK true",
            "ENV A=${B",
        ] {
            assert!(
                matches!(changed(&[change]), Err(ImageError::Invalid(_))),
                "{change}"
            );
        }
    }
}

//! Dockerfile instructions that change an image's configuration (`--change` of import and commit).

use keelson_oci::config::ContainerDefaults;
use serde_json::{Map, Value};

use crate::error::ImageError;

/// Applies instructions in order.
pub(crate) fn apply(
    defaults: &mut ContainerDefaults,
    changes: &[String],
) -> Result<(), ImageError> {
    for change in changes {
        let change = change.trim();
        if change.is_empty() {
            continue;
        }
        let (instruction, rest) = match change.split_once(char::is_whitespace) {
            Some((instruction, rest)) => (instruction, rest.trim()),
            None => (change, ""),
        };
        one(defaults, &instruction.to_ascii_uppercase(), rest).map_err(|reason| match reason {
            Refusal::Wrong(reason) => ImageError::Invalid(format!("change {change:?}: {reason}")),
            Refusal::Missing => ImageError::NotImplemented(format!(
                "change {change:?}: instruction {instruction} is not supported here"
            )),
        })?;
    }
    Ok(())
}

enum Refusal {
    Wrong(String),
    Missing,
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Wrong(reason)
    }
}

fn one(defaults: &mut ContainerDefaults, instruction: &str, rest: &str) -> Result<(), Refusal> {
    if rest.is_empty() {
        return Err(Refusal::Wrong(format!("{instruction} needs a value")));
    }
    match instruction {
        "CMD" => defaults.cmd = Some(command(rest)?),
        "ENTRYPOINT" => defaults.entrypoint = Some(command(rest)?),
        "USER" => defaults.user = single(rest)?,
        "STOPSIGNAL" => defaults.stop_signal = Some(single(rest)?),
        "WORKDIR" => {
            let path = single(rest)?;
            defaults.working_dir = if path.starts_with('/') {
                path
            } else {
                let base = match defaults.working_dir.as_str() {
                    "" => "/",
                    base => base,
                };
                format!("{}/{path}", base.trim_end_matches('/'))
            };
        }
        "ENV" => {
            let list = defaults.env.get_or_insert_default();
            for (name, value) in pairs(rest)? {
                let prefix = format!("{name}=");
                list.retain(|variable| !variable.starts_with(&prefix));
                list.push(format!("{name}={value}"));
            }
        }
        "LABEL" => defaults.labels.get_or_insert_default().extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                if number.parse::<u16>().is_err() || !["tcp", "udp", "sctp"].contains(&protocol) {
                    return Err(Refusal::Wrong(format!("{port:?} is not a port")));
                }
                defaults
                    .exposed_ports
                    .get_or_insert_default()
                    .insert(format!("{number}/{protocol}"), Value::Object(Map::new()));
            }
        }
        "VOLUME" => {
            let paths = if rest.starts_with('[') {
                json_list(rest)?
            } else {
                words(rest)?
            };
            for path in paths {
                defaults
                    .volumes
                    .get_or_insert_default()
                    .insert(path, Value::Object(Map::new()));
            }
        }
        "ONBUILD" => defaults
            .on_build
            .get_or_insert_default()
            .push(rest.to_owned()),
        "HEALTHCHECK" => return Err(Refusal::Missing),
        _ => {
            return Err(Refusal::Wrong(format!(
                "{instruction} is not a valid change command"
            )));
        }
    }
    Ok(())
}

/// A JSON list, or a line for the shell.
fn command(rest: &str) -> Result<Vec<String>, String> {
    if rest.starts_with('[')
        && let Ok(list) = json_list(rest)
    {
        return Ok(list);
    }
    Ok(["/bin/sh", "-c", rest].map(str::to_owned).to_vec())
}

fn json_list(rest: &str) -> Result<Vec<String>, String> {
    serde_json::from_str(rest).map_err(|error| format!("not a list of strings: {error}"))
}

fn single(rest: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(words(rest)?) {
        Ok([word]) => Ok(word),
        Err(words) => Err(format!("one value is expected, not {}", words.len())),
    }
}

/// `name=value …`, or the old form `name value` with one value of several words.
fn pairs(rest: &str) -> Result<Vec<(String, String)>, String> {
    let words = words(rest)?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        return match rest.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
            None => Err(format!("{rest:?} is not name=value")),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not name=value")),
        })
        .collect()
}

/// Splits at white space outside of quotes; a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                word.get_or_insert_default().push(next);
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".to_owned());
    }
    words.extend(word);
    Ok(words)
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
    fn sets_what_the_instructions_say() {
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
            ["B=two words", "C=x y", "A=old form"]
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
    fn refuses_the_rest() {
        for change in [
            "RUN true",
            "CMD",
            "ENV",
            "ENV =x",
            "EXPOSE x",
            "USER a b",
            "ENV A=\"x",
        ] {
            assert!(
                matches!(changed(&[change]), Err(ImageError::Invalid(_))),
                "{change}"
            );
        }
        assert!(matches!(
            changed(&["HEALTHCHECK NONE"]),
            Err(ImageError::NotImplemented(_))
        ));
    }
}

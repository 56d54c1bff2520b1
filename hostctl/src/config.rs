//! `hostctl config`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use http::Method;
use keelson_model::host_api::{
    ConfigApplied, ConfigApply, ConfigChange, ConfigConfirmed, ConfigDiff, ConfigOrigin,
    ConfigProblem, ConfigProposal, ConfigTakenBack, ConfigValidated, ConfigView,
};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{ApplyConfigArgs, ConfigCommand, ConfigFileArgs, Format};
use crate::table::table;

const PATH: &str = "/host/v1/config";
/// Largest file that is sent, in bytes.
const MAX_BYTES: u64 = 1 << 20;

pub(crate) async fn run(
    client: &Client,
    format: Format,
    command: &ConfigCommand,
) -> Result<String, CtlError> {
    match command {
        ConfigCommand::Show(args) => {
            let view: ConfigView = client.get(PATH).await?;
            crate::render(format, &view, || show(&view, args.origin))
        }
        ConfigCommand::Validate(args) => validate(client, format, args).await,
        ConfigCommand::Diff(args) => {
            let path = format!("{PATH}/diff");
            let diff: ConfigDiff = client.send(Method::POST, &path, &proposal(args)?).await?;
            crate::render(format, &diff, || changes(&diff.changes))
        }
        ConfigCommand::Apply(args) => apply(client, format, args).await,
        ConfigCommand::Confirm => {
            let path = format!("{PATH}/confirm");
            let confirmed: ConfigConfirmed = client.post(&path).await?;
            crate::render(format, &confirmed, || {
                format!("the change of {} stays\n", confirmed.file)
            })
        }
        ConfigCommand::Rollback => {
            let path = format!("{PATH}/rollback");
            let back: ConfigTakenBack = client.post(&path).await?;
            crate::render(format, &back, || {
                let file = format!("{} is as before\n", back.file);
                changes(&back.changes) + &file + &after(&back.notes, back.restarting)
            })
        }
    }
}

async fn validate(
    client: &Client,
    format: Format,
    args: &ConfigFileArgs,
) -> Result<String, CtlError> {
    let path = format!("{PATH}/validate");
    let checked: ConfigValidated = client.send(Method::POST, &path, &proposal(args)?).await?;
    if checked.problems.is_empty() {
        return crate::render(format, &checked, || "the file is right\n".to_owned());
    }
    let lines: Vec<String> = checked.problems.iter().map(problem).collect();
    print!(
        "{}",
        crate::render(format, &checked, || lines.join("\n") + "\n")?
    );
    let count = checked.problems.len();
    Err(CtlError::WrongConfiguration(format!(
        "{count} problems in {}",
        args.file.display()
    )))
}

async fn apply(
    client: &Client,
    format: Format,
    args: &ApplyConfigArgs,
) -> Result<String, CtlError> {
    let ConfigProposal { text, drop_in } = proposal(&args.file)?;
    let request = ConfigApply {
        text,
        drop_in,
        confirm_within: args.confirm_within,
        restart: args.restart,
    };
    let path = format!("{PATH}/apply");
    let applied: ConfigApplied = client.send(Method::POST, &path, &request).await?;
    crate::render(format, &applied, || {
        let mut text = changes(&applied.changes) + &after(&applied.notes, applied.restarting);
        let later = |effect: &str| applied.changes.iter().any(|change| change.effect == effect);
        if later("restart") && !applied.restarting {
            text += "some values work when hostd restarts: apply with --restart, or reboot\n";
        }
        if later("boot") {
            text += "some values work at the next boot: hostctl reboot\n";
        }
        if let Some(seconds) = applied.confirm_within {
            text += &format!(
                "this is taken back in {seconds} s unless you say: hostctl config confirm\n"
            );
        }
        text
    })
}

fn proposal(args: &ConfigFileArgs) -> Result<ConfigProposal, CtlError> {
    let failed = |source| CtlError::File {
        path: args.file.clone(),
        source,
    };
    let mut text = String::new();
    let read = match args.file == Path::new("-") {
        true => io::stdin().take(MAX_BYTES + 1).read_to_string(&mut text),
        false => File::open(&args.file)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)),
    };
    read.map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(io::Error::other("the file is larger than 1 MiB")));
    }
    Ok(ConfigProposal {
        text,
        drop_in: args.drop_in.clone(),
    })
}

fn show(view: &ConfigView, with_origin: bool) -> String {
    let mut values = Vec::new();
    if let Value::Object(config) = &view.config {
        flatten(config, "", &mut values);
    }
    let built_in = ConfigOrigin {
        layer: "built-in".to_owned(),
        file: None,
        line: None,
    };
    let mut text = match with_origin {
        true => {
            let row = |(field, value): &(String, String)| {
                let origin = view.origins.get(field).unwrap_or(&built_in);
                vec![field.clone(), value.clone(), place(origin)]
            };
            let rows: Vec<Vec<String>> = values.iter().map(row).collect();
            table(&["FIELD", "VALUE", "ORIGIN"], &rows)
        }
        false => {
            let lines = values.iter();
            lines
                .map(|(field, value)| format!("{field} = {value}\n"))
                .collect()
        }
    };
    for wrong in &view.problems {
        let kind = if wrong.warning { "warning" } else { "error" };
        text += &format!("{kind}: {}\n", problem(wrong));
    }
    for notice in &view.notices {
        text += &format!("notice: {notice}\n");
    }
    if let Some(waiting) = &view.waiting {
        text += &format!(
            "waiting: the change of {} is taken back in {} s unless you say: hostctl config confirm\n",
            waiting.file, waiting.seconds_left
        );
    }
    text
}

/// Paths as the machine writes them: keys that TOML wants in quotes have quotes.
fn flatten(table: &Map<String, Value>, at: &str, out: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let key = match !key.is_empty() && key.bytes().all(plain) {
            true => key.clone(),
            false => format!("{key:?}"),
        };
        let path = match at {
            "" => key,
            _ => format!("{at}.{key}"),
        };
        match value {
            Value::Object(inner) => flatten(inner, &path, out),
            value => out.push((path, value.to_string())),
        }
    }
}

fn place(origin: &ConfigOrigin) -> String {
    let mut text = origin.layer.clone();
    if let Some(file) = &origin.file {
        text += &format!(" {file}");
    }
    if let Some(line) = origin.line {
        text += &format!(":{line}");
    }
    text
}

/// `file:line: message: remedy`, the form that editors understand.
fn problem(problem: &ConfigProblem) -> String {
    let mut text = problem.file.clone();
    if let Some(line) = problem.line {
        text += &format!(":{line}");
    }
    text += &format!(": {}", problem.message);
    if !problem.remedy.is_empty() {
        text += &format!(": {}", problem.remedy);
    }
    text
}

fn changes(changes: &[ConfigChange]) -> String {
    if changes.is_empty() {
        return "no value changes\n".to_owned();
    }
    let or_none = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let row = |change: &ConfigChange| {
        let works = match change.effect.as_str() {
            "now" => "at once",
            "restart" => "when hostd restarts",
            _ => "at the next boot",
        };
        vec![
            change.field.clone(),
            or_none(&change.before),
            or_none(&change.after),
            works.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    table(&["FIELD", "BEFORE", "AFTER", "WORKS"], &rows)
}

fn after(notes: &[String], restarting: bool) -> String {
    let mut text: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    if restarting {
        text += "hostd restarts now\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_their_origins() {
        let view = ConfigView {
            config: serde_json::json!({
                "hostname": "a",
                "sysctl": { "vm.swappiness": 10 },
                "time": { "servers": ["b"] },
            }),
            origins: [(
                "sysctl.\"vm.swappiness\"".to_owned(),
                ConfigOrigin {
                    layer: "operator".to_owned(),
                    file: Some("/etc/keelson/host.toml".to_owned()),
                    line: Some(3),
                },
            )]
            .into(),
            layers: Vec::new(),
            problems: Vec::new(),
            notices: vec!["x".to_owned()],
            waiting: None,
        };
        let text = show(&view, true);
        assert!(
            text.contains("\"vm.swappiness\"  10     operator /etc/keelson/host.toml:3\n"),
            "{text}"
        );
        assert!(text.contains("built-in\n"), "{text}");
        assert!(text.ends_with("notice: x\n"), "{text}");
        assert!(show(&view, false).starts_with("hostname = \"a\"\n"));
    }
}

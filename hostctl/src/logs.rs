//! `hostctl logs`.

use std::io::{self, Write};

use keelson_model::logs::{LogBoot, LogForwardState, LogLine, LogPriority, LogsStatus};

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{Format, LogsArgs, LogsCommand, LogsOutput};
use crate::table::table;

const PATH: &str = "/host/v1/logs";

pub(crate) async fn run(
    client: &Client,
    format: Format,
    args: &LogsArgs,
) -> Result<String, CtlError> {
    if let Some(LogsCommand::Status) = args.command {
        let status: LogsStatus = client.get(&format!("{PATH}/status")).await?;
        return crate::render(format, &status, || show_status(&status));
    }
    if args.list_boots {
        let boots: Vec<LogBoot> = client.get(&format!("{PATH}/boots")).await?;
        return crate::render(format, &boots, || show_boots(&boots));
    }
    let output = match (args.output, format) {
        (Some(output), _) => output,
        (None, Format::Table) => LogsOutput::Short,
        (None, Format::Json) => LogsOutput::Json,
    };
    let mut shown = Shown::default();
    let path = format!("{PATH}{}", query(args));
    let mut written = Ok(());
    let read = client.read_lines(&path, |line: LogLine| {
        written = shown.write(&mut io::stdout().lock(), &line, output);
        written.is_ok()
    });
    read.await?;
    match written {
        // Who reads has seen enough: `hostctl logs | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(String::new()),
        Err(source) => Err(CtlError::File {
            path: "standard output".into(),
            source,
        }),
        Ok(()) => Ok(String::new()),
    }
}

/// The query of a request; empty if nothing is chosen.
fn query(args: &LogsArgs) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    if args.follow {
        pairs.push(("follow", "true".to_owned()));
    }
    pairs.extend(args.unit.iter().map(|unit| ("unit", unit.clone())));
    // As with journalctl and `tail`: who follows wants what comes, and a little before.
    let tail = args.tail.as_deref().or(args.follow.then_some("10"));
    let all = [
        ("boot", args.boot.as_deref()),
        ("since", args.since.as_deref()),
        ("until", args.until.as_deref()),
        ("priority", args.priority.as_deref()),
        ("tail", tail.filter(|tail| *tail != "all")),
    ];
    pairs.extend(
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value?.to_owned()))),
    );
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped(value)))
        .collect();
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}

fn escaped(value: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    value
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// Lines for people, with a mark where another boot begins.
#[derive(Debug, Default)]
struct Shown {
    boot: Option<String>,
}

impl Shown {
    fn write(
        &mut self,
        out: &mut impl Write,
        line: &LogLine,
        output: LogsOutput,
    ) -> io::Result<()> {
        match output {
            LogsOutput::Json => {
                serde_json::to_writer(&mut *out, line)?;
                writeln!(out)?;
            }
            LogsOutput::Cat => writeln!(out, "{}", printable(&line.text))?,
            LogsOutput::Short => {
                if self.boot.as_ref().is_some_and(|boot| *boot != line.boot) {
                    writeln!(out, "-- boot {} --", line.boot)?;
                }
                self.boot = Some(line.boot.clone());
                // Milliseconds are enough here.
                let time = line.time.get(..23).unwrap_or(&line.time).replace('T', " ");
                let word = match line.priority {
                    LogPriority::Warning => "warning: ",
                    worse if worse < LogPriority::Warning => "error: ",
                    _ => "",
                };
                let word = if line.continues { "… " } else { word };
                writeln!(out, "{time} {}: {word}{}", line.unit, printable(&line.text))?;
            }
        }
        out.flush()
    }
}

/// A line must not be able to move the cursor of a terminal.
fn printable(text: &str) -> String {
    let control = |c: char| {
        if c.is_control() && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(control).collect()
}

fn show_boots(boots: &[LogBoot]) -> String {
    let rows: Vec<Vec<String>> = boots
        .iter()
        .rev()
        .map(|boot| {
            let LogBoot {
                number,
                boot,
                first,
                last,
                ..
            } = boot;
            vec![
                number.to_string(),
                boot.clone(),
                first.clone(),
                last.clone(),
            ]
        })
        .collect();
    table(&["NUMBER", "BOOT", "FIRST LINE", "LAST LINE"], &rows)
}

fn show_status(status: &LogsStatus) -> String {
    let mut out = format!(
        "directory:  {}\nbytes:      {} of {}\noldest:     {}\nsuppressed: {}\nlost:       {}\n",
        status.directory,
        status.bytes,
        status.max_bytes,
        status.oldest.as_deref().unwrap_or("-"),
        status.suppressed,
        status.lost,
    );
    if let Some(error) = &status.error {
        out += &format!("error:      {error}\n");
    }
    for path in &status.unreadable {
        out += &format!("unreadable: {path}\n");
    }
    let rows: Vec<Vec<String>> = status
        .units
        .iter()
        .map(|unit| {
            let oldest = unit.oldest.clone().unwrap_or_else(|| "-".to_owned());
            vec![unit.unit.clone(), unit.bytes.to_string(), oldest]
        })
        .collect();
    out += "\n";
    out += &table(&["UNIT", "BYTES", "OLDEST LINE"], &rows);
    if status.forward.is_empty() {
        return out;
    }
    let rows: Vec<Vec<String>> = status
        .forward
        .iter()
        .map(|target| {
            let state = match target.state {
                LogForwardState::Connected if target.caught_up => "up to date",
                LogForwardState::Connected => "sending",
                LogForwardState::Connecting => "connecting",
                LogForwardState::Failed => "failed",
            };
            let missed = target
                .missed
                .then_some("lines were removed before they could be sent");
            vec![
                target.name.clone(),
                target.target.clone(),
                state.to_owned(),
                target.since.clone(),
                target.sent.to_string(),
                target.error.as_deref().or(missed).unwrap_or("-").to_owned(),
            ]
        })
        .collect();
    out += "\n";
    out + &table(
        &["FORWARD", "TARGET", "STATE", "SINCE", "SENT", "PROBLEM"],
        &rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(boot: &str, priority: LogPriority, text: &str) -> LogLine {
        LogLine {
            sequence: 1,
            time: "2026-11-30T12:00:00.123456Z".to_owned(),
            uptime: 1.0,
            boot: boot.to_owned(),
            unit: "netcfg".to_owned(),
            priority,
            continues: false,
            text: text.to_owned(),
        }
    }

    #[test]
    fn queries_are_escaped() {
        let args = LogsArgs {
            unit: vec!["a b&c".to_owned()],
            since: Some("2026-11-30 12:00".to_owned()),
            follow: true,
            ..LogsArgs::default()
        };
        assert_eq!(
            query(&args),
            "?follow=true&unit=a%20b%26c&since=2026-11-30%2012:00&tail=10"
        );
        assert_eq!(query(&LogsArgs::default()), "");
        let all = LogsArgs {
            tail: Some("all".to_owned()),
            follow: true,
            ..LogsArgs::default()
        };
        assert_eq!(query(&all), "?follow=true");
    }

    #[test]
    fn lines_are_for_people_and_harmless() {
        let mut shown = Shown::default();
        let mut out = Vec::new();
        for line in [
            line("a", LogPriority::Warning, "x\x1b[2J"),
            line("b", LogPriority::Info, "y"),
        ] {
            shown.write(&mut out, &line, LogsOutput::Short).unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-11-30 12:00:00.123 netcfg: warning: x\u{fffd}[2J\n-- boot b --\n\
             2026-11-30 12:00:00.123 netcfg: y\n"
        );
        let mut out = Vec::new();
        shown
            .write(
                &mut out,
                &line("b", LogPriority::Info, "z"),
                LogsOutput::Json,
            )
            .unwrap();
        let read: LogLine = serde_json::from_slice(&out).unwrap();
        assert_eq!(read.text, "z");
    }
}

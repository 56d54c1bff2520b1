//! `hostctl service`.

use std::io::{self, Write};
use std::time::SystemTime;

use keelson_model::service::{ServiceLogLine, ServiceStatus};

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{Format, ServiceCommand, ServiceLogsArgs};
use crate::table;

const PATH: &str = "/host/v1/services";

pub(crate) async fn run(
    client: &Client,
    format: Format,
    command: &ServiceCommand,
) -> Result<String, CtlError> {
    let (name, word) = match command {
        ServiceCommand::List => {
            let services: Vec<ServiceStatus> = client.get(PATH).await?;
            return crate::render(format, &services, || table::services(&services));
        }
        ServiceCommand::Status(args) => {
            let path = format!("{PATH}/{}", args.name);
            let status: ServiceStatus = client.get(&path).await?;
            return crate::render(format, &status, || table::service(&status));
        }
        ServiceCommand::Logs(args) => return logs(client, format, args).await,
        ServiceCommand::Start(args) => (&args.name, "start"),
        ServiceCommand::Stop(args) => (&args.name, "stop"),
        ServiceCommand::Restart(args) => (&args.name, "restart"),
        ServiceCommand::Enable(args) => (&args.name, "enable"),
        ServiceCommand::Disable(args) => (&args.name, "disable"),
    };
    let status: ServiceStatus = client.post(&format!("{PATH}/{name}/{word}")).await?;
    crate::render(format, &status, || {
        format!("{}: {}\n", status.name, status.state)
    })
}

async fn logs(client: &Client, format: Format, args: &ServiceLogsArgs) -> Result<String, CtlError> {
    let mut path = format!("{PATH}/{}/logs?follow={}", args.name, args.follow);
    if let Some(tail) = args.tail {
        path += &format!("&tail={tail}");
    }
    if let Some(since) = args.since {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let then = now.unwrap_or_default().saturating_sub(since);
        path += &format!("&since={}", then.as_secs());
    }
    // A closed pipe, as of `head`, is a normal end.
    let mut out = io::stdout().lock();
    let show = |line: ServiceLogLine| {
        let shown = match format {
            Format::Json => match serde_json::to_string(&line) {
                Ok(text) => writeln!(out, "{text}"),
                Err(error) => Err(error.into()),
            },
            Format::Table if args.timestamps => writeln!(out, "{} {}", line.time, line.text),
            Format::Table => writeln!(out, "{}", line.text),
        };
        shown.is_ok()
    };
    client.read_lines(&path, show).await?;
    Ok(String::new())
}

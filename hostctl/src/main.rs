//! Management of a Keelson machine from the command line.
//!
//! - `options`: the command line.
//! - `client`: requests to the host API, over its socket or mutual TLS.
//! - `certificate`, `config`, `logs`, `service`, `verify`: the commands with work of their own.
//! - `table`, `picture`, `error`: output, and errors with their exit codes.

mod certificate;
mod client;
mod config;
mod error;
mod logs;
mod options;
mod picture;
mod service;
mod table;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use http::Method;
use keelson_model::host_api::{
    ConfigApplied, ConfigApply, HostStatus, PowerRequest, ProvisionReport, TimeStatus,
};
use keelson_model::init::{InitStatus, PowerAction};
use serde::Serialize;

use crate::client::Client;
use crate::error::CtlError;
use crate::options::{
    Command, Format, IdentityCommand, ImageCommand, Options, PowerCommand, ProvisionCommand,
    StopArgs,
};

fn main() -> ExitCode {
    let options = Options::parse();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CtlError::Runtime)
        .and_then(|runtime| runtime.block_on(run(&options)));
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            match options.format {
                Format::Table => eprintln!("hostctl: {error}"),
                Format::Json => eprintln!("{}", serde_json::json!({"error": error.to_string()})),
            }
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Carries out the command and returns what to print.
async fn run(options: &Options) -> Result<String, CtlError> {
    let client = Client::new(&options.host, options.cert_path.as_deref())?;
    match &options.command {
        Command::Service(command) => service::run(&client, options.format, command).await,
        Command::Status => {
            let status: HostStatus = client.get("/host/v1/status").await?;
            render(options.format, &status, || table::status(&status))
        }
        Command::Boot(args) => {
            let status: InitStatus = client.get("/host/v1/boot").await?;
            match &args.svg {
                Some(file) => draw(file, &status),
                None => render(options.format, &status, || table::boot(&status)),
            }
        }
        Command::Provision(ProvisionCommand::Status) => {
            let status: ProvisionReport = client.get("/host/v1/provision").await?;
            render(options.format, &status, || table::provisioning(&status))
        }
        Command::Time => {
            let time: TimeStatus = client.get("/host/v1/time").await?;
            render(options.format, &time, || table::time(&time))
        }
        Command::Hostname { name } => hostname(&client, options.format, name.as_deref()).await,
        Command::Poweroff(stop) => power(&client, options, PowerAction::Poweroff, stop).await,
        Command::Reboot(args) => power(&client, options, args.action(), &args.stop).await,
        Command::Halt(stop) => power(&client, options, PowerAction::Halt, stop).await,
        Command::Power(PowerCommand::Off(stop)) => {
            power(&client, options, PowerAction::Poweroff, stop).await
        }
        Command::Power(PowerCommand::Reboot(args)) => {
            power(&client, options, args.action(), &args.stop).await
        }
        Command::Power(PowerCommand::Halt(stop)) => {
            power(&client, options, PowerAction::Halt, stop).await
        }
        Command::Identity(IdentityCommand::Reset) => {
            let path = "/host/v1/identity/reset";
            let nothing = serde_json::json!({});
            let answer: serde_json::Value = client.send(Method::POST, path, &nothing).await?;
            render(options.format, &answer, || {
                "The machine gets a new identity when it starts the next time.\n".to_owned()
            })
        }
        Command::Config(command) => config::run(&client, options.format, command).await,
        Command::Logs(args) => logs::run(&client, options.format, args).await,
        Command::Certificate(command) => certificate::run(&client, options.format, command).await,
        Command::Image(ImageCommand::Verify(args)) => {
            verify::run(&client, options.format, &args.images).await
        }
    }
}

/// Writes the picture of a boot.
fn draw(file: &Path, status: &InitStatus) -> Result<String, CtlError> {
    let deployment = status.deployment.as_deref().unwrap_or("no deployment");
    let picture = picture::svg(&status.boot, &format!("Boot of {deployment}"));
    if file == Path::new("-") {
        return Ok(picture);
    }
    std::fs::write(file, picture).map_err(|source| CtlError::File {
        path: file.to_owned(),
        source,
    })?;
    Ok(String::new())
}

/// Shows the machine's name, or changes it by a drop-in of the configuration.
async fn hostname(client: &Client, format: Format, name: Option<&str>) -> Result<String, CtlError> {
    if let Some(name) = name {
        let request = ConfigApply {
            // Written as JSON writes it, which TOML reads.
            text: format!("hostname = {}\n", serde_json::json!(name)),
            drop_in: Some("90-hostname".to_owned()),
            confirm_within: Some(0),
            restart: false,
        };
        let path = "/host/v1/config/apply";
        let _: ConfigApplied = client.send(Method::POST, path, &request).await?;
    }
    let status: HostStatus = client.get("/host/v1/status").await?;
    render(format, &status.hostname, || status.hostname.clone() + "\n")
}

async fn power(
    client: &Client,
    options: &Options,
    action: PowerAction,
    stop: &StopArgs,
) -> Result<String, CtlError> {
    let force = stop.force;
    let answer: serde_json::Value = client
        .send(
            Method::POST,
            "/host/v1/power",
            &PowerRequest { action, force },
        )
        .await?;
    render(options.format, &answer, String::new)
}

fn render<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce() -> String,
) -> Result<String, CtlError> {
    match format {
        Format::Table => Ok(table()),
        Format::Json => serde_json::to_string_pretty(value)
            .map(|text| text + "\n")
            .map_err(CtlError::Answer),
    }
}

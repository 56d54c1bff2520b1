//! `GET /containers/{id}/json`.

use hostd_containers::{Snapshot, Status, shown_profile};
use http::{Response, StatusCode};
use keelson_model::spec::LogSpec;
use serde_json::{Value, json};

use super::{health, mounts, network, sizes};
use crate::error::ApiError;
use crate::offers::STORAGE_DRIVER;
use crate::places::Kind;
use crate::reply::{self, Body};
use crate::request::shown;
use crate::version::ApiVersion;
use crate::{Api, Call, times};

pub(crate) async fn inspect(api: &Api, call: Call) -> Result<Response<Body>, ApiError> {
    let snapshot = api.containers().inspect(&call.name)?;
    let mut answer = render(api, &snapshot, call.version)?;
    let execs = api.0.engine.exec_ids(&snapshot.id);
    if let Some(ids) = answer.get_mut("ExecIDs")
        && !execs.is_empty()
    {
        *ids = json!(execs);
    }
    // The image may have been removed by force.
    if let Ok(image) = api.0.images.resolve(snapshot.image_id())
        && let Some(members) = answer.as_object_mut()
    {
        members.insert("Platform".to_owned(), json!(image.config.os));
        if call.version >= ApiVersion::new(1, 48)
            && let Some(descriptor) = crate::images::manifest::descriptor(api, &image)
        {
            members.insert("ImageManifestDescriptor".to_owned(), descriptor);
        }
    }
    if call.query.flag("size")
        && let Some(members) = answer.as_object_mut()
    {
        let _place = api.place(Kind::Survey, call.role).await?;
        let (written, whole) = sizes(api, &snapshot).await?;
        members.insert("SizeRw".to_owned(), json!(written));
        members.insert("SizeRootFs".to_owned(), json!(whole));
    }
    Ok(reply::json(StatusCode::OK, &answer))
}

fn render(api: &Api, snapshot: &Snapshot, version: ApiVersion) -> Result<Value, ApiError> {
    let file = |name: &str| snapshot.directory.join(name).display().to_string();
    let own_file = |name: &str| snapshot.files().join(name).display().to_string();
    let process = &snapshot.spec.process;
    Ok(json!({
        "Id": snapshot.id,
        "Created": snapshot.created.to_string(),
        "Path": process.command,
        "Args": process.args,
        "State": state(snapshot),
        "Image": snapshot.image_id(),
        "ResolvConfPath": own_file("resolv.conf"),
        "HostnamePath": own_file("hostname"),
        "HostsPath": own_file("hosts"),
        "LogPath": match &snapshot.spec.log {
            LogSpec::Nowhere => String::new(),
            LogSpec::Files { .. } | LogSpec::Syslog { .. } => snapshot.log_path.display().to_string(),
        },
        "Name": format!("/{}", snapshot.name),
        "RestartCount": snapshot.state.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": shown_profile(&snapshot.spec.security, &api.0.engine.facts().apparmor),
        "ExecIDs": null,
        "HostConfig": shown::host_config(snapshot)?,
        "GraphDriver": {"Name": STORAGE_DRIVER, "Data": {"UpperDir": file("upper")}},
        "Mounts": mounts(api, snapshot)?,
        "Config": shown::config(snapshot)?,
        "NetworkSettings": network::settings(api, snapshot, version),
    }))
}

fn state(snapshot: &Snapshot) -> Value {
    let state = &snapshot.state;
    let mut answer = json!({
        "Status": state.status.as_str(),
        // In Docker a paused container is also running.
        "Running": state.status.counts_as_running(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": times::rfc3339(state.started_at),
        "FinishedAt": times::rfc3339(state.finished_at),
    });
    // Without a check the member is absent.
    if let Some(health) = health::render(snapshot)
        && let Some(members) = answer.as_object_mut()
    {
        members.insert("Health".to_owned(), health);
    }
    answer
}

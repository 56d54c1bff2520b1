//! Reads configurations. Members that only inform people may be missing, `null` or of another type.

use std::collections::BTreeMap;

use keelson_model::json::{self, JsonError, lenient, lenient_list, some_strings};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ContainerDefaults, History, ImageConfig, RootFs};
use crate::digest::Digest;

#[derive(Deserialize)]
struct Document {
    #[serde(default, deserialize_with = "lenient")]
    created: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    author: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    os: String,
    #[serde(default, rename = "os.version", deserialize_with = "lenient")]
    os_version: Option<String>,
    #[serde(default)]
    config: Defaults,
    rootfs: Layers,
    #[serde(default, deserialize_with = "lenient_list")]
    history: Vec<Step>,
    #[serde(default, rename = "$rest")]
    other: Map<String, Value>,
}

#[derive(Deserialize)]
struct Layers {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    #[serde(deserialize_with = "lenient")]
    created: Option<String>,
    #[serde(deserialize_with = "lenient")]
    created_by: Option<String>,
    #[serde(deserialize_with = "lenient")]
    author: Option<String>,
    #[serde(deserialize_with = "lenient")]
    comment: Option<String>,
    #[serde(deserialize_with = "lenient")]
    empty_layer: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Defaults {
    user: String,
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    #[serde(deserialize_with = "some_strings")]
    entrypoint: Option<Vec<String>>,
    #[serde(deserialize_with = "some_strings")]
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: String,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Value>,
    #[serde(deserialize_with = "lenient")]
    on_build: Option<Vec<String>>,
    #[serde(deserialize_with = "some_strings")]
    shell: Option<Vec<String>>,
    #[serde(rename = "$rest")]
    other: Map<String, Value>,
}

/// Reads a configuration. Its values are not checked yet.
pub(super) fn config(bytes: &[u8]) -> Result<ImageConfig, JsonError> {
    let read: Document = json::from_slice(bytes)?;
    let text = |text: Option<String>| text.filter(|text| !text.is_empty());
    let history = read.history.into_iter().map(|step| History {
        created: text(step.created),
        created_by: step.created_by,
        author: step.author,
        comment: step.comment,
        empty_layer: step.empty_layer,
    });
    Ok(ImageConfig {
        created: text(read.created),
        author: read.author,
        architecture: read.architecture,
        variant: text(read.variant),
        os: read.os,
        os_version: text(read.os_version),
        config: defaults(read.config),
        rootfs: RootFs {
            kind: read.rootfs.kind,
            diff_ids: read.rootfs.diff_ids,
        },
        history: history.collect(),
        other: read.other,
    })
}

fn defaults(read: Defaults) -> ContainerDefaults {
    let env = read.env.map(|mut env| {
        // `null` among them, which says nothing.
        env.retain(|variable| !variable.is_empty());
        env
    });
    ContainerDefaults {
        user: read.user,
        exposed_ports: read.exposed_ports,
        env,
        entrypoint: read.entrypoint,
        cmd: read.cmd,
        volumes: read.volumes,
        working_dir: read.working_dir,
        labels: read.labels,
        stop_signal: read.stop_signal.filter(|signal| !signal.is_empty()),
        healthcheck: read.healthcheck,
        on_build: read.on_build,
        shell: read.shell,
        other: read.other,
    }
}

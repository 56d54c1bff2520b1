//! What the stores report, in the words of Docker's events.

use std::collections::BTreeMap;

use hostd_containers::{ContainerAction, ContainerEvent, HealthStatus};
use hostd_images::{ImageAction, ImageEvent};
use hostd_networks::{NetworkAction, NetworkEvent};
use hostd_volumes::{VolumeAction, VolumeEvent};

use super::{Event, without_tag};

/// Attributes by name.
type Attributes = Vec<(&'static str, String)>;

/// Adds attributes. They replace labels of the same name.
fn add(attributes: &mut BTreeMap<String, String>, more: Attributes) {
    let more = more.into_iter();
    attributes.extend(more.map(|(name, value)| (name.to_owned(), value)));
}

impl From<ContainerEvent> for Event {
    fn from(event: ContainerEvent) -> Self {
        let mut attributes = event.labels;
        if !event.id.is_empty() {
            add(
                &mut attributes,
                vec![("image", event.image), ("name", event.name)],
            );
        }
        let (action, more) = of_container(event.action);
        add(&mut attributes, more);
        Self::new("container", action, event.id, attributes, event.time)
    }
}

/// The word for what happened to a container, and its attributes.
fn of_container(action: ContainerAction) -> (String, Attributes) {
    let plain = |word: &str| (word.to_owned(), Vec::new());
    match action {
        ContainerAction::Create => plain("create"),
        ContainerAction::Start => plain("start"),
        ContainerAction::Restart => plain("restart"),
        ContainerAction::OutOfMemory => plain("oom"),
        ContainerAction::Die { code, seconds } => (
            "die".to_owned(),
            vec![
                ("exitCode", code.to_string()),
                ("execDuration", seconds.to_string()),
            ],
        ),
        ContainerAction::Kill(signal) => {
            let number = signal.number().to_string();
            ("kill".to_owned(), vec![("signal", number)])
        }
        ContainerAction::Stop => plain("stop"),
        ContainerAction::Pause => plain("pause"),
        ContainerAction::Unpause => plain("unpause"),
        ContainerAction::Destroy => plain("destroy"),
        ContainerAction::Health(HealthStatus::Starting) => plain("health_status: starting"),
        ContainerAction::Health(HealthStatus::Healthy) => plain("health_status: healthy"),
        ContainerAction::Health(HealthStatus::Unhealthy) => plain("health_status: unhealthy"),
        ContainerAction::Rename { former } => {
            let former = format!("/{former}");
            ("rename".to_owned(), vec![("oldName", former)])
        }
        ContainerAction::Resize { rows, columns } => (
            "resize".to_owned(),
            vec![("height", rows.to_string()), ("width", columns.to_string())],
        ),
        ContainerAction::Update => plain("update"),
        ContainerAction::Attach => plain("attach"),
        ContainerAction::Export => plain("export"),
        ContainerAction::Commit {
            comment,
            image,
            reference,
        } => (
            "commit".to_owned(),
            vec![
                ("comment", comment),
                ("imageID", image),
                ("imageRef", reference),
            ],
        ),
        ContainerAction::CopyOut => plain("archive-path"),
        ContainerAction::CopyIn => plain("extract-to-dir"),
        ContainerAction::ExecCreate { exec, command } => {
            (format!("exec_create: {command}"), vec![("execID", exec)])
        }
        ContainerAction::ExecStart { exec, command } => {
            (format!("exec_start: {command}"), vec![("execID", exec)])
        }
        ContainerAction::ExecDie { exec, code } => (
            "exec_die".to_owned(),
            vec![("execID", exec), ("exitCode", code.to_string())],
        ),
        ContainerAction::ExecDetach { exec } => ("exec_detach".to_owned(), vec![("execID", exec)]),
        ContainerAction::Prune { reclaimed } => {
            let bytes = reclaimed.to_string();
            ("prune".to_owned(), vec![("reclaimed", bytes)])
        }
    }
}

impl From<ImageEvent> for Event {
    fn from(event: ImageEvent) -> Self {
        let mut attributes: BTreeMap<_, _> = event.labels.into_iter().collect();
        let remote = matches!(event.action, ImageAction::Pull | ImageAction::Push);
        // Pulls and pushes name the image as the registry does.
        let (id, name) = match (remote, event.id) {
            (true, _) => (event.name.clone(), without_tag(&event.name).to_owned()),
            (false, id) => (id.map(|id| id.to_string()).unwrap_or_default(), event.name),
        };
        if !name.is_empty() {
            add(&mut attributes, vec![("name", name)]);
        }
        if let Some(bytes) = event.reclaimed {
            add(&mut attributes, vec![("reclaimed", bytes.to_string())]);
        }
        let action = of_image(event.action).to_owned();
        Self::new("image", action, id, attributes, event.time)
    }
}

/// The word for what happened to an image.
const fn of_image(action: ImageAction) -> &'static str {
    match action {
        ImageAction::Load => "load",
        ImageAction::Pull => "pull",
        ImageAction::Push => "push",
        ImageAction::Import => "import",
        ImageAction::Commit => "commit",
        ImageAction::Save => "save",
        ImageAction::Prune => "prune",
        ImageAction::Tag => "tag",
        ImageAction::Untag => "untag",
        ImageAction::Delete => "delete",
    }
}

impl From<VolumeEvent> for Event {
    fn from(event: VolumeEvent) -> Self {
        let mut attributes = BTreeMap::new();
        if !event.name.is_empty() {
            add(&mut attributes, vec![("driver", event.driver)]);
        }
        let (action, more) = match event.action {
            VolumeAction::Create => ("create", Vec::new()),
            VolumeAction::Mount {
                container,
                destination,
                writable,
                propagation,
            } => (
                "mount",
                vec![
                    ("container", container),
                    ("destination", destination),
                    ("propagation", propagation),
                    ("read/write", writable.to_string()),
                ],
            ),
            VolumeAction::Unmount { container } => ("unmount", vec![("container", container)]),
            VolumeAction::Destroy => ("destroy", Vec::new()),
            VolumeAction::Prune { reclaimed } => {
                ("prune", vec![("reclaimed", reclaimed.to_string())])
            }
        };
        add(&mut attributes, more);
        Self::new(
            "volume",
            action.to_owned(),
            event.name,
            attributes,
            event.time,
        )
    }
}

impl From<NetworkEvent> for Event {
    fn from(event: NetworkEvent) -> Self {
        let mut attributes = BTreeMap::new();
        if !event.id.is_empty() {
            let driver = event.driver.to_owned();
            add(
                &mut attributes,
                vec![("name", event.name), ("type", driver)],
            );
        }
        let (action, more) = match event.action {
            NetworkAction::Create => ("create", Vec::new()),
            NetworkAction::Connect { container } => ("connect", vec![("container", container)]),
            NetworkAction::Disconnect { container } => {
                ("disconnect", vec![("container", container)])
            }
            NetworkAction::Destroy => ("destroy", Vec::new()),
            // Networks take no room on the disk.
            NetworkAction::Prune => ("prune", vec![("reclaimed", "0".to_owned())]),
        };
        add(&mut attributes, more);
        Self::new(
            "network",
            action.to_owned(),
            event.id,
            attributes,
            event.time,
        )
    }
}

#[cfg(test)]
mod tests {
    use hostd_containers::Scope;
    use serde_json::json;

    use super::*;

    fn of(action: ContainerAction) -> serde_json::Value {
        let event = Event::from(ContainerEvent {
            scope: Scope::User,
            action,
            id: "abc".to_owned(),
            name: "web".to_owned(),
            image: "busybox".to_owned(),
            labels: [("name", "hidden"), ("tier", "front")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            time: 7,
        });
        serde_json::to_value(&event).unwrap()
    }

    #[test]
    fn containers_have_events() {
        let shown = of(ContainerAction::Die {
            code: 3,
            seconds: 9,
        });
        assert_eq!(
            (&shown["Type"], &shown["Action"]),
            (&json!("container"), &json!("die"))
        );
        assert_eq!(shown["from"], "busybox");
        assert_eq!(
            shown["Actor"]["Attributes"],
            json!({
                "image": "busybox", "name": "web", "tier": "front",
                "exitCode": "3", "execDuration": "9",
            })
        );
        let exec = "e1".to_owned();
        let command = "sh -c true".to_owned();
        let shown = of(ContainerAction::ExecStart { exec, command });
        assert_eq!(shown["Action"], "exec_start: sh -c true");
        assert_eq!(shown["Actor"]["Attributes"]["execID"], "e1");
        let shown = of(ContainerAction::Rename {
            former: "old".to_owned(),
        });
        assert_eq!(shown["Actor"]["Attributes"]["oldName"], "/old");
    }

    #[test]
    fn networks_have_events() {
        let event = Event::from(NetworkEvent {
            action: NetworkAction::Connect {
                container: "c1".to_owned(),
            },
            id: "abc".to_owned(),
            name: "front".to_owned(),
            driver: "bridge",
            time: 7,
        });
        let shown = serde_json::to_value(&event).unwrap();
        assert_eq!(shown["Type"], "network");
        assert_eq!(shown["Action"], "connect");
        assert_eq!(shown["Actor"]["ID"], "abc");
        assert_eq!(
            shown["Actor"]["Attributes"],
            json!({"container": "c1", "name": "front", "type": "bridge"})
        );
    }

    #[test]
    fn a_prune_belongs_to_no_single_object() {
        let event = Event::from(VolumeEvent {
            action: VolumeAction::Prune { reclaimed: 5 },
            name: String::new(),
            driver: String::new(),
            time: 7,
        });
        let shown = serde_json::to_value(&event).unwrap();
        assert_eq!(
            shown["Actor"],
            json!({"ID": "", "Attributes": {"reclaimed": "5"}})
        );
    }
}

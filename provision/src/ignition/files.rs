//! `storage`.

use super::IgnitionError;
use super::source;
use crate::fields::Fields;
use crate::notes::Notes;
use crate::paths;
use crate::resources::Resources;
use crate::settings::{File, Settings};
use crate::yaml::YamlNode;

const DISKS: &str = "disks are configured in host.toml";

/// Takes `storage`.
pub(super) fn translate(
    node: &YamlNode,
    settings: &mut Settings,
    notes: &mut Notes,
    resources: &mut dyn Resources,
) -> Result<(), IgnitionError> {
    let mut storage = Fields::of(node, "storage", notes);
    for entry in storage.list("files", notes) {
        file(entry, settings, notes, resources)?;
    }
    for entry in storage.list("directories", notes) {
        let path = entry
            .get("path")
            .and_then(YamlNode::text)
            .unwrap_or_default();
        // Directories of files are made by themselves.
        let below = format!("{}/", path.trim_end_matches('/'));
        let placed = paths::placed(&format!("{below}x")).unwrap_or_default();
        let needed = settings.file.iter().any(|file| {
            file.path
                .starts_with(placed.strip_suffix('x').unwrap_or("\0"))
        });
        if !needed {
            unsupported(
                "directory",
                entry,
                path,
                "it is made with the first file in it",
                notes,
            );
        }
    }
    for entry in storage.list("links", notes) {
        let path = entry
            .get("path")
            .and_then(YamlNode::text)
            .unwrap_or_default();
        unsupported("link", entry, path, "write a file", notes);
    }
    storage.unsupported(
        &[
            ("disks", DISKS),
            ("raid", DISKS),
            ("filesystems", DISKS),
            ("luks", DISKS),
        ],
        notes,
    );
    storage.finish(notes);
    Ok(())
}

fn unsupported(kind: &str, node: &YamlNode, path: &str, remedy: &str, notes: &mut Notes) {
    let path: String = path.chars().take(200).collect();
    notes.at(
        node.line,
        format!("{kind} {path:?} is not supported: {remedy}"),
    );
}

fn file(
    node: &YamlNode,
    settings: &mut Settings,
    notes: &mut Notes,
    resources: &mut dyn Resources,
) -> Result<(), IgnitionError> {
    let mut fields = Fields::of(node, "storage.files[]", notes);
    let path = fields.text("path", notes).unwrap_or_default();
    let shown: String = path.chars().take(200).collect();
    // The file exists already: only new files are made.
    fields.ignore(&["overwrite"]);
    let mode: Option<u32> = fields.number("mode", notes);
    let owner = owner(&mut fields, notes);
    let mut bodies = Vec::new();
    if let Some(contents) = fields.take("contents") {
        bodies.push((contents, false));
    }
    for part in fields.list("append", notes) {
        bodies.push((part, true));
    }
    fields.finish(notes);
    let hostname = path == "/etc/hostname";
    let place = match paths::placed(path) {
        Ok(place) => place,
        Err(error) => {
            notes.at(node.line, format!("file {shown:?} is left out: {error}"));
            return Ok(());
        }
    };
    for (body, append) in bodies {
        let bytes = match source::read(body, resources) {
            Ok(bytes) => bytes,
            Err(error) if source::later(&error) => return Err(error),
            Err(error) => {
                notes.at(node.line, format!("file {shown:?} is left out: {error}"));
                return Ok(());
            }
        };
        if hostname {
            settings.name(String::from_utf8_lossy(&bytes).trim());
            continue;
        }
        // A configuration that is merged says what it wants changed.
        let before = settings.file.iter().find(|file| file.path == place);
        let mode = mode
            .filter(|mode| *mode <= 0o7777)
            .map(|mode| format!("{mode:04o}"));
        let mode = mode.or_else(|| before?.mode.clone());
        let owner = owner.clone().or_else(|| before?.owner.clone());
        settings.write(File {
            mode,
            owner,
            append,
            ..File::of_bytes(place.clone(), bytes)
        });
    }
    Ok(())
}

/// `user` and `group`, by name or number.
fn owner(fields: &mut Fields<'_>, notes: &mut Notes) -> Option<String> {
    let mut who = |name: &str| -> Option<String> {
        let node = fields.take(name)?;
        let mut fields = Fields::of(node, name, notes);
        let text = fields.text("name", notes);
        let text = text.or(fields.text("id", notes));
        fields.finish(notes);
        text.map(str::to_owned)
    };
    let user = who("user");
    let group = who("group");
    match (user, group) {
        (None, None) => None,
        (user, None) => user,
        (user, Some(group)) => Some(format!("{}:{group}", user.as_deref().unwrap_or("root"))),
    }
}

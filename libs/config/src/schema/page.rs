//! Renders `docs/configuration.md`.

use std::fmt::Write as _;

use super::{Effect, EntryShape, SchemaEntry, effect, entries, is_not_built};

/// The whole page.
#[must_use]
pub fn page() -> String {
    let mut out = include_str!("before.md").to_owned();
    heading(&mut out, "", "", "");
    for entry in entries() {
        if let EntryShape::Table { before, after } = entry.shape {
            heading(&mut out, entry.path, before, after);
        }
    }
    out.push_str(include_str!("after.md"));
    out
}

/// The heading of a table, and the rows of its own keys.
fn heading(out: &mut String, path: &str, before: &str, after: &str) {
    let rows: Vec<_> = entries().filter(|entry| is_row_of(entry, path)).collect();
    if rows.is_empty() && before.is_empty() {
        return;
    }
    if !path.is_empty() {
        let name = match path.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{path}]"),
        };
        let _ = writeln!(out, "### `{name}`\n");
        if is_not_built(path) {
            let _ = writeln!(
                out,
                "Not built yet: it is checked and reported, and nothing else.\n"
            );
        }
        if !before.is_empty() {
            let _ = writeln!(out, "{before}\n");
        }
    }
    if !rows.is_empty() {
        out.push_str(
            "| key | type | default | meaning | a change works |\n|---|---|---|---|---|\n",
        );
        for entry in rows {
            row(out, path, entry);
        }
        out.push('\n');
    }
    if !after.is_empty() {
        let _ = writeln!(out, "{after}\n");
    }
}

fn is_row_of(entry: &SchemaEntry, table: &str) -> bool {
    let parent = entry.path.rsplit_once('.').map_or("", |(parent, _)| parent);
    matches!(entry.shape, EntryShape::Key { .. }) && parent == table
}

fn row(out: &mut String, table: &str, entry: &SchemaEntry) {
    let EntryShape::Key {
        kind,
        default,
        meaning,
    } = entry.shape
    else {
        return;
    };
    let name = entry
        .path
        .rsplit_once('.')
        .map_or(entry.path, |(_, name)| name);
    let works = match effect(entry.path) {
        _ if is_not_built(entry.path) && !is_not_built(table) => "not built yet",
        _ if is_not_built(entry.path) => "–",
        Effect::Now => "at once",
        Effect::Restart => "when hostd restarts",
        Effect::Boot => "at the next boot",
    };
    let _ = writeln!(
        out,
        "| `{name}` | {kind} | {default} | {meaning} | {works} |"
    );
}

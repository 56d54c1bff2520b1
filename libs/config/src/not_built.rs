//! Finds members that are described but that nothing carries out yet.

use toml::{Table, Value};

use crate::layer::Layer;
use crate::problem::Problem;
use crate::{path, schema};

/// A warning for each such member of a layer.
pub(crate) fn warnings(layer: &Layer) -> Vec<Problem> {
    let mut fields = Vec::new();
    search(&layer.table, "", &mut fields);
    let warning = |field: String| {
        let line = layer
            .lines
            .iter()
            .filter(|(known, _)| path::is_within(&field, known) || path::is_within(known, &field))
            .map(|(_, line)| *line)
            .min();
        Problem {
            file: layer.file.clone(),
            line,
            column: None,
            message: format!("field {field} is not built yet"),
            remedy: "leave it out: it has no effect".to_owned(),
            field,
            warning: true,
            unknown_field: false,
        }
    };
    fields.into_iter().map(warning).collect()
}

fn search(table: &Table, at: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        look_at(value, path::join(at, key), found);
    }
}

fn look_at(value: &Value, path: String, found: &mut Vec<String>) {
    let nothing = value.as_array().is_some_and(Vec::is_empty);
    if schema::is_not_built(&path) && !nothing {
        found.push(path);
        return;
    }
    match value {
        Value::Table(table) => search(table, &path, found),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look_at(item, format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

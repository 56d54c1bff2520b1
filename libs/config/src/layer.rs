//! One file: bytes → checked table, or a list of problems with their places.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use keelson_model::host::MachineConfig;
use toml::Table;
use toml::de::{DeTable, DeValue};

use crate::path;
use crate::problem::Problem;
use crate::schema;
use crate::validate::{self, Fault};

/// Largest file that is read, in bytes.
pub const MAX_LAYER_BYTES: usize = 1 << 20;

/// A file without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Where it came from.
    pub file: PathBuf,
    /// The members of the file only: defaults are not filled in.
    pub table: Table,
    /// The line of each value, by its path. A list is one value.
    pub lines: BTreeMap<String, usize>,
}

/// Parses and checks one file.
///
/// # Errors
/// All faults that could be found. A file that is not TOML, or whose types are wrong, yields
/// the first one; otherwise every field with a wrong value yields one.
pub fn parse(bytes: &[u8], file: &Path) -> Result<Layer, Vec<Problem>> {
    if bytes.len() > MAX_LAYER_BYTES {
        return Err(vec![Problem::of_file(
            file,
            format!("the file has {} bytes", bytes.len()),
            "keep it below 1 MiB",
        )]);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let text = String::from_utf8_lossy(valid);
            let place = Place::of(&text, text.len());
            return Err(vec![place.problem(
                file,
                String::new(),
                "the file is not UTF-8 text".to_owned(),
                "save it as UTF-8".to_owned(),
            )]);
        }
    };
    let tree = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        vec![Place::of(text, offset).problem(
            file,
            String::new(),
            format!("not valid TOML: {}", one_line(error.message())),
            "correct the syntax, see https://toml.io".to_owned(),
        )]
    })?;
    let config: MachineConfig = toml::from_str(text)
        .map_err(|error| vec![type_problem(text, file, tree.get_ref(), &error)])?;
    let faults = validate::check(&config);
    if !faults.is_empty() {
        return Err(faults
            .into_iter()
            .map(|fault| fault_problem(text, file, tree.get_ref(), fault))
            .collect());
    }
    match toml::from_str::<Table>(text) {
        Ok(table) => Ok(Layer {
            file: file.to_owned(),
            table,
            lines: lines(text, tree.get_ref()),
        }),
        Err(error) => Err(vec![type_problem(text, file, tree.get_ref(), &error)]),
    }
}

/// A problem from an error of the deserialiser: unknown fields and wrong types.
fn type_problem(text: &str, file: &Path, tree: &DeTable<'_>, error: &toml::de::Error) -> Problem {
    let span = error.span().unwrap_or(0..0);
    let place = Place::of(text, span.start);
    let field = field_at(tree, &span);
    let message = one_line(error.message());
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let (true, Some((name, known))) =
        (message.starts_with("unknown field"), quoted.split_first())
    {
        let (table, path) = match field.rsplit_once('.') {
            Some((table, _)) => (table, field.clone()),
            None => ("", (*name).to_owned()),
        };
        let remedy = match schema::nearest(name, known) {
            Some(near) => format!("did you mean \"{near}\"? known here: {}", known.join(", ")),
            None => format!("known here: {}", known.join(", ")),
        };
        let message = format!("unknown field \"{name}\" in {}", schema::table_name(table));
        return Problem {
            unknown_field: true,
            ..place.problem(file, path, message, remedy)
        };
    }
    if let (true, Some(name)) = (message.starts_with("missing field"), quoted.first()) {
        let table = schema::table_name(&field);
        let path = format!("{field}.{name}");
        let remedy = schema::remedy(&path).to_owned();
        return place.problem(
            file,
            path,
            format!("field \"{name}\" is missing in {table}"),
            remedy,
        );
    }
    let remedy = schema::remedy(&field).to_owned();
    let message = if field.is_empty() {
        message
    } else if schema::is_secret(&field) {
        format!("field {field} is wrong: its type is another")
    } else {
        format!("field {field} is wrong: {message}")
    };
    place.problem(file, field, message, remedy)
}

/// A problem from a value that has the right type but is not valid.
fn fault_problem(text: &str, file: &Path, tree: &DeTable<'_>, fault: Fault) -> Problem {
    let offset = span_of(tree, &fault.field).map_or(0, |span| span.start);
    let remedy = match fault.remedy {
        Some(remedy) => remedy,
        None => schema::remedy(&fault.field).to_owned(),
    };
    Place::of(text, offset).problem(
        file,
        fault.field.clone(),
        format!("field {} is wrong: {}", fault.field, fault.message),
        remedy,
    )
}

/// The path of the innermost key or value whose place in the text holds `wanted`.
fn field_at(tree: &DeTable<'_>, wanted: &Range<usize>) -> String {
    let holds = |span: &Range<usize>| span.start <= wanted.start && wanted.end <= span.end;
    let mut best = (usize::MAX, String::new());
    let mut note = |span: &Range<usize>, path: &str| {
        let size = span.len();
        // `<=`: the range of a list contains those of its values, and the later range is the inner
        // one.
        if holds(span) && size <= best.0 {
            best = (size, path.to_owned());
        }
    };
    walk_table(tree, "", &mut note);
    best.1
}

/// The place of the value of `field`. If the file does not have the field, the place of the nearest
/// enclosing field.
fn span_of(tree: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    let mut best: Option<(usize, Range<usize>)> = None;
    walk_table(tree, "", &mut |span, path| {
        if path::is_within(field, path)
            && best
                .as_ref()
                .is_none_or(|(length, _)| *length <= path.len())
        {
            best = Some((path.len(), span.clone()));
        }
    });
    best.map(|(_, span)| span)
}

/// The line of each value that is no table.
fn lines(text: &str, tree: &DeTable<'_>) -> BTreeMap<String, usize> {
    let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let mut lines = BTreeMap::new();
    note_lines(tree, "", &starts, &mut lines);
    lines
}

fn note_lines(
    table: &DeTable<'_>,
    at: &str,
    starts: &[usize],
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let path = path::join(at, key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => note_lines(inner, &path, starts, lines),
            _ => {
                let before = starts.partition_point(|newline| *newline < key.span().start);
                lines.insert(path, before + 1);
            }
        }
    }
}

/// Calls `note` for each key and each value with its path, outer ones first.
fn walk_table(table: &DeTable<'_>, path: &str, note: &mut impl FnMut(&Range<usize>, &str)) {
    for (key, value) in table {
        let path = path::join(path, key.get_ref());
        note(&key.span(), &path);
        note(&value.span(), &path);
        walk_value(value.get_ref(), &path, note);
    }
}

fn walk_value(value: &DeValue<'_>, path: &str, note: &mut impl FnMut(&Range<usize>, &str)) {
    match value {
        DeValue::Table(table) => walk_table(table, path, note),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                note(&item.span(), &path);
                walk_value(item.get_ref(), &path, note);
            }
        }
        _ => {}
    }
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        let mut end = offset.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = text.get(..end).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }

    fn problem(self, file: &Path, field: String, message: String, remedy: String) -> Problem {
        Problem {
            file: file.to_owned(),
            line: Some(self.line),
            column: Some(self.column),
            field,
            message,
            remedy,
            warning: false,
            unknown_field: false,
        }
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

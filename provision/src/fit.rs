//! Leaves out of a layer what the schema of `host.toml` can't say (yet), so that the rest has
//! effect: a layer with a fault would be left out whole.

use std::path::Path;

use toml::{Table, Value};

use crate::notes::Notes;

/// Most members that are left out one after another.
const MOST: usize = 200;

/// Returns what the schema takes of `table`. Each member that it does not take is a warning.
pub(crate) fn to_schema(mut table: Table, notes: &mut Notes) -> Table {
    for _ in 0..MOST {
        let Ok(text) = toml::to_string(&table) else {
            notes.say("the layer can't be written as TOML and is left out");
            return Table::new();
        };
        let Err(problems) = keelson_config::parse(text.as_bytes(), Path::new("host.toml")) else {
            return table;
        };
        let Some(problem) = problems.first() else {
            return table;
        };
        let path = steps(&problem.field);
        // A name that is unknown in one entry of a list is unknown in all of them.
        let everywhere = problem.unknown_field;
        if path.is_empty() || !remove(&mut table, &path, everywhere) {
            notes.say(format!("the layer is left out: {problem}"));
            return Table::new();
        }
        let what = match everywhere {
            true => "this release has no such setting".to_owned(),
            false => format!("{}: {}", problem.message, problem.remedy),
        };
        notes.say(format!("{} is left out: {what}", problem.field));
    }
    notes.say("the layer has too many faults and is left out");
    Table::new()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// `network.link[0].mac` in steps.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (key, indexes) = part.split_once('[').unwrap_or((part, ""));
        steps.push(Step::Key(key.to_owned()));
        for index in indexes.split('[') {
            if let Ok(index) = index.trim_end_matches(']').parse() {
                steps.push(Step::Index(index));
            }
        }
    }
    steps
}

/// Removes the member at the path, or the nearest one above it that is there. False if there is
/// none.
fn remove(table: &mut Table, path: &[Step], everywhere: bool) -> bool {
    let Some((Step::Key(key), rest)) = path.split_first() else {
        return false;
    };
    let Some(value) = table.get_mut(key) else {
        return false;
    };
    if rest.is_empty() || !remove_in(value, rest, everywhere) {
        table.remove(key);
    }
    true
}

fn remove_in(value: &mut Value, path: &[Step], everywhere: bool) -> bool {
    match (value, path.split_first()) {
        (Value::Table(table), Some((Step::Key(_), _))) => remove(table, path, everywhere),
        (Value::Array(list), Some((Step::Index(_), rest))) if everywhere && !rest.is_empty() => {
            let mut found = false;
            for item in list {
                found |= remove_in(item, rest, everywhere);
            }
            found
        }
        (Value::Array(list), Some((Step::Index(index), rest))) if *index < list.len() => {
            let inside = list
                .get_mut(*index)
                .is_some_and(|item| !rest.is_empty() && remove_in(item, rest, everywhere));
            if !inside {
                list.remove(*index);
            }
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_schema_does_not_know_is_left_out_alone() {
        let table =
            "hostname = 'a'\nfuture = 1\n[[network.link]]\nname = 'eth0'\ndhcp4 = true\nodd = 1\n\
                     [[network.link]]\nname = 'eth1'\nodd = 2\nmtu = 5\n"
                .parse()
                .unwrap();
        let mut notes = Notes::new();
        let fitted = to_schema(table, &mut notes);
        let wanted: Table =
            "hostname = 'a'\n[[network.link]]\nname = 'eth0'\ndhcp4 = true\n[[network.link]]\nname = 'eth1'\n"
                .parse()
                .unwrap();
        assert_eq!(fitted, wanted);
        let warnings = notes.finish();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
    }

    #[test]
    fn an_entry_without_what_it_needs_goes() {
        let table = "[[network.link]]\ndhcp4 = true\n[time]\nservers = 'x'\n"
            .parse()
            .unwrap();
        let mut notes = Notes::new();
        let fitted = to_schema(table, &mut notes);
        assert!(
            keelson_config::parse(toml::to_string(&fitted).unwrap().as_bytes(), Path::new("x"))
                .is_ok()
        );
        assert_eq!(notes.finish().len(), 2);
    }
}

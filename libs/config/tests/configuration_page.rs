//! The schema's entries against the types, and `docs/configuration.md` against the entries.

use std::collections::BTreeSet;
use std::path::PathBuf;

use keelson_config::parse;
use keelson_config::schema::{EntryShape, entries, page};

#[test]
fn the_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let wanted = page();
    if std::env::var_os("KEELSON_WRITE_CONFIGURATION").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/configuration.md is not current: KEELSON_WRITE_CONFIGURATION=1 cargo test -p \
         keelson-config --test configuration_page"
    );
}

/// The members of a table, as the deserialiser lists them for an unknown one.
fn members(table: &str) -> BTreeSet<String> {
    let text = match table {
        "" => "no_such_member = 1\n".to_owned(),
        _ => match table.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]\nno_such_member = 1\n"),
            None => format!("[{table}]\nno_such_member = 1\n"),
        },
    };
    let problems = parse(text.as_bytes(), "x".as_ref()).unwrap_err();
    let remedy = &problems[0].remedy;
    let (_, list) = remedy
        .rsplit_once("known here: ")
        .unwrap_or_else(|| panic!("{table}: {remedy}"));
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_entries_are_those_of_the_types() {
    // Tables whose keys are free.
    let free = ["sysctl", "engine.runtimes", "services"];
    let tables: Vec<&str> = [""]
        .into_iter()
        .chain(
            entries()
                .filter(|entry| matches!(entry.shape, EntryShape::Table { .. }))
                .map(|entry| entry.path),
        )
        .filter(|path| !free.contains(path))
        .collect();
    for table in tables {
        let described: BTreeSet<String> = entries()
            .filter_map(|entry| {
                let rest = match table {
                    "" => entry.path,
                    _ => entry.path.strip_prefix(table)?.strip_prefix('.')?,
                };
                let first = rest.split('.').next()?;
                Some(first.trim_end_matches("[]").to_owned())
            })
            .collect();
        assert_eq!(described, members(table), "[{table}]");
    }
}

#[test]
fn every_entry_says_what_is_right() {
    let mut paths = BTreeSet::new();
    for entry in entries() {
        assert!(
            paths.insert(entry.path),
            "{} is described twice",
            entry.path
        );
        assert!(
            !entry.remedy.is_empty() && !entry.remedy.ends_with('.'),
            "{}",
            entry.path
        );
        if let EntryShape::Key {
            kind,
            default,
            meaning,
        } = entry.shape
        {
            assert!(
                !kind.is_empty() && !default.is_empty() && !meaning.is_empty(),
                "{}",
                entry.path
            );
            assert!(
                !meaning.ends_with('.') && !meaning.contains('|'),
                "{}",
                entry.path
            );
        }
    }
}

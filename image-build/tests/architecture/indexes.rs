//! The documentation of each crate opens with an index of its modules, which reads like a table of
//! contents: every module is named there, or something that it exports.

use std::collections::BTreeSet;
use std::fs;

use super::{metadata, root, sources};

/// Modules that no reader looks for.
const UNNAMED: &[&str] = &["tests", "golden_tests", "fuzzing"];

/// The words of a line that are in backquotes.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    let parts = line.split('`').skip(1).step_by(2);
    parts.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

/// The words in backquotes of a crate's documentation, without its blocks of text.
fn index_of(text: &str) -> BTreeSet<&str> {
    let mut in_block = false;
    let documentation = text.lines().filter(|line| line.starts_with("//!"));
    let outside = documentation.filter(|line| {
        let is_fence = line.contains("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    });
    outside.flat_map(quoted).collect()
}

/// The module that a line declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix(';')
}

/// What a crate root exports of a module.
fn exported<'a>(text: &'a str, module: &str) -> BTreeSet<&'a str> {
    let start = format!("pub use {module}::");
    let statements = text.match_indices(&start).filter_map(|(at, _)| {
        let rest = text.get(at + start.len()..)?;
        rest.split(';').next()
    });
    statements
        .flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn every_module_is_in_its_crate_s_index() {
    let mut missing = Vec::new();
    for path in sources() {
        if !path.ends_with("src/lib.rs") && !path.ends_with("src/main.rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        let index = index_of(&text);
        for module in text.lines().filter_map(declared) {
            let found = UNNAMED.contains(&module)
                || index.contains(module)
                || exported(&text, module)
                    .iter()
                    .any(|name| index.contains(name));
            if !found {
                missing.push(format!("{}: {module}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "not in the index: {missing:#?}");
}

/// docs/architecture.md shows the source tree: a line for each library and program.
#[test]
fn every_crate_is_in_the_map_of_the_source_tree() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).expect("architecture.md");
    let start = text.find("## Source tree").expect("its chapter");
    let map = text.get(start..).unwrap_or_default();
    let map = map.split("```").nth(1).expect("its map");
    let words: BTreeSet<&str> = map.split_whitespace().collect();
    let missing: Vec<String> = metadata()
        .workspace_packages()
        .iter()
        .filter_map(|package| {
            let directory = package.manifest_path.parent()?;
            let path = directory.strip_prefix(root()).ok()?;
            let within = format!("{}/", directory.file_name()?);
            let found = words.contains(path.as_str()) || words.contains(within.as_str());
            (!found).then(|| path.to_string())
        })
        .collect();
    assert!(missing.is_empty(), "not in the map: {missing:?}");
}

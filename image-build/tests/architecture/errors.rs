//! An error keeps its cause: functions of the machine's programs return a type that says what went
//! wrong, and no bare text, which a caller can only pass on.

use std::fs;

use super::{root, sources};

/// Tools of developers: they print what went wrong, and nobody decides anything by it.
const TOOLS: &[&str] = &[
    "benches",
    "conformance",
    "fuzz",
    "image-build",
    "libs/testing",
    "qemu-tests",
];

/// How many `Result`s of a source have `String` as their error. `use` and full paths count alike.
fn bare_texts(text: &str) -> usize {
    text.match_indices("Result<")
        .filter(|(at, start)| {
            let arguments = text.get(at + start.len()..).unwrap_or_default();
            last_argument(arguments).is_some_and(|last| last.trim() == "String")
        })
        .count()
}

/// Returns the second of two arguments of a generic type. `list` begins after the opening bracket.
fn last_argument(list: &str) -> Option<&str> {
    let mut depth = 0_u32;
    let mut comma = None;
    let mut before = ' ';
    for (at, character) in list.char_indices() {
        match character {
            '<' | '(' | '[' => depth += 1,
            // The arrow in a function type is no closing bracket.
            '>' if before == '-' => {}
            '>' if depth == 0 => return list.get(comma? + 1..at),
            '>' | ')' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => comma = Some(at),
            ';' | '{' if depth == 0 => return None,
            _ => {}
        }
        before = character;
    }
    None
}

/// Returns a source without its tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

#[test]
fn errors_are_no_bare_texts() {
    let mut wrong = Vec::new();
    for path in sources() {
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        if is_test || TOOLS.iter().any(|tool| path.starts_with(tool)) {
            continue;
        }
        let text = fs::read_to_string(root().join(&path)).expect("a source file");
        let found = bare_texts(without_tests(&text));
        if found > 0 {
            wrong.push(format!("{}: {found} of Result<_, String>", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bare_texts_are_found() {
    for (text, count) in [
        ("fn a() -> Result<(), String> {", 1),
        (
            "fn a() -> Result<\n    Vec<(String, u8)>,\n    String\n> {",
            1,
        ),
        (
            "fn a(f: impl Fn(&str) -> Result<(), String>) -> Result<(), E> {",
            1,
        ),
        ("Result<BTreeMap<String, String>, E>", 0),
        ("Result<Box<dyn Fn(u8) -> String>, E>", 0),
        ("Result<String>", 0),
        ("Result<Result<u8, String>, E>", 1),
    ] {
        assert_eq!(bare_texts(text), count, "{text}");
    }
}

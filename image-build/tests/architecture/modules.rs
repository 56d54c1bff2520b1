//! Modules of a crate use one another in one direction only. A module and those inside it are one
//! family and may know each other; between families, at every level, no cycle is allowed: the
//! modules of a cycle can only be understood, tested and moved together.
//!
//! The sources are read as text, without comments, strings and tests. Paths that begin with
//! `crate`, `super` or `self` count, in `use` and elsewhere. Calls of methods do not: they need no
//! name of a module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{root, sources};

/// Cycles that are still there, as `crate: module module …`. This list may only shrink.
const LEFT: &[&str] = &[];

/// A module's path; empty for the crate itself.
type Module = Vec<String>;

#[test]
fn modules_know_each_other_in_one_direction() {
    let found: BTreeSet<String> = crates()
        .iter()
        .flat_map(|source| cycles_of(source))
        .collect();
    let left: BTreeSet<String> = LEFT.iter().map(|line| (*line).to_owned()).collect();
    let new: Vec<_> = found.difference(&left).collect();
    assert!(
        new.is_empty(),
        "modules use each other in a circle: {new:#?}"
    );
    let gone: Vec<_> = left.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "no longer there, take it off the list: {gone:#?}"
    );
}

/// The `src` directories of the workspace.
fn crates() -> Vec<PathBuf> {
    let directories: BTreeSet<PathBuf> = sources()
        .iter()
        .filter_map(|path| {
            let src = path.ancestors().find(|above| above.ends_with("src"))?;
            let package = root().join(src.parent()?).join("Cargo.toml");
            package.is_file().then(|| src.to_owned())
        })
        .collect();
    assert!(
        directories.len() > 15,
        "only {} crates found",
        directories.len()
    );
    directories.into_iter().collect()
}

/// The cycles of one crate, each in one line.
fn cycles_of(src: &Path) -> Vec<String> {
    let name = src.parent().unwrap_or(src).display().to_string();
    let files = modules(&root().join(src));
    let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, path) in &files {
        let text = plain(&fs::read_to_string(path).expect("a source file"));
        for used in paths(&text) {
            let Some(target) = target(module, &used, &files) else {
                continue;
            };
            let common = module
                .iter()
                .zip(&target)
                .take_while(|(a, b)| a == b)
                .count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let parent = module.get(..common).unwrap_or_default().to_vec();
                let of_parent = uses.entry(parent).or_default();
                of_parent
                    .entry(from.clone())
                    .or_default()
                    .insert(to.clone());
            }
        }
    }
    let line = |parent: &Module, cycle: BTreeSet<String>| {
        let path = |last: &String| {
            [parent.as_slice(), std::slice::from_ref(last)]
                .concat()
                .join("::")
        };
        let members: Vec<String> = cycle.iter().map(path).collect();
        format!("{name}: {}", members.join(" "))
    };
    uses.iter()
        .flat_map(|(parent, of_parent)| {
            circles(of_parent).into_iter().map(move |c| line(parent, c))
        })
        .collect()
}

/// All modules that are files, except tests.
fn modules(src: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut tests = BTreeSet::new();
    let mut directories = vec![src.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)
            .expect("a directory of sources")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                // Programs of their own.
                if !path.ends_with("src/bin") {
                    directories.push(path);
                }
                continue;
            }
            if path.extension().is_none_or(|ending| ending != "rs") {
                continue;
            }
            let relative = path
                .strip_prefix(src)
                .expect("below src")
                .with_extension("");
            let names = relative
                .iter()
                .map(|name| name.to_string_lossy().into_owned());
            let mut module: Module = names.collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            if matches!(module.as_slice(), [only] if only == "lib" || only == "main") {
                module.clear();
            }
            let text = fs::read_to_string(&path).expect("a source file");
            for line in text.split("#[cfg(test)]").skip(1) {
                let declared = line.trim_start().strip_prefix("mod ");
                if let Some((name, _)) = declared.and_then(|rest| rest.split_once(';')) {
                    tests.insert([module.as_slice(), &[name.to_owned()]].concat());
                }
            }
            found.insert(module, path);
        }
    }
    // Some have a file beside the module that they test.
    found.retain(|module, _| {
        let beside = module.last().is_some_and(|name| name.ends_with("_tests"));
        !beside && !tests.iter().any(|test| module.starts_with(test))
    });
    found
}

/// The text without comments, strings, characters and modules of tests.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") && !is_word_end(&out) {
            raw_string(rest)
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            out.push(next);
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
            continue;
        };
        out.push(' ');
        rest = rest.get(skipped.max(1)..).unwrap_or_default();
    }
    without_tests(&out)
}

fn is_word_end(text: &str) -> bool {
    text.ends_with(|last: char| last.is_alphanumeric() || last == '_')
}

/// Length of a raw string at the start of a text; 1 when it is only a raw name.
fn raw_string(text: &str) -> usize {
    let hashes = text
        .bytes()
        .skip(1)
        .take_while(|byte| *byte == b'#')
        .count();
    if text.as_bytes().get(1 + hashes) != Some(&b'"') {
        return 1;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = text.get(2 + hashes..).unwrap_or_default();
    inside
        .find(&end)
        .map_or(text.len(), |at| 2 + hashes + at + end.len())
}

/// Length of the quoted part at the start of a text.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        match next {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if next == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a quotation mark begins a character, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    matches!(
        (chars.next(), chars.next()),
        (Some('\\'), _) | (_, Some('\''))
    )
}

/// Removes the content of `#[cfg(test)] mod … { … }`.
fn without_tests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("#[cfg(test)]") {
        out.push_str(before);
        rest = after;
        if !after.trim_start().starts_with("mod ") {
            continue;
        }
        let end = after.find([';', '{']).unwrap_or(after.len());
        if after.as_bytes().get(end) == Some(&b'{') {
            rest = after
                .get(end + block(after.get(end..).unwrap_or_default())..)
                .unwrap_or_default();
        }
    }
    out.push_str(rest);
    out
}

/// Length of a block in braces at the start of a text.
fn block(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, next) in text.char_indices() {
        match next {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    text.len()
}

/// The paths that begin with `crate`, `super` or `self`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text.get(..at).unwrap_or_default();
            // `super::super::` is read from its beginning.
            if !is_word_end(before) && !before.ends_with(':') {
                tree(text.get(at..).unwrap_or_default(), &[], &mut found);
            }
        }
    }
    found
}

/// Reads a path, with all its branches. Returns the text after it.
fn tree<'a>(text: &'a str, prefix: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(branches) = rest.strip_prefix('{') {
            rest = branches.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = tree(rest, &path, found).trim_start();
                // ` as other`, a comma, or what this reader does not know.
                let next = rest.find([',', '}']).unwrap_or(rest.len());
                rest = rest.get(next..).unwrap_or_default();
                rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let is_end = |c: char| !c.is_alphanumeric() && c != '_';
        let (word, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
        if !word.is_empty() {
            path.push(word.to_owned());
        }
        rest = after;
        match rest.trim_start().strip_prefix("::") {
            Some(more) if !word.is_empty() => rest = more.trim_start(),
            _ => break,
        }
    }
    found.push(path);
    rest
}

/// The module that a path leads to from another; `None` when it leads out of the crate.
fn target(from: &Module, path: &[String], files: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut at = from.clone();
    let mut words = path.iter();
    let mut rest = words.clone();
    while let Some(word) = words.next() {
        match word.as_str() {
            "crate" => at.clear(),
            "super" => {
                at.pop()?;
            }
            "self" => {}
            _ => break,
        }
        rest = words.clone();
    }
    for word in rest {
        at.push(word.clone());
        if !files.contains_key(&at) {
            at.pop();
            break;
        }
    }
    Some(at)
}

/// The largest sets of nodes in which each node leads to each other.
fn circles(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let mut seen = BTreeSet::new();
        let mut todo = vec![from];
        while let Some(node) = todo.pop() {
            for next in uses.get(node).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    todo.push(next);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&String, BTreeSet<String>> =
        uses.keys().map(|node| (node, reached(node))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (node, reach) in &all {
        if !reach.contains(*node) || found.iter().any(|circle| circle.contains(*node)) {
            continue;
        }
        let back = |other: &&String| all.get(other).is_some_and(|reach| reach.contains(*node));
        found.push(reach.iter().filter(back).cloned().collect());
    }
    found
}

#[test]
fn the_reader_of_sources_finds_what_is_used() {
    let text = r##"
        //! crate::comment
        use crate::{a::{B, c::D}, e as f};
        use super::super::g::H;
        fn x<'a>(y: &'a str) -> char { let _ = r#"crate::raw"#; "crate::string"; 'c'; '\''; self::i::j() }
        #[cfg(test)]
        mod tests { use crate::only_for_tests; fn z() { if true {} } }
        fn more() -> crate::k::L { crate::m::<u8>() }
    "##;
    let found: BTreeSet<String> = paths(&plain(text))
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "crate::a::B",
        "crate::a::c::D",
        "crate::e",
        "crate::k::L",
        "crate::m",
        "self::i::j",
        "super::super::g::H",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn circles_are_found() {
    let uses = |text: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pair in text.split(' ') {
            let (from, to) = pair.split_once('>').expect("a pair");
            uses.entry(from.to_owned())
                .or_default()
                .insert(to.to_owned());
        }
        uses
    };
    assert!(circles(&uses("a>b b>c a>c")).is_empty());
    let found = circles(&uses("a>b b>c c>a d>a e>f f>e"));
    let names: Vec<String> = found
        .iter()
        .map(|circle| circle.iter().cloned().collect())
        .collect();
    assert_eq!(names, ["abc", "ef"]);
}

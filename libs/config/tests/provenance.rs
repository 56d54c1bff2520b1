//! Every value comes from the last layer that says it, and the origin names that layer.

use std::path::PathBuf;

use keelson_config::{Layer, LayerKind, Merged, Sources, load, parse};
use proptest::prelude::*;
use toml::{Table, Value};

/// Lines that are right in any order and any choice.
const LINES: &[&[&str]] = &[
    &["hostname = 'a'", "hostname = 'b'"],
    &["engine.init = true", "engine.init = false"],
    &["engine.stop_timeout = 1", "engine.stop_timeout = 2"],
    &["network.search = ['x']", "network.search = ['y', 'z']"],
    &["network.link = [{ name = 'eth0' }]", "network.link = []"],
    &["sysctl.'vm.swappiness' = 1", "sysctl.'vm.swappiness' = 'x'"],
    &[
        "engine.runtimes.'a.b'.path = '/x'",
        "engine.runtimes.'a.b'.path = '/y'",
    ],
    &["swap.zram_percent = 10", "swap.zram_percent = 20"],
];

const KINDS: [LayerKind; 4] = [
    LayerKind::Image,
    LayerKind::CommandLine,
    LayerKind::Platform,
    LayerKind::Operator,
];

fn layer() -> impl Strategy<Value = String> {
    let line = |choices: &'static [&'static str]| prop::option::of(prop::sample::select(choices));
    let lines: Vec<_> = LINES.iter().map(|choices| line(choices)).collect();
    lines.prop_map(|lines| {
        let lines = lines.into_iter().flatten();
        lines.map(|line| format!("{line}\n")).collect::<String>()
    })
}

fn read(text: &str, name: &str) -> Layer {
    parse(text.as_bytes(), name.as_ref()).unwrap()
}

fn leaves(table: &Table, at: &str, out: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = match key.contains('.') {
            true => format!("{key:?}"),
            false => key.clone(),
        };
        let path = if at.is_empty() {
            key
        } else {
            format!("{at}.{key}")
        };
        match value {
            Value::Table(inner) => leaves(inner, &path, out),
            _ => out.push((path, value.clone())),
        }
    }
}

fn all(table: &Table) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    leaves(table, "", &mut out);
    out
}

proptest! {
    #[test]
    fn the_last_layer_that_says_a_value_wins(texts in prop::collection::vec(layer(), 4)) {
        let layers: Vec<Layer> = texts
            .iter()
            .enumerate()
            .map(|(number, text)| read(text, &format!("layer-{number}")))
            .collect();
        let mut merged = Merged::default();
        for (kind, layer) in KINDS.into_iter().zip(&layers) {
            merged.add(kind, layer.clone());
        }
        let found = all(&merged.table);
        prop_assert_eq!(found.len(), merged.origins.len());
        for (path, value) in found {
            let origin = &merged.origins[&path];
            let (number, layer) = layers
                .iter()
                .enumerate()
                .rev()
                .find(|(_, layer)| all(&layer.table).iter().any(|(known, _)| *known == path))
                .unwrap();
            prop_assert_eq!(origin.layer, KINDS[number]);
            prop_assert_eq!(origin.file.clone(), Some(PathBuf::from(format!("layer-{number}"))));
            prop_assert!(all(&layer.table).contains(&(path.clone(), value)));
            // The line is the one that holds the key.
            let line = texts[number].lines().nth(origin.line.unwrap() - 1).unwrap();
            prop_assert!(line.replace('\'', "\"").starts_with(&path), "{} is not in {}", path, line);
        }
    }

    /// Merging the upper layers first makes no difference.
    #[test]
    fn merging_is_associative(a in layer(), b in layer(), c in layer()) {
        let table = |text: &str| read(text, "x").table;
        let mut left = table(&a);
        keelson_config::merge(&mut left, table(&b));
        keelson_config::merge(&mut left, table(&c));
        let mut upper = table(&b);
        keelson_config::merge(&mut upper, table(&c));
        let mut right = table(&a);
        keelson_config::merge(&mut right, upper);
        prop_assert_eq!(left, right);
    }
}

#[test]
fn files_are_named_with_their_lines() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "proc/cmdline",
        "quiet keelson.config.fqdn=a.example.net keelson.config.engine.init\n",
    );
    write(
        "var/lib/keelson/host/platform/host.toml",
        "hostname = 'cloud'\n\n[time]\nservers = ['a']\n",
    );
    write("etc/keelson/host.toml", "# mine\nhostname = 'mine'\n");
    write(
        "etc/keelson/host.toml.d/10-log.toml",
        "[engine]\nlog_max_files = 2\n",
    );
    let loaded = load(&Sources::under(root.path()));
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let origins = loaded.complete_origins();
    let shown = |path: &str| {
        let text = origins[path].to_string();
        text.replace(root.path().to_str().unwrap(), "")
    };
    assert_eq!(shown("hostname"), "operator /etc/keelson/host.toml:2");
    assert_eq!(shown("fqdn"), "command-line kernel command line");
    assert_eq!(
        shown("time.servers"),
        "platform /var/lib/keelson/host/platform/host.toml:4"
    );
    assert_eq!(
        shown("engine.log_max_files"),
        "operator /etc/keelson/host.toml.d/10-log.toml:2"
    );
    assert_eq!(shown("engine.stop_timeout"), "built-in");
}

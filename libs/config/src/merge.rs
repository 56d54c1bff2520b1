//! Merges one layer over another.

use toml::{Table, Value};

use crate::layer::Layer;
use crate::origin::{LayerKind, Origins, ValueOrigin};
use crate::path;

/// Puts `over` over `base`: tables are merged member by member, anything else is replaced.
///
/// The depth of the recursion is bounded by the TOML parser, which refuses deep nesting.
pub fn merge(base: &mut Table, over: Table) {
    merge_noting(base, over, "", &mut |_| {});
}

/// Merges like [`merge`] and calls `replaced` with the path of each value that `over` sets.
fn merge_noting(base: &mut Table, over: Table, at: &str, replaced: &mut impl FnMut(&str)) {
    for (key, value) in over {
        let path = path::join(at, &key);
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => {
                merge_noting(below, above, &path, replaced);
            }
            (_, value) => {
                replaced(&path);
                base.insert(key, value);
            }
        }
    }
}

/// Calls `note` with the path and the value of everything in the table that is no table itself.
pub(crate) fn each_value<'a>(table: &'a Table, at: &str, note: &mut impl FnMut(&str, &'a Value)) {
    for (key, value) in table {
        let path = path::join(at, key);
        match value {
            Value::Table(inner) => each_value(inner, &path, note),
            _ => note(&path, value),
        }
    }
}

/// Layers put over each other, with the origin of each value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// The values.
    pub table: Table,
    /// Where each came from.
    pub origins: Origins,
}

impl Merged {
    /// Puts a layer over those before.
    pub fn add(&mut self, kind: LayerKind, layer: Layer) {
        let Layer { file, table, lines } = layer;
        let mut fresh = Origins::new();
        each_value(&table, "", &mut |path, _| {
            let origin = ValueOrigin {
                layer: kind,
                file: Some(file.clone()),
                line: lines.get(path).copied(),
            };
            fresh.insert(path.to_owned(), origin);
        });
        let origins = &mut self.origins;
        merge_noting(&mut self.table, table, "", &mut |replaced| {
            origins.retain(|path, _| !path::is_within(path, replaced));
        });
        self.origins.append(&mut fresh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn tables_merge_and_lists_are_replaced() {
        let mut base = table(
            "hostname = 'a'\n[network]\nsearch = ['one']\nnameservers = ['192.0.2.1']\n[time]\nservers = ['t']",
        );
        merge(&mut base, table("[network]\nsearch = ['two', 'three']"));
        let expected = table(
            "hostname = 'a'\n[network]\nsearch = ['two', 'three']\nnameservers = ['192.0.2.1']\n[time]\nservers = ['t']",
        );
        assert_eq!(base, expected);
    }

    #[test]
    fn a_value_of_another_type_replaces() {
        let mut base = table("[network]\nsearch = ['one']");
        merge(&mut base, table("network = 1"));
        assert_eq!(base, table("network = 1"));
    }
}

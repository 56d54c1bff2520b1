//! Merges one layer over another.

use toml::{Table, Value};

/// Puts `over` over `base`: tables are merged member by member, anything else is replaced.
///
/// The depth of the recursion is bounded by the TOML parser, which refuses deep nesting.
pub fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
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

//! The effective configuration, and what of it may be shown.

use std::path::PathBuf;

use keelson_model::host::MachineConfig;
use toml::{Table, Value};

use crate::merge::{each_value, merge};
use crate::origin::{Origins, ValueOrigin};
use crate::problem::Problem;
use crate::{path, schema};

/// The effective configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// All layers that are good, merged.
    pub config: MachineConfig,
    /// Where each value came from; those without an entry are built in.
    pub origins: Origins,
    /// What is wrong with the others, and warnings. A caller logs these; none of them may stop it.
    pub problems: Vec<Problem>,
    /// What a person should know beyond that, one sentence each: that the last good configuration
    /// stands in, and why.
    pub notices: Vec<String>,
    /// The files that the configuration was made of, lowest first.
    pub layers: Vec<PathBuf>,
    /// The merged layers, without built-in values.
    pub table: Table,
    /// The operator's files merged. `None` if the last good copy stands in for them, or should.
    pub(crate) operator: Option<Table>,
}

impl LoadedConfig {
    /// Whether the operator's files are not what counts.
    #[must_use]
    pub fn operator_is_broken(&self) -> bool {
        self.operator.is_none()
    }

    /// Every value, those that are built in included.
    #[must_use]
    pub fn complete(&self) -> Table {
        let mut table = Table::try_from(MachineConfig::default()).unwrap_or_default();
        merge(&mut table, self.table.clone());
        table
    }

    /// The origin of each value, those that are built in included.
    #[must_use]
    pub fn complete_origins(&self) -> Origins {
        let mut origins = self.origins.clone();
        each_value(&self.complete(), "", &mut |path, _| {
            origins
                .entry(path.to_owned())
                .or_insert_with(ValueOrigin::built_in);
        });
        origins
    }
}

/// The table with what must not be shown replaced by [`HIDDEN`].
#[must_use]
pub fn masked(table: &Table) -> Table {
    let mut table = table.clone();
    for (key, value) in &mut table {
        mask(value, &path::join("", key));
    }
    table
}

/// What stands for a secret.
pub const HIDDEN: &str = "(hidden)";

fn mask(value: &mut Value, path: &str) {
    if schema::is_secret(path) {
        *value = Value::String(HIDDEN.to_owned());
        return;
    }
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                mask(value, &path::join(path, key));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                mask(item, &format!("{path}[{index}]"));
            }
        }
        _ => {}
    }
}

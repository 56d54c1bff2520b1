//! Results as text for people (Markdown) and as JSON for programs.

use std::fmt::{self, Display, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::stats::Summary;

/// The content of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Nothing was measured.
    Nothing,
    /// A single figure, shown with this many decimal places.
    Number(f64, usize),
    /// A series, shown as median \[least..greatest\].
    Series(Summary, usize),
    /// Text.
    Text(String),
}

impl Cell {
    /// Makes a cell of a series; empty without one.
    pub fn series(values: impl IntoIterator<Item = f64>, digits: usize) -> Self {
        Summary::of(values).map_or(Self::Nothing, |summary| Self::Series(summary, digits))
    }

    fn value(&self) -> Value {
        match self {
            Self::Nothing => Value::Null,
            Self::Number(number, _) => json!(number),
            Self::Series(summary, _) => json!(summary),
            Self::Text(text) => json!(text),
        }
    }
}

impl Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("–"),
            Self::Number(number, digits) => write!(formatter, "{number:.digits$}"),
            Self::Series(summary, digits) => write!(
                formatter,
                "{:.digits$} [{:.digits$}..{:.digits$}]",
                summary.median, summary.min, summary.max
            ),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

/// A table: a row for each subject, a column for each thing measured.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with one cell for each column.
    pub fn row(&mut self, name: &str, cells: Vec<Cell>) {
        self.rows.push((name.to_owned(), cells));
    }

    /// The table as an object: title and, for each row, its cells by column.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, cells)| {
                let mut row = serde_json::Map::new();
                row.insert("name".to_owned(), json!(name));
                for (column, cell) in self.columns.iter().zip(cells) {
                    row.insert(column.clone(), cell.value());
                }
                Value::Object(row)
            })
            .collect();
        json!({"title": self.title, "rows": rows})
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<Vec<String>> = vec![
            std::iter::once(String::new())
                .chain(self.columns.iter().cloned())
                .collect(),
        ];
        lines.extend(self.rows.iter().map(|(name, cells)| {
            std::iter::once(name.clone())
                .chain(cells.iter().map(Cell::to_string))
                .collect()
        }));
        let count = lines.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..count).map(width).collect();
        writeln!(formatter, "{}\n", self.title)?;
        for (index, line) in lines.iter().enumerate() {
            let mut text = String::from("|");
            for (cell, width) in line.iter().zip(&widths) {
                write!(text, " {cell:width$} |")?;
            }
            writeln!(formatter, "{text}")?;
            if index == 0 {
                let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                writeln!(formatter, "| {} |", dashes.join(" | "))?;
            }
        }
        Ok(())
    }
}

/// Prints tables, and writes them to a file as JSON when one is named.
///
/// # Errors
/// The file can't be written.
pub fn publish(tables: &[Table], json: Option<&Path>) -> Result<()> {
    for table in tables {
        println!("{table}");
    }
    if let Some(path) = json {
        let document = Value::Array(tables.iter().map(Table::to_json).collect());
        std::fs::write(path, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_readable_by_people_and_programs() {
        let mut table = Table::new("Times (ms)", &["wall", "calls"]);
        let wall = Cell::series([1.0, 3.0, 2.0], 1);
        table.row("ours", vec![wall, Cell::Number(300.0, 0)]);
        table.row(
            "other",
            vec![Cell::Nothing, Cell::Text("refuses".to_owned())],
        );
        assert_eq!(
            table.to_string(),
            "Times (ms)\n\n\
             |       | wall           | calls   |\n\
             | ----- | -------------- | ------- |\n\
             | ours  | 2.0 [1.0..3.0] | 300     |\n\
             | other | –              | refuses |\n"
        );
        let json = table.to_json();
        assert_eq!(json["rows"][0]["wall"]["median"], 2.0);
        assert_eq!(json["rows"][1]["calls"], "refuses");
    }
}

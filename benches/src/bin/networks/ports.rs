//! What the first published port costs, and what it costs when there are many.

use std::time::Duration;

use anyhow::Result;
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::milliseconds;
use serde_json::{Value, json};

use crate::subject::{Subject, host_config};

/// The port whose publication is measured.
const MEASURED: u16 = 20_000;
/// The first of the others.
const OTHERS: u16 = 30_000;
/// Ports of a container that publishes many.
const EACH: u16 = 100;

/// Until a new container's process runs, without and with a published port.
struct Publication {
    without: Duration,
    with: Duration,
}

/// Measures the first port and the one after `ports` others; peers, which need processes for each
/// and take minutes, get a tenth.
pub(crate) fn measure(
    subjects: &[(String, Subject)],
    rounds: usize,
    ports: u16,
) -> Result<Vec<Table>> {
    let mut each: Vec<_> = subjects
        .iter()
        .map(|(name, subject)| (name.clone(), subject))
        .collect();
    let first = interleave(&mut each, rounds, |subject| publication(subject))?;
    let mut fillers = Vec::new();
    let mut titles = Vec::new();
    for (name, subject) in subjects {
        let count = match subject.engine.name.starts_with("hostd") {
            true => ports,
            false => ports / 10,
        };
        for begin in (0..count).step_by(usize::from(EACH)) {
            let host = publishing(begin..count.min(begin + EACH));
            fillers.push((subject, subject.launch(None, &host)?));
        }
        titles.push(format!("{name}, after {count}"));
    }
    let later = interleave(&mut each, rounds, |subject| publication(subject))?;
    for (subject, id) in fillers {
        subject.remove(&id)?;
    }
    let mut table = Table::new(
        "API create → running on the bridge, ms",
        &["no port", "a published port", "port − none"],
    );
    for ((first, later), title) in first.iter().zip(&later).zip(titles) {
        table.row(&format!("{}, the first", first.name), cells(first));
        table.row(&title, cells(later));
    }
    Ok(vec![table])
}

/// A container that publishes many ports.
fn publishing(numbers: std::ops::Range<u16>) -> Value {
    let mut host = host_config("bridge");
    let bindings = numbers.map(|number| {
        let port = json!([{"HostPort": (OTHERS + number).to_string()}]);
        (format!("{}/tcp", 1 + number), port)
    });
    host["PortBindings"] = bindings.collect::<serde_json::Map<_, _>>().into();
    host
}

fn publication(subject: &Subject) -> Result<Publication> {
    let mut host = host_config("bridge");
    let without = subject.launching(&host, Duration::ZERO)?;
    host["PortBindings"] = json!({"80/tcp": [{"HostPort": MEASURED.to_string()}]});
    let with = subject.launching(&host, Duration::ZERO)?;
    Ok(Publication { without, with })
}

fn cells(series: &Series<Publication>) -> Vec<Cell> {
    let values = || series.values.iter();
    let difference = |one: &Publication| milliseconds(one.with) - milliseconds(one.without);
    vec![
        Cell::series(values().map(|one| milliseconds(one.without)), 2),
        Cell::series(values().map(|one| milliseconds(one.with)), 2),
        Cell::series(values().map(difference), 2),
    ]
}

//! Engines with many containers that run: lists, memory, and a daemon that was killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use keelson_benches::engines::Engine;
use keelson_benches::http;
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::milliseconds;
use serde_json::Value;

/// The programs of engines without those that each container has.
const DAEMONS: [&str; 4] = ["hostd", "keelson-resolver", "dockerd", "containerd"];
const SHIMS: [&str; 2] = ["keelson-runtime", "containerd-shim-runc-v2"];
/// How often a list is asked for.
const LISTS: usize = 20;
/// How long a daemon that was killed may take to be back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory of the daemons before they did anything.
pub(crate) fn idle(engines: &[(String, Engine)]) -> Result<Table> {
    // What only their start needed is given back.
    std::thread::sleep(Duration::from_secs(11));
    let mut table = Table::new("Memory of the daemons without containers", &["MB"]);
    for (name, engine) in engines {
        table.row(name, vec![megabytes(engine.memory(&DAEMONS)?)]);
    }
    Ok(table)
}

/// Fills the engines up with running containers, and measures.
pub(crate) fn measure(
    engines: &mut [(String, Engine)],
    crowd: usize,
    present: usize,
) -> Result<Table> {
    let columns = [
        "containers",
        "list, ms",
        "daemons, MB",
        "a shim, MB",
        "back after a kill, ms",
    ];
    let mut table = Table::new("With many containers that run", &columns);
    for (name, engine) in engines {
        let count = match name.as_str() {
            "docker" => crowd / 10,
            _ => crowd,
        };
        for _ in 0..count {
            let id = crate::create(engine.socket(), &["sleep", "100000"])?;
            let start = format!("/containers/{id}/start");
            http::call(engine.socket(), "POST", &start, b"")?;
        }
        let mut lists = Vec::new();
        for _ in 0..LISTS {
            let begin = Instant::now();
            list(engine, true)?;
            lists.push(milliseconds(begin.elapsed()));
        }
        std::thread::sleep(Duration::from_secs(11));
        let daemons = engine.memory(&DAEMONS)?;
        let shims = engine.memory(&SHIMS)? / count.max(1) as u64;
        // Docker takes its containers along.
        let back = match name.as_str() {
            "docker" => Cell::Nothing,
            _ => Cell::Number(milliseconds(back(engine, count)?), 0),
        };
        let cells = vec![
            Cell::Text(format!("{count} + {present} made only")),
            Cell::series(lists, 1),
            megabytes(daemons),
            megabytes(shims),
            back,
        ];
        table.row(name, cells);
    }
    Ok(table)
}

/// How long it takes from the execution of a new daemon until it lists the containers as running.
fn back(engine: &mut Engine, count: usize) -> Result<Duration> {
    engine.restart()?;
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if list(engine, false).is_ok_and(|running| running == count) {
            return Ok(begin.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("{} is not back", engine.name)
}

/// How many containers an engine lists.
fn list(engine: &Engine, all: bool) -> Result<usize> {
    let path = format!("/containers/json?all={}", u8::from(all));
    let answer = http::call(engine.socket(), "GET", &path, b"")?;
    let list: Value = serde_json::from_slice(&answer)?;
    Ok(list.as_array().context("a list")?.len())
}

fn megabytes(bytes: u64) -> Cell {
    Cell::Number(bytes as f64 / 1e6, 2)
}

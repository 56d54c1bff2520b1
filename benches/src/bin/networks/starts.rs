//! Starting containers with and without a network.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keelson_benches::http;
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::stats::Summary;
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::milliseconds;

use crate::floor::Floor;
use crate::subject::{OWN, Subject, host_config};

/// How long nothing happens before a start that is measured alone.
const REST: Duration = Duration::from_millis(300);
/// How many containers are started at a time.
const MANY: usize = 10;

/// Until a new container's process runs.
struct Start {
    none: Duration,
    bridge: Duration,
    own: Duration,
}

/// Processor time of the engine with all that it starts.
struct Many {
    wall: Duration,
    /// For making and starting them.
    starts: Duration,
    /// From there to their removal.
    ends: Duration,
}

/// What was started by whom; `None`: the bare kernel.
type Measured<'a> = (String, Option<&'a Subject>);

/// Measures starts one after the other and alone, then ten at a time.
pub(crate) fn measure(
    subjects: &[(String, Subject)],
    floor: &Floor,
    rounds: usize,
) -> Result<Vec<Table>> {
    let mut each: Vec<Measured<'_>> = vec![("floor".to_owned(), None)];
    each.extend(
        subjects
            .iter()
            .map(|(name, subject)| (name.clone(), Some(subject))),
    );
    let mut tables = Vec::new();
    for (title, rest) in [
        ("API create → running, back to back, ms", Duration::ZERO),
        ("The same, each alone after 300 ms of rest, ms", REST),
    ] {
        let series = interleave(&mut each, rounds, |subject| start(*subject, floor, rest))?;
        tables.push(table(title, &series));
    }
    let mut engines: Vec<_> = subjects
        .iter()
        .map(|(name, subject)| (name.clone(), subject))
        .collect();
    let series = interleave(&mut engines, rounds.div_ceil(2), |subject| many(subject))?;
    tables.push(many_table(&series));
    Ok(tables)
}

fn start(subject: Option<&Subject>, floor: &Floor, rest: Duration) -> Result<Start> {
    let Some(subject) = subject else {
        std::thread::sleep(rest);
        let bridge = floor.measure()?;
        return Ok(Start {
            none: Duration::ZERO,
            bridge,
            own: bridge,
        });
    };
    let on = |network| subject.launching(&host_config(network), rest);
    Ok(Start {
        none: on("none")?,
        bridge: on("bridge")?,
        own: on(OWN)?,
    })
}

/// Ten containers on the default bridge, each by a client of its own.
fn many(subject: &Subject) -> Result<Many> {
    let engine = &subject.engine;
    let host = host_config("bridge");
    let before = engine.processor_time()?;
    let begin = Instant::now();
    let made = at_a_time(vec![(); MANY], |()| subject.launch(None, &host))?;
    let wall = begin.elapsed();
    let started = engine.processor_time()?;
    at_a_time(made, |id| {
        let kill = format!("/containers/{id}/kill");
        http::call(engine.socket(), "POST", &kill, b"")?;
        subject.remove(&id)
    })?;
    let ended = engine.processor_time()?;
    Ok(Many {
        wall,
        starts: started.since(before).total(),
        ends: ended.since(started).total(),
    })
}

/// Does something with all items at the same time.
fn at_a_time<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .into_iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        let done = threads.into_iter().map(|thread| thread.join().ok());
        done.map(|done| done.context("a client has panicked")?)
            .collect()
    })
}

fn table(title: &str, series: &[Series<Start>]) -> Table {
    let columns = [
        "none",
        "bridge",
        "own network",
        "bridge − none",
        "/ floor",
        "bridge / the first one's",
    ];
    let mut table = Table::new(title, &columns);
    let floor = series
        .first()
        .and_then(|floor| median(floor, |start| start.bridge));
    let ours = series
        .get(1)
        .and_then(|ours| median(ours, |start| start.bridge));
    for (place, one) in series.iter().enumerate() {
        let cell = |figure: fn(&Start) -> Duration| {
            Cell::series(
                one.values.iter().map(|start| milliseconds(figure(start))),
                2,
            )
        };
        let network = |start: &Start| start.bridge.as_secs_f64() - start.none.as_secs_f64();
        let difference = one.values.iter().map(|start| network(start) * 1e3);
        let more = Summary::of(difference.clone()).map(|all| all.median);
        let ratio = |above: Option<f64>, below: Option<f64>| match (above, below) {
            (Some(above), Some(below)) if place > 0 => Cell::Number(above / below, 2),
            _ => Cell::Nothing,
        };
        let cells = vec![
            cell(|start| start.none),
            cell(|start| start.bridge),
            cell(|start| start.own),
            Cell::series(difference, 2),
            ratio(more, floor),
            ratio(median(one, |start| start.bridge), ours),
        ];
        table.row(&one.name, cells);
    }
    table
}

fn median(series: &Series<Start>, figure: fn(&Start) -> Duration) -> Option<f64> {
    let values = series.values.iter();
    let values = values.map(|start| milliseconds(figure(start)));
    Summary::of(values).map(|all| all.median)
}

fn many_table(series: &[Series<Many>]) -> Table {
    let columns = ["wall", "CPU of the starts", "CPU of the ends"];
    let mut table = Table::new("Ten starts at a time on the bridge, ms for all", &columns);
    for one in series {
        let cell = |figure: fn(&Many) -> Duration| {
            Cell::series(one.values.iter().map(|many| milliseconds(figure(many))), 1)
        };
        let cells = vec![
            cell(|many| many.wall),
            cell(|many| many.starts),
            cell(|many| many.ends),
        ];
        table.row(&one.name, cells);
    }
    table
}

//! The life of containers over the Docker API: hostd beside Docker. See README.md.

mod crowd;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use keelson_benches::bundle;
use keelson_benches::engines::Engine;
use keelson_benches::http;
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::stats::Summary;
use keelson_benches::subjects::Hostds;
use keelson_benches::table::{self, Cell, Table};
use keelson_benches::usage::milliseconds;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long nothing happens before each step of a life that is measured alone.
const REST: Duration = Duration::from_millis(250);
/// How many containers are run at a time.
const MANY: usize = 10;
const IMAGE: &str = "bench";

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each thing is measured.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How many other containers there are in the second table.
    #[arg(long, default_value_t = 200)]
    present: usize,
    /// How many containers run when lists, memory and a restart are measured; peers, which need
    /// minutes for that, get a tenth. 0: this is left out.
    #[arg(long, default_value_t = 300)]
    crowd: usize,
    /// Don't have peers run ten containers at a time.
    #[arg(long)]
    peers_one_by_one: bool,
    /// Measure hostd only.
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    hostds: Hostds,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What one container's life took.
#[derive(Debug, Clone, Copy)]
struct Life {
    create: Duration,
    start: Duration,
    exec: Duration,
    /// From the death of the process to the answer of a wait.
    wait: Duration,
    remove: Duration,
    /// Processor time and duration for ten containers that were run and removed at the same time.
    /// Not measured for lives with rests.
    many: (Duration, Duration),
}

type Figure = (&'static str, fn(&Life) -> Duration);

static FIGURES: [Figure; 8] = [
    ("create", |life| life.create),
    ("start", |life| life.start),
    ("create + start", |life| life.create + life.start),
    ("exec", |life| life.exec),
    ("exit to wait", |life| life.wait),
    ("remove", |life| life.remove),
    ("ten at a time", |life| life.many.0),
    ("their CPU", |life| life.many.1),
];

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = options.hostds.programs(&["keelson-runtime"])?;
    let directory = tempfile::Builder::new()
        .prefix("keelson-engine-bench")
        .tempdir()?;
    let run = tempfile::Builder::new()
        .prefix("keelson-engine-bench")
        .tempdir_in("/dev/shm")?;
    let (disk, run) = (directory.path(), run.path());
    let mut engines = Vec::new();
    for (name, program) in programs {
        let engine = Engine::hostd(&name, &program, disk, run)?;
        engines.push((name, engine));
    }
    if !options.alone {
        let docker = Engine::dockerd(disk, run)?;
        engines.extend(docker.map(|docker| ("docker".to_owned(), docker)));
    }
    let idle = crowd::idle(&engines)?;
    let image = bundle::image()?;
    for (_, engine) in &engines {
        let path = format!("/images/create?fromSrc=-&repo={IMAGE}");
        http::call(engine.socket(), "POST", &path, &image)?;
    }
    let one_by_one = options.peers_one_by_one;
    let together = |engine: &mut Engine| life(engine, Duration::ZERO, one_by_one);
    let empty = interleave(&mut engines, options.rounds, together)?;
    let rested = interleave(&mut engines, options.rounds, |engine| {
        life(engine, REST, one_by_one)
    })?;
    for (_, engine) in &engines {
        for _ in 0..options.present {
            create(engine.socket(), &["sleep", "1000"])?;
        }
    }
    let full = interleave(&mut engines, options.rounds, together)?;
    let mut tables = vec![
        figures("Containers over the API, ms", &empty, &FIGURES),
        figures(
            &format!("The same, each step after {} ms of rest", REST.as_millis()),
            &rested,
            single(),
        ),
        ratios("With rest / back to back", &rested, &empty),
        figures(
            &format!("Back to back beside {} others", options.present),
            &full,
            &FIGURES,
        ),
    ];
    tables.push(idle);
    if options.crowd > 0 {
        tables.push(crowd::measure(
            &mut engines,
            options.crowd,
            options.present,
        )?);
    }
    table::publish(&tables, options.json.as_deref())
}

/// Creates a container without a network and returns its identifier.
fn create(socket: &Path, command: &[&str]) -> Result<String> {
    let body = json!({
        "Image": IMAGE,
        "Cmd": command,
        "HostConfig": {"NetworkMode": "none"},
    });
    text(&http::post(socket, "/containers/create", &body)?, "/Id")
}

fn text(value: &Value, place: &str) -> Result<String> {
    let found = value.pointer(place).and_then(Value::as_str);
    Ok(found.with_context(|| format!("no {place}"))?.to_owned())
}

/// One container's life, with a rest before each step.
fn life(engine: &Engine, rest: Duration, one_by_one: bool) -> Result<Life> {
    let socket = engine.socket();
    let mut clock = Clock(Instant::now());
    clock.rest(rest);
    let id = create(socket, &["sleep", "1000"])?;
    let create = clock.lap();
    let container = format!("/containers/{id}");
    clock.rest(rest);
    http::call(socket, "POST", &format!("{container}/start"), b"")?;
    let start = clock.lap();
    clock.rest(rest);
    let exec = exec(socket, &container)?;

    let about = http::call(socket, "GET", &format!("{container}/json"), b"")?;
    let about: Value = serde_json::from_slice(&about)?;
    let pid = about.pointer("/State/Pid").and_then(Value::as_i64);
    let pid = Pid::from_raw(pid.context("no process")? as i32);
    let waiting = http::send(socket, "POST", &format!("{container}/wait"), b"")?;
    // Wait until the engine has noticed it.
    http::call(socket, "GET", "/_ping", b"")?;
    clock.rest(rest);
    kill(pid, Signal::SIGKILL)?;
    http::answer(waiting)?;
    let wait = clock.lap();
    clock.rest(rest);
    http::call(socket, "DELETE", &container, b"")?;
    let remove = clock.lap();
    let many = match rest.is_zero() && !(one_by_one && engine.name == "docker") {
        true => many(engine)?,
        false => <(Duration, Duration)>::default(),
    };
    Ok(Life {
        create,
        start,
        exec,
        wait,
        remove,
        many,
    })
}

struct Clock(Instant);

impl Clock {
    /// Returns the time since the last call.
    fn lap(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.0, Instant::now());
        self.0.duration_since(before)
    }

    /// Waits, and forgets the time until then.
    fn rest(&mut self, rest: Duration) {
        std::thread::sleep(rest);
        self.lap();
    }
}

/// Executes a command in a container, up to the end of its output.
fn exec(socket: &Path, container: &str) -> Result<Duration> {
    let begin = Instant::now();
    let body = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
    let exec = text(
        &http::post(socket, &format!("{container}/exec"), &body)?,
        "/Id",
    )?;
    let body = json!({"Detach": false, "Tty": false}).to_string();
    http::call(
        socket,
        "POST",
        &format!("/exec/{exec}/start"),
        body.as_bytes(),
    )?;
    Ok(begin.elapsed())
}

/// Creates, starts, awaits and removes ten containers, each by its own client. Returns the time
/// until the last one is gone, and the processor time of the engine and everything that it started.
fn many(engine: &Engine) -> Result<(Duration, Duration)> {
    let socket = engine.socket();
    let (begin, before) = (Instant::now(), engine.processor_time()?);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..MANY).map(|_| scope.spawn(|| run(socket))).collect();
        clients.into_iter().try_for_each(|client| {
            client
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a client has panicked"))
        })
    })?;
    let wall = begin.elapsed();
    Ok((wall, engine.processor_time()?.since(before).total()))
}

/// As `docker run --rm` does.
fn run(socket: &Path) -> Result<()> {
    let container = format!("/containers/{}", create(socket, &["true"])?);
    let next_exit = format!("{container}/wait?condition=next-exit");
    let waiting = http::send(socket, "POST", &next_exit, b"")?;
    http::call(socket, "POST", &format!("{container}/start"), b"")?;
    http::answer(waiting)?;
    http::call(socket, "DELETE", &container, b"")?;
    Ok(())
}

/// A row for each figure, a column for each engine, and the ratio of the last to the first.
fn figures(title: &str, series: &[Series<Life>], figures: &[Figure]) -> Table {
    let mut columns: Vec<&str> = series.iter().map(|one| one.name.as_str()).collect();
    columns.push("last / first");
    let mut table = Table::new(title, &columns);
    for (name, figure) in figures {
        let of = |one: &Series<Life>| -> Vec<f64> {
            let values = one.values.iter();
            values.map(|life| milliseconds(figure(life))).collect()
        };
        let mut cells: Vec<Cell> = series.iter().map(|one| Cell::series(of(one), 2)).collect();
        let median = |one: Option<&Series<Life>>| Summary::of(of(one?)).map(|all| all.median);
        cells.push(match (median(series.first()), median(series.last())) {
            (Some(first), Some(last)) => Cell::Number(last / first, 1),
            _ => Cell::Nothing,
        });
        table.row(name, cells);
    }
    table
}

/// The figures that are about one container.
fn single() -> &'static [Figure] {
    FIGURES
        .split_at_checked(6)
        .map_or(&[], |(single, _)| single)
}

/// The cost of rest: for each engine, the medians of one series divided by those of the other.
fn ratios(title: &str, rested: &[Series<Life>], together: &[Series<Life>]) -> Table {
    let columns: Vec<&str> = rested.iter().map(|one| one.name.as_str()).collect();
    let mut table = Table::new(title, &columns);
    for (name, figure) in single() {
        let median = |one: &Series<Life>| {
            let values = one.values.iter().map(|life| milliseconds(figure(life)));
            Summary::of(values).map(|all| all.median)
        };
        let pairs = rested.iter().zip(together);
        let cells = pairs.map(
            |(rested, together)| match (median(rested), median(together)) {
                (Some(rested), Some(together)) => Cell::Number(rested / together, 2),
                _ => Cell::Nothing,
            },
        );
        table.row(name, cells.collect());
    }
    table
}

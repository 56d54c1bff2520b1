//! Reading logs back: through the log's own reader, through the Docker API, and by the `docker` command.
//! See README.md.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use keelson_benches::engines::Engine;
use keelson_benches::http;
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::subjects::Hostds;
use keelson_benches::table::{self, Cell, Table};
use keelson_benches::usage::milliseconds;
use keelson_benches::{bundle, tools};
use keelson_log::shape::{BatchEnd, Selection, Shaper};
use keelson_log::{Next, Reader, Rotation, Stream, Writer};
use serde_json::json;

const IMAGE: &str = "bench";
/// Bytes that a process writes at once.
const WRITE: usize = 32 << 10;

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each thing is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the log in MiB, without the overhead of the format.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Length of a line in bytes.
    #[arg(long, default_value_t = 100)]
    line: usize,
    #[command(flatten)]
    hostds: Hostds,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A log written for the test, with its figures.
struct Written {
    bytes: usize,
    /// Seconds of the first and the last line.
    times: (u64, u64),
}

/// An engine and the container whose log is read.
struct Subject {
    engine: Engine,
    docker: Option<PathBuf>,
    queries: Vec<Query>,
}

/// A question to the API.
#[derive(Clone)]
struct Query {
    name: &'static str,
    text: String,
    /// Whether it reads the whole log, so that bytes per second are meaningful.
    whole: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = options.hostds.programs(&["keelson-runtime"])?;
    let directory = tempfile::Builder::new()
        .prefix("keelson-log-bench")
        .tempdir_in("/var/tmp")?;
    let (disk, run) = (directory.path(), directory.path().join("run"));
    let file = disk.join("log");
    let begin = Instant::now();
    let written = write(&file, &options)?;
    let writing = begin.elapsed();
    let mut own = vec![("keelson-log".to_owned(), file)];
    let plain = interleave(&mut own, options.rounds, |file| read(file))?;
    let shaped = interleave(&mut own, options.rounds, |file| shape(file))?;

    let mut subjects = Vec::new();
    for (name, program) in programs {
        let engine = Engine::hostd(&name, &program, disk, &run)?;
        subjects.push((name, subject(engine, &options)?));
    }
    let rates = rates("Logs, MB/s", &written, writing, [&plain, &shaped]);
    let mut tables = vec![rates];
    let questions = subjects.first().map(|(_, first)| first.queries.clone());
    for (number, query) in questions.unwrap_or_default().iter().enumerate() {
        let asked = interleave(&mut subjects, options.rounds, |subject| {
            let query = subject.queries.get(number).context("a query")?;
            ask(&subject.engine, &query.text)
        })?;
        tables.push(answers(query.name, query.whole.then_some(&written), &asked));
    }
    if subjects.iter().all(|(_, subject)| subject.docker.is_some()) {
        let asked = interleave(&mut subjects, options.rounds, command)?;
        tables.push(answers("docker logs", Some(&written), &asked));
    }
    table::publish(&tables, options.json.as_deref())
}

/// Writes the log, a line each microsecond from an hour ago on.
fn write(file: &Path, options: &Options) -> Result<Written> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let first = now - 3600;
    let limits = Rotation {
        max_size: u64::MAX,
        max_files: 1,
    };
    let mut writer = Writer::open(file, limits)?;
    let line = format!("{:>1$}\n", "a line of the log", options.line.max(20) - 1);
    let lines = (WRITE / line.len()).max(1);
    let output = line.repeat(lines);
    let (mut bytes, mut time) = (0, first * 1_000_000_000);
    while bytes < options.size << 20 {
        writer.append(Stream::Stdout, output.as_bytes(), time)?;
        bytes += output.len();
        time += lines as u64 * 1000;
    }
    Ok(Written {
        bytes,
        times: (first, time / 1_000_000_000),
    })
}

/// All records, one by one.
fn read(file: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut reader = Reader::open(file)?;
    let mut bytes = 0;
    while let Next::Record(record) = reader.next()? {
        bytes += record.payload.len();
    }
    ensure!(bytes > 0, "an empty log");
    Ok(begin.elapsed())
}

/// All lines as the API sends them.
fn shape(file: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut reader = Reader::open(file)?;
    let mut shaper = Shaper::new(Selection {
        stdout: true,
        stderr: true,
        header: Some(|stream, length| {
            let [a, b, c, d] = (length as u32).to_be_bytes();
            [stream as u8, 0, 0, 0, a, b, c, d]
        }),
        ..Selection::default()
    });
    loop {
        let (batch, progress) = shaper.batch(&mut reader)?;
        ensure!(progress != BatchEnd::More || !batch.bytes.is_empty());
        if progress != BatchEnd::More {
            return Ok(begin.elapsed());
        }
    }
}

/// A container that never ran, with a log.
fn subject(engine: Engine, options: &Options) -> Result<Subject> {
    let socket = engine.socket();
    let path = format!("/images/create?fromSrc=-&repo={IMAGE}");
    http::call(socket, "POST", &path, &bundle::image()?)?;
    let body = json!({
        "Image": IMAGE,
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none"},
    });
    http::post(socket, "/containers/create?name=it", &body)?;
    let about = http::call(socket, "GET", "/containers/it/json", b"")?;
    let about: serde_json::Value = serde_json::from_slice(&about)?;
    let log = about.pointer("/LogPath").and_then(|path| path.as_str());
    let log = Path::new(log.context("no LogPath")?);
    let written = write(log, options)?;
    let (first, last) = written.times;
    let query = |name, text: String, whole| Query { name, text, whole };
    let queries = vec![
        query("API: all", String::new(), true),
        query("API: with times", "&timestamps=1".to_owned(), true),
        query("API: the last 100 lines", "&tail=100".to_owned(), false),
        query("API: the last second", format!("&since={last}"), false),
        query(
            "API: the first microseconds",
            format!("&until={first}.0001"),
            false,
        ),
    ];
    Ok(Subject {
        docker: tools::optional("docker", "docker-cli"),
        engine,
        queries,
    })
}

fn ask(engine: &Engine, query: &str) -> Result<Duration> {
    let begin = Instant::now();
    let path = format!("/containers/it/logs?stdout=1&stderr=1{query}");
    let stream = http::send(engine.socket(), "GET", &path, b"")?;
    ensure!(http::drain(stream)? > 100, "an empty answer");
    Ok(begin.elapsed())
}

/// `docker logs`, into nothing.
fn command(subject: &mut Subject) -> Result<Duration> {
    let docker = subject.docker.as_deref().context("no docker")?;
    let begin = Instant::now();
    let status = Command::new(docker)
        .arg("--host")
        .arg(format!("unix://{}", subject.engine.socket().display()))
        .args(["logs", "it"])
        .stdout(File::create("/dev/null")?)
        .stdin(Stdio::null())
        .status()?;
    ensure!(status.success(), "docker logs: {status}");
    Ok(begin.elapsed())
}

fn rate(written: &Written, time: Duration) -> f64 {
    written.bytes as f64 / 1e6 / time.as_secs_f64()
}

fn rates(
    title: &str,
    written: &Written,
    writing: Duration,
    [plain, shaped]: [&[Series<Duration>]; 2],
) -> Table {
    let mut table = Table::new(title, &["keelson-log"]);
    table.row("written", vec![Cell::Number(rate(written, writing), 0)]);
    for (name, series) in [("records", plain), ("lines as sent", shaped)] {
        let cells = series.iter().map(|one| {
            let rates = one.values.iter().map(|time| rate(written, *time));
            Cell::series(rates, 0)
        });
        table.row(name, cells.collect());
    }
    table
}

fn answers(name: &str, written: Option<&Written>, series: &[Series<Duration>]) -> Table {
    let columns: Vec<&str> = series.iter().map(|one| one.name.as_str()).collect();
    let mut table = Table::new(name, &columns);
    let row = |figure: &dyn Fn(Duration) -> f64, digits| -> Vec<Cell> {
        let values = |one: &Series<Duration>| one.values.iter().map(|time| figure(*time)).collect();
        let cells = series.iter().map(|one| -> Vec<f64> { values(one) });
        cells.map(|values| Cell::series(values, digits)).collect()
    };
    table.row("ms", row(&milliseconds, 1));
    if let Some(written) = written {
        table.row("MB/s", row(&|time| rate(written, time), 0));
    }
    table
}

//! What health checks cost: hostd beside Docker. See README.md.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use keelson_benches::engines::Engine;
use keelson_benches::subjects::Hostds;
use keelson_benches::table::{self, Cell, Table};
use keelson_benches::{bundle, http};
use keelson_netlink::Namespace;
use serde_json::{Value, json};

const IMAGE: &str = "bench";
/// How long the first checks of all containers may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ticks of processor time per second (`USER_HZ`, the same on all machines).
const TICKS: f64 = 100.0;

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How many containers are checked each second.
    #[arg(long, default_value_t = 200)]
    containers: usize,
    /// How many containers Docker has.
    #[arg(long, default_value_t = 20)]
    docker_containers: usize,
    /// Seconds for which processor time is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measure hostd only.
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    hostds: Hostds,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy)]
struct Used {
    daemons: f64,
    shims: f64,
    all: f64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let programs = options.hostds.programs(&["keelson-runtime"])?;
    // hostd leaves the machine's network alone.
    let table = Namespace::create()?.run(|| measure(&options, &programs))??;
    table::publish(&[table], options.json.as_deref())
}

fn measure(options: &Options, programs: &[(String, PathBuf)]) -> Result<Table> {
    let prefix = "keelson-check-bench";
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    let (disk, run) = (builder.tempdir()?, builder.tempdir_in("/dev/shm")?);
    let (disk, run) = (disk.path(), run.path());
    let columns = [
        "checks a second",
        "daemons",
        "shims",
        "the rest",
        "a check, ms",
    ];
    let title = "Processor time of health checks, per cent of one core";
    let mut table = Table::new(title, &columns);
    for (name, program) in programs {
        let engine = Engine::hostd(name, program, disk, run)?;
        row(&mut table, &engine, options.containers, options.seconds)?;
    }
    let docker = match options.alone {
        true => None,
        false => Engine::dockerd(disk, run)?,
    };
    if let Some(docker) = docker {
        row(
            &mut table,
            &docker,
            options.docker_containers,
            options.seconds,
        )?;
    }
    Ok(table)
}

fn row(table: &mut Table, engine: &Engine, count: usize, seconds: u64) -> Result<()> {
    let socket = engine.socket();
    let import = format!("/images/create?fromSrc=-&repo={IMAGE}");
    http::call(socket, "POST", &import, &bundle::image()?)?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(start(socket)?);
    }
    for id in &ids {
        healthy(socket, id)?;
    }
    let (before, begin) = (used(engine)?, Instant::now());
    std::thread::sleep(Duration::from_secs(seconds));
    let (after, took) = (used(engine)?, begin.elapsed().as_secs_f64());
    for id in &ids {
        http::call(socket, "DELETE", &format!("/containers/{id}?force=1"), b"")?;
    }
    let daemons = after.daemons - before.daemons;
    let shims = after.shims - before.shims;
    let all = after.all - before.all;
    let percent = |used: f64| Cell::Number(used * 100.0 / took, 1);
    let cells = vec![
        Cell::Number(count as f64, 0),
        percent(daemons),
        percent(shims),
        percent(all - daemons - shims),
        Cell::Number(all * 1e3 / took / count as f64, 2),
    ];
    table.row(&engine.name, cells);
    Ok(())
}

/// Starts a container that is checked each second.
fn start(socket: &Path) -> Result<String> {
    let body = json!({
        "Image": IMAGE,
        "Cmd": ["sleep", "100000"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
        "HostConfig": {"NetworkMode": "none"},
    });
    let made = http::post(socket, "/containers/create", &body)?;
    let id = made
        .pointer("/Id")
        .and_then(Value::as_str)
        .context("no Id")?;
    http::call(socket, "POST", &format!("/containers/{id}/start"), b"")?;
    Ok(id.to_owned())
}

/// Waits for the first result.
fn healthy(socket: &Path, id: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let about = http::call(socket, "GET", &format!("/containers/{id}/json"), b"")?;
        let about: Value = serde_json::from_slice(&about)?;
        if about.pointer("/State/Health/Status") == Some(&json!("healthy")) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{id} is not healthy")
}

/// What the engine has used so far: its daemons, the monitors of its containers, and everything.
fn used(engine: &Engine) -> Result<Used> {
    Ok(Used {
        daemons: processor_time(engine, &["hostd", "dockerd", "containerd"])?,
        shims: processor_time(engine, &["keelson-runtime", "containerd-shim-runc-v2"])?,
        all: engine.processor_time()?.total().as_secs_f64(),
    })
}

/// Seconds that the present processes of these programs have used.
fn processor_time(engine: &Engine, programs: &[&str]) -> Result<f64> {
    let mut sum = 0.0;
    for pid in engine.programs(programs)? {
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default();
        // utime and stime, which are the fields 14 and 15 (proc_pid_stat(5)).
        let times = fields.split_whitespace().skip(11).take(2);
        sum += times.flat_map(str::parse::<f64>).sum::<f64>() / TICKS;
    }
    Ok(sum)
}

//! The memory of idle containers' monitors: our shim, and Podman's conmon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::bundle::{self, Filter};
use crate::driver::shim::{self, Shim};
use crate::table::{Cell, Table};
use crate::{tools, usage};

/// The numbers of containers that are measured.
const COUNTS: [usize; 3] = [1, 10, 50];
/// The command of the containers.
const COMMAND: [&str; 2] = ["sleep", "100000"];
/// How long processes are idle before they are measured.
const REST: Duration = Duration::from_millis(500);

/// Proportional memory (Pss) of one shim while one, ten and fifty containers idle. Pages of the
/// program that several of them have mapped are divided between them.
///
/// # Errors
/// A container can't be made.
pub fn measure(ours: &Path) -> Result<Table> {
    let mut temporary = tempfile::Builder::new();
    temporary.prefix("keelson-bench");
    let root = temporary.tempdir()?;
    bundle::make_root(root.path())?;
    let directory = temporary.tempdir_in("/run")?;
    let names = COUNTS.map(|count| format!("{count} containers"));
    let columns: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut table = Table::new("Pss of each idle container's monitor, KiB", &columns);
    let place = Place {
        root: root.path(),
        directory: directory.path(),
    };
    usage::adopt_orphans()?;
    let mut cells = Vec::new();
    for count in COUNTS {
        cells.push(place.shims(ours, count)?);
    }
    table.row("keelson shim", cells);
    if let Some(conmon) = tools::optional("conmon", "conmon") {
        let mut cells = Vec::new();
        for count in COUNTS {
            cells.push(place.conmons(&conmon, ours, count)?);
        }
        table.row("conmon", cells);
    }
    Ok(table)
}

struct Place<'a> {
    root: &'a Path,
    directory: &'a Path,
}

impl Place<'_> {
    fn bundle(&self, number: usize) -> Result<(String, std::path::PathBuf)> {
        let id = format!("keelson-bench-{}-idle-{number}", std::process::id());
        let bundle = bundle::write(self.directory, self.root, &id, &COMMAND, Filter::Named)?;
        Ok((id, bundle))
    }

    fn shims(&self, program: &Path, count: usize) -> Result<Cell> {
        let mut shims = Vec::new();
        for number in 0..count {
            let (id, bundle) = self.bundle(number)?;
            shim::prepare(&bundle, self.root, &id)?;
            let mut shim = Shim::create(program, &bundle)?;
            shim.start()?;
            shims.push(shim);
        }
        std::thread::sleep(REST);
        let cell = memory_of(shims.iter().map(|shim| shim.pid));
        for shim in shims {
            shim.end()?;
        }
        cell
    }

    /// Measures conmon with our runtime below it; conmon's memory does not depend on the runtime.
    fn conmons(&self, conmon: &Path, runtime: &Path, count: usize) -> Result<Cell> {
        let mut monitors = Vec::new();
        let state = self.directory.join("state");
        for number in 0..count {
            let (id, bundle) = self.bundle(number)?;
            let pid_file = bundle.join("conmon.pid");
            for old in [&pid_file, &bundle.join("pid")] {
                let _ = std::fs::remove_file(old);
            }
            let mut command = Command::new(conmon);
            command
                .args(["--api-version", "1", "-c", &id, "-u", &id, "-n", &id])
                .arg("-r")
                .arg(runtime)
                .arg(format!("--runtime-arg=--root={}", state.display()))
                .arg("-b")
                .arg(&bundle)
                .arg("-p")
                .arg(bundle.join("pid"))
                .arg("--conmon-pidfile")
                .arg(&pid_file)
                .arg("-l")
                .arg(format!("k8s-file:{}", bundle.join("log").display()))
                .arg("--exit-dir")
                .arg(&bundle)
                .args(["--socket-dir-path", "/run", "--full-attach"])
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            usage::run(&mut command)?;
            let container = number_in(&bundle.join("pid"))?;
            let monitor = number_in(&pid_file)?;
            usage::run(
                Command::new(runtime)
                    .arg("--root")
                    .arg(&state)
                    .args(["start", &id]),
            )?;
            monitors.push((monitor, container, id));
        }
        std::thread::sleep(REST);
        let cell = memory_of(monitors.iter().map(|(monitor, ..)| *monitor));
        for (monitor, container, id) in monitors {
            keelson_sys::clone::signal_pid(container, 9)?;
            usage::reap(monitor)?;
            usage::run(
                Command::new(runtime)
                    .arg("--root")
                    .arg(&state)
                    .args(["delete", &id]),
            )?;
        }
        cell
    }
}

/// A number in a file, which may be about to be written.
fn number_in(path: &Path) -> Result<i32> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        match text.trim().parse() {
            Ok(number) => return Ok(number),
            Err(_) if Instant::now() > deadline => {
                bail!("{}: {text:?} is not a number", path.display())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn memory_of(pids: impl Iterator<Item = i32>) -> Result<Cell> {
    let mut values = Vec::new();
    for pid in pids {
        let bytes = usage::proportional_memory(pid).with_context(|| format!("process {pid}"))?;
        values.push(bytes as f64 / 1024.0);
    }
    Ok(Cell::series(values, 0))
}

//! Compares our OCI runtime with the others on this machine, and with the kernel's part alone. See
//! README.md.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use keelson_benches::bundle::{self, Filter};
use keelson_benches::driver::{Driver, Job, Outcome, Way, shim};
use keelson_benches::rounds::{Series, interleave};
use keelson_benches::table::{self, Cell, Table};
use keelson_benches::usage::milliseconds;
use keelson_benches::{build, calls, memory, stats::Summary, tools};

/// How many containers are made at a time in the second table.
const MANY: usize = 10;
/// The suffix of the name of a runtime whose file is on a writable mount.
const WRITABLE: &str = "-writable";
/// The suffix of the name of a runtime whose containers are in the host's cgroup namespace.
const SHARED: &str = "-cgroups";
/// The idle time before a single start. Work that the kernel postpones, such as the end of a grace
/// period, is then waited for in full, and caches are colder.
const REST: Duration = Duration::from_millis(250);
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// The mount of a hybrid host that some runtimes refuse.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Command line.
#[derive(Debug, Parser)]
struct Options {
    /// How often each runtime is measured by itself.
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// How often ten at a time are measured.
    #[arg(long, default_value_t = 5)]
    parallel_rounds: usize,
    /// Print the system calls of our runtime by name.
    #[arg(long)]
    calls: bool,
    /// Measure the memory of idle shims instead.
    #[arg(long)]
    memory: bool,
    /// Measure no peers. Then the benchmark can run under `chrt -f 10` on a busy machine; the peers
    /// can't, because they use the processor controller of version 1.
    #[arg(long)]
    alone: bool,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One way to run containers.
struct Subject {
    jobs: Vec<Job>,
    program: PathBuf,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !nix::unistd::geteuid().is_root() {
        bail!("making containers needs root");
    }
    let ours = build::release("keelson-runtime", "keelson-runtime")?;
    if options.memory {
        return table::publish(&[memory::measure(&ours)?], options.json.as_deref());
    }
    let driver = build::release("keelson-benches", "driver")?;
    let mut temporary = tempfile::Builder::new();
    temporary.prefix("keelson-bench");
    let root = temporary.tempdir()?;
    bundle::make_root(root.path())?;
    let directory = temporary.tempdir_in(in_memory()?)?;
    let peers: &[&str] = match options.alone {
        true => &[],
        false => &["crun", "runc", "youki"],
    };
    let mut subjects = subjects(directory.path(), root.path(), &ours, &driver, peers)?;

    let together = interleave(&mut subjects, options.rounds, |subject| {
        one(&driver, subject, Duration::ZERO)
    })?;
    let rested = interleave(&mut subjects, options.rounds, |subject| {
        one(&driver, subject, REST)
    })?;
    let mut counts = Vec::new();
    for (name, subject) in &subjects {
        counts.push(
            count_calls(directory.path(), &driver, subject, options.calls)
                .with_context(|| format!("count the system calls of {name}"))?,
        );
    }
    let parallel = interleave(&mut subjects, options.parallel_rounds, |subject| {
        many(&driver, subject)
    })?;
    let tables = [
        together_table(&together, &counts),
        rested_table(&rested, &together),
        parallel_table(&parallel),
    ];
    table::publish(&tables, options.json.as_deref())
}

fn subjects(
    directory: &Path,
    root: &Path,
    ours: &Path,
    driver: &Path,
    peers: &[&str],
) -> Result<Vec<(String, Subject)>> {
    let mut subjects = Vec::new();
    let mut add = |name: &str, program: &Path, filter, way: &dyn Fn(PathBuf, String) -> Way| {
        let readonly = (!name.ends_with(WRITABLE)).then(|| program.to_owned());
        let hidden = way_is_foreign(name).then(hidden).flatten();
        let mut jobs = Vec::with_capacity(MANY);
        for number in 0..MANY {
            let id = format!("keelson-bench-{}-{name}-{number}", std::process::id());
            let bundle = bundle::write(directory, root, &id, &["true"], filter)?;
            if name.ends_with(SHARED) {
                bundle::share_cgroups(&bundle)?;
            }
            shim::prepare(&bundle, root, &id)?;
            jobs.push(Job {
                way: way(bundle, id),
                cycles: 1,
                hidden: hidden.clone(),
                readonly: readonly.clone(),
            });
        }
        let program = program.to_owned();
        subjects.push((name.to_owned(), Subject { jobs, program }));
        anyhow::Ok(())
    };
    add("floor", driver, Filter::Named, &|bundle, _| Way::Floor {
        bundle,
        root: root.to_owned(),
    })?;
    add("shim", ours, Filter::Named, &|bundle, _| Way::Shim {
        program: ours.to_owned(),
        bundle,
    })?;
    let commands = |program: &Path, name: &str| {
        let (program, state) = (program.to_owned(), directory.join(format!("state-{name}")));
        move |bundle, id| Way::Commands {
            program: program.clone(),
            state: state.clone(),
            bundle,
            id,
        }
    };
    add("keelson", ours, Filter::Written, &commands(ours, "keelson"))?;
    let writable = format!("keelson{WRITABLE}");
    add(&writable, ours, Filter::Written, &commands(ours, &writable))?;
    let shared = format!("keelson{SHARED}");
    add(&shared, ours, Filter::Written, &commands(ours, &shared))?;
    for name in peers.iter().copied() {
        if let Some(program) = tools::optional(name, name) {
            add(name, &program, Filter::Written, &commands(&program, name))?;
            let shared = format!("{name}{SHARED}");
            add(
                &shared,
                &program,
                Filter::Written,
                &commands(&program, &shared),
            )?;
            println!(
                "{}",
                tools::version(Command::new(&program).arg("--version"))
            );
        }
    }
    Ok(subjects)
}

fn way_is_foreign(name: &str) -> bool {
    name != "floor" && name != "shim" && !name.starts_with("keelson")
}

/// A directory in memory, as engines keep bundles and state: not every machine has /run there.
fn in_memory() -> Result<&'static str> {
    ["/run", "/dev/shm"]
        .into_iter()
        .find(|path| {
            rustix::fs::statfs(*path).is_ok_and(|status| status.f_type as u64 == TMPFS_MAGIC)
        })
        .context("neither /run nor /dev/shm is in memory")
}

/// If crun finds this mount, it assumes a host with version 2 only and misses the controllers. It
/// is hidden from runc too, so that both do the same work.
fn hidden() -> Option<PathBuf> {
    let path = PathBuf::from(UNIFIED);
    path.join("cgroup.procs").exists().then_some(path)
}

/// One cycle, after a rest.
fn one(driver: &Path, subject: &mut Subject, rest: Duration) -> Result<Outcome> {
    let job = subject.jobs.first().context("no job")?;
    let mut running = Driver::start(driver, &[], job)?;
    std::thread::sleep(rest);
    running.release()?;
    let outcomes = running.finish()?;
    outcomes.first().copied().context("nothing was measured")
}

/// Runs one cycle in each of many drivers at the same time. Returns the time until the last one
/// ended, and the processor time of all.
fn many(driver: &Path, subject: &mut Subject) -> Result<(Duration, Duration)> {
    let started: Result<Vec<Driver>> = subject
        .jobs
        .iter()
        .map(|job| Driver::start(driver, &[], job))
        .collect();
    let mut running = started?;
    let begin = Instant::now();
    for driver in &mut running {
        driver.release()?;
    }
    let mut used = 0;
    for driver in running {
        let outcomes = driver.finish()?;
        used += outcomes
            .iter()
            .map(|outcome| outcome.user + outcome.system)
            .sum::<u64>();
    }
    Ok((begin.elapsed(), Duration::from_micros(used)))
}

/// System calls of a cycle, by strace.
fn count_calls(
    directory: &Path,
    driver: &Path,
    subject: &Subject,
    print: bool,
) -> Result<Option<usize>> {
    let Some(strace) = tools::optional("strace", "strace") else {
        return Ok(None);
    };
    let trace = directory.join("trace");
    let (strace, file) = (strace.to_string_lossy(), trace.to_string_lossy());
    let before = [&*strace, "-f", "-s", "512", "-o", &*file];
    let job = subject.jobs.first().context("no job")?;
    let mut running = Driver::start(driver, &before, job)?;
    running.release()?;
    running.finish()?;
    let text = String::from_utf8_lossy(&std::fs::read(&trace)?).into_owned();
    let counts = calls::count(&text, &subject.program.to_string_lossy());
    if print {
        let mut sorted: Vec<_> = counts.iter().collect();
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let list: Vec<String> = sorted
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        println!("{}: {}\n", subject.program.display(), list.join(", "));
    }
    Ok(Some(counts.values().sum()))
}

/// The median of one series divided by that of another.
fn ratio(value: Option<Summary>, base: Option<Summary>) -> Cell {
    match (value, base) {
        (Some(value), Some(base)) => Cell::Number(value.median / base.median, 2),
        _ => Cell::Nothing,
    }
}

fn together_table(series: &[Series<Outcome>], counts: &[Option<usize>]) -> Table {
    let title = "create + start + wait + delete of `true`, ms";
    let mut table = Table::new(
        title,
        &[
            "wall",
            "create",
            "CPU",
            "memory MB",
            "calls",
            "wall/crun",
            "CPU/crun",
            "wall/floor",
        ],
    );
    let wall = |one: &Outcome| one.total as f64 / 1e3;
    let cpu = |one: &Outcome| (one.user + one.system) as f64 / 1e3;
    let summary = |name: &str, of: &dyn Fn(&Outcome) -> f64| {
        let found = series.iter().find(|one| one.name == name)?;
        Summary::of(found.values.iter().map(of))
    };
    for (one, count) in series.iter().zip(counts) {
        let cell =
            |of: &dyn Fn(&Outcome) -> f64, digits| Cell::series(one.values.iter().map(of), digits);
        let (own_wall, own_cpu) = (summary(&one.name, &wall), summary(&one.name, &cpu));
        table.row(
            &one.name,
            vec![
                cell(&wall, 2),
                cell(&|one| one.create as f64 / 1e3, 2),
                cell(&cpu, 2),
                cell(&|one| one.peak_memory as f64 / 1e6, 1),
                count.map_or(Cell::Nothing, |count| Cell::Number(count as f64, 0)),
                ratio(own_wall, summary("crun", &wall)),
                ratio(own_cpu, summary("crun", &cpu)),
                ratio(own_wall, summary("floor", &wall)),
            ],
        );
    }
    table
}

/// Compares single cycles with cycles back to back.
fn rested_table(rested: &[Series<Outcome>], together: &[Series<Outcome>]) -> Table {
    let title = format!(
        "The same, each alone after {} ms of rest, ms",
        REST.as_millis()
    );
    let mut table = Table::new(
        &title,
        &[
            "wall",
            "create",
            "wall/together",
            "create/together",
            "wall/crun",
            "create/crun",
        ],
    );
    let wall = |one: &Outcome| one.total as f64 / 1e3;
    let create = |one: &Outcome| one.create as f64 / 1e3;
    let summary = |of_all: &[Series<Outcome>], name: &str, of: &dyn Fn(&Outcome) -> f64| {
        let found = of_all.iter().find(|one| one.name == name)?;
        Summary::of(found.values.iter().map(of))
    };
    for one in rested {
        // Compare with the runtime whose containers are in the same cgroup namespace.
        let crun = match one.name.ends_with(SHARED) {
            true => format!("crun{SHARED}"),
            false => "crun".to_owned(),
        };
        let own = |of: &dyn Fn(&Outcome) -> f64| summary(rested, &one.name, of);
        table.row(
            &one.name,
            vec![
                Cell::series(one.values.iter().map(wall), 2),
                Cell::series(one.values.iter().map(create), 2),
                ratio(own(&wall), summary(together, &one.name, &wall)),
                ratio(own(&create), summary(together, &one.name, &create)),
                ratio(own(&wall), summary(rested, &crun, &wall)),
                ratio(own(&create), summary(rested, &crun, &create)),
            ],
        );
    }
    table
}

fn parallel_table(series: &[Series<(Duration, Duration)>]) -> Table {
    let title = format!("The same, {MANY} at a time, ms for all of them");
    let mut table = Table::new(&title, &["wall", "CPU", "wall/crun", "CPU/crun"]);
    let summary = |name: &str, of: fn(&(Duration, Duration)) -> f64| {
        let found = series.iter().find(|one| one.name == name)?;
        Summary::of(found.values.iter().map(of))
    };
    let wall = |(wall, _): &(Duration, Duration)| milliseconds(*wall);
    let cpu = |(_, cpu): &(Duration, Duration)| milliseconds(*cpu);
    for one in series {
        table.row(
            &one.name,
            vec![
                Cell::series(one.values.iter().map(wall), 1),
                Cell::series(one.values.iter().map(cpu), 1),
                ratio(summary(&one.name, wall), summary("crun", wall)),
                ratio(summary(&one.name, cpu), summary("crun", cpu)),
            ],
        );
    }
    table
}

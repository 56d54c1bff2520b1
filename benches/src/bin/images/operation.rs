//! The measured operations: preparation, measurement and clean-up of each.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use keelson_benches::rounds::{self, Series};
use keelson_benches::stats::Summary;
use keelson_benches::table::{Cell, Table};
use keelson_benches::usage::Cost;

use crate::floor::Floor;
use crate::lab::Lab;
use crate::sample::{Form, Sample, Size};
use keelson_benches::engines::{Engine, Request};

/// The container whose changes are examined.
const CONTAINER: &str = "changed";
/// Its changes: 5 % of the files are made again elsewhere, some are removed and some change.
const SCRIPT: &str = "cp -r /data/4 /new && rm -rf /data/3/1 /data/3/2 && \
                      for file in /data/2/1/* /data/1/1/*; do echo changed >> $file; done";
const COMMITTED: &str = "localhost/committed:1";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// From a registry on this machine, with layers in gzip and in zstd.
    Pull,
    /// Of a loaded image to an empty registry.
    Push,
    /// Of a pulled image to another, empty registry.
    Mirror,
    /// To an archive.
    Save,
    /// From an archive.
    Load,
    /// What a container has changed.
    Diff,
    /// A container to an image.
    Commit,
    /// A container's files to an archive.
    Export,
    /// Peak memory of pulling images of two sizes.
    Memory,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// One row of a table.
enum Subject<'a> {
    Engine(&'a Engine),
    Floor(Floor),
}

/// The result of one subject's turn, or why it has none.
type Turn = Result<Cost, String>;

impl Operation {
    /// The operations that fit into the time together.
    pub(crate) const DEFAULT: [Self; 7] = [
        Self::Pull,
        Self::Push,
        Self::Save,
        Self::Load,
        Self::Diff,
        Self::Commit,
        Self::Export,
    ];

    /// How many tables the operation measures, one after another.
    pub(crate) const fn tables(self) -> u32 {
        match self {
            Self::Pull => 2,
            Self::Memory => 4,
            _ => 1,
        }
    }

    /// Measures all engines.
    pub(crate) fn measure(self, lab: &Lab, memory_sizes: [Size; 2]) -> Result<Vec<Table>> {
        eprintln!("measuring {self}");
        let sample = &lab.sample;
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let plain = megabytes(Sample::bytes(&sample.tars())?);
        let files = sample.size.files;
        match self {
            Self::Pull => Form::ALL
                .into_iter()
                .map(|form| {
                    let image = lab.published(sample, form)?;
                    let floors = Floor::of_pull(sample, form, &image, lab.disk())?;
                    let blobs = megabytes(Sample::bytes(&sample.compressed(form))?);
                    let title = format!(
                        "Pull: {plain} MB, {files} files, {} layers, {blobs} MB {}",
                        sample.tars().len(),
                        form.name()
                    );
                    Job::new(lab, self, form, image).table(&title, floors)
                })
                .collect(),
            Self::Push | Self::Mirror => {
                let image = lab.published(sample, Form::Gzip)?;
                let floors = Floor::of_push(sample, lab.disk());
                let from = if self == Self::Push {
                    "that was loaded"
                } else {
                    "that was pulled with gzip"
                };
                let title = format!("Push: an image of {plain} MB {from}, to an empty registry");
                let job = Job::new(lab, self, Form::Gzip, image);
                Ok(vec![job.table(&title, floors)?])
            }
            Self::Save | Self::Load => {
                let title = format!("{self}: an archive of {plain} MB");
                let job = Job::new(lab, self, Form::Gzip, sample.name());
                let floors = Floor::of_archive(sample, lab.disk());
                Ok(vec![job.table(&title, floors)?])
            }
            Self::Diff | Self::Commit | Self::Export => {
                let title = format!("{self}: a container of {plain} MB that changed 5 % of it");
                let job = Job::new(lab, self, Form::Gzip, sample.name());
                Ok(vec![job.table(&title, Vec::new())?])
            }
            Self::Memory => Ok(vec![memory(lab, memory_sizes)?]),
        }
    }
}

/// One operation with its image.
struct Job<'a> {
    lab: &'a Lab,
    operation: Operation,
    form: Form,
    /// The image that is pulled, or pushed.
    image: String,
    /// What is loaded.
    input: PathBuf,
    /// What is saved or exported.
    output: PathBuf,
}

impl<'a> Job<'a> {
    fn new(lab: &'a Lab, operation: Operation, form: Form, image: String) -> Self {
        Self {
            lab,
            operation,
            form,
            image,
            input: lab.sample.archive(),
            output: lab.disk().join("archive.tar"),
        }
    }

    fn table(&self, title: &str, floors: Vec<Floor>) -> Result<Table> {
        let series = self.series(floors)?;
        let wall = |cost: &Cost| cost.wall.as_secs_f64();
        let median = |one: &Series<Turn>| {
            let walls = one.values.iter().flatten().map(wall);
            Summary::of(walls).map(|summary| summary.median)
        };
        let ours = series.first().and_then(median);
        let engines = self.lab.engines.iter().map(|engine| &*engine.name);
        let engines: Vec<&str> = engines.collect();
        let columns = ["wall s", "of ours", "CPU s", "peak MiB"];
        let mut table = Table::new(title, &columns);
        for one in &series {
            let costs: Vec<&Cost> = one.values.iter().flatten().collect();
            if let Some(Err(reason)) = one.values.first() {
                table.row(&one.name, vec![Cell::Text(reason.clone())]);
                continue;
            }
            let ratio = match (median(one), ours) {
                (Some(wall), Some(ours)) => Cell::Number(wall / ours, 2),
                _ => Cell::Nothing,
            };
            let peaks = costs.iter().map(|cost| cost.peak_memory);
            // A plain tool's peak memory would only show the memory of the benchmark that started
            // it.
            let peaks = peaks.filter(|_| engines.contains(&one.name.as_str()));
            let cells = vec![
                Cell::series(costs.iter().map(|cost| wall(cost)), 2),
                ratio,
                Cell::series(costs.iter().map(|cost| cost.cpu().as_secs_f64()), 2),
                Cell::series(peaks.map(mebibytes), 0),
            ];
            table.row(&one.name, cells);
        }
        Ok(table)
    }

    fn series(&self, floors: Vec<Floor>) -> Result<Vec<Series<Turn>>> {
        let mut subjects: Vec<(String, (Subject<'_>, Option<String>))> = Vec::new();
        for engine in &self.lab.engines {
            if !engine.knows(&self.request()) {
                continue;
            }
            let why_not = match engine.refuses_zstd().filter(|_| self.form == Form::Zstd) {
                Some(reason) => Some(reason.to_owned()),
                None => self
                    .begin(engine)
                    .err()
                    .map(|error| self.failure(engine, &error)),
            };
            subjects.push((engine.name.clone(), (Subject::Engine(engine), why_not)));
        }
        subjects.extend(
            floors
                .into_iter()
                .map(|floor| (floor.name.clone(), (Subject::Floor(floor), None))),
        );
        let (rounds, end) = (self.lab.rounds, self.lab.budget.end_of_next());
        let series =
            rounds::interleave_until(&mut subjects, rounds, Some(end), |(subject, why_not)| {
                if let Some(reason) = why_not {
                    return Ok(Err(reason.clone()));
                }
                match self.turn(subject) {
                    Ok(cost) => Ok(Ok(cost)),
                    Err(error) => match subject {
                        Subject::Floor(_) => Err(error),
                        Subject::Engine(engine) => {
                            let reason = self.failure(engine, &error);
                            *why_not = Some(reason.clone());
                            Ok(Err(reason))
                        }
                    },
                }
            })?;
        for engine in &self.lab.engines {
            self.end(engine);
        }
        Ok(series)
    }

    /// Says why an engine has no figures, in detail on standard error.
    fn failure(&self, engine: &Engine, error: &anyhow::Error) -> String {
        eprintln!("{} cannot {}: {error:#}", engine.name, self.operation);
        "fails".to_owned()
    }

    /// What is measured, for operations that need no registry of their own.
    fn request(&self) -> Request<'_> {
        match self.operation {
            Operation::Pull | Operation::Memory => Request::Pull(&self.image),
            Operation::Push | Operation::Mirror => Request::Push(&self.image),
            Operation::Save => Request::Save(&self.image, &self.output),
            Operation::Load => Request::Load(&self.input),
            Operation::Diff => Request::Diff(CONTAINER),
            Operation::Commit => Request::Commit(CONTAINER, COMMITTED),
            Operation::Export => Request::Export(CONTAINER, &self.output),
        }
    }

    /// Before all rounds.
    fn begin(&self, engine: &Engine) -> Result<()> {
        use Operation as Op;
        if let Op::Save | Op::Diff | Op::Commit | Op::Export = self.operation {
            engine.request(&Request::Load(&self.input))?;
        }
        if let Op::Diff | Op::Commit | Op::Export = self.operation {
            engine.request(&Request::Run(CONTAINER, &self.image, SCRIPT))?;
        }
        Ok(())
    }

    /// After all rounds.
    fn end(&self, engine: &Engine) {
        engine.try_request(&Request::RemoveContainer(CONTAINER));
        engine.try_request(&Request::RemoveImage(&self.lab.sample.name()));
        engine.try_request(&Request::RemoveImage(&self.image));
    }

    fn turn(&self, subject: &Subject<'_>) -> Result<Cost> {
        match subject {
            Subject::Engine(engine) => self.engine_turn(engine),
            Subject::Floor(floor) => {
                let registry = self.lab.empty_registry()?;
                floor.prepare()?;
                self.lab.settle();
                let cost = floor.measure(&registry.name("pushed:1"));
                floor.clean();
                cost
            }
        }
    }

    fn engine_turn(&self, engine: &Engine) -> Result<Cost> {
        use Operation as Op;
        let loaded = self.lab.sample.name();
        match self.operation {
            Op::Pull | Op::Memory => engine.try_request(&Request::RemoveImage(&self.image)),
            Op::Load => engine.try_request(&Request::RemoveImage(&loaded)),
            Op::Push | Op::Mirror => return self.push_turn(engine),
            Op::Save | Op::Diff | Op::Commit | Op::Export => {}
        }
        self.lab.settle();
        let cost = engine.measure(&self.request())?;
        match self.operation {
            Op::Save | Op::Export => std::fs::remove_file(&self.output)?,
            Op::Commit => engine.request(&Request::RemoveImage(COMMITTED))?,
            _ => {}
        }
        Ok(cost)
    }

    /// The engine imports the image again each time, so that it remembers nothing of earlier
    /// pushes.
    fn push_turn(&self, engine: &Engine) -> Result<Cost> {
        let registry = self.lab.empty_registry()?;
        let target = registry.name("pushed:1");
        let loaded = self.lab.sample.name();
        let source = if self.operation == Operation::Push {
            engine.request(&Request::Load(&self.input))?;
            &loaded
        } else {
            engine.request(&Request::Pull(&self.image))?;
            &self.image
        };
        engine.request(&Request::Tag(source, &target))?;
        self.lab.settle();
        let cost = engine.measure(&Request::Push(&target));
        for name in [&target, source] {
            engine.try_request(&Request::RemoveImage(name));
        }
        cost
    }
}

/// Peak memory of engines with a daemon while they pull images of two sizes.
fn memory(lab: &Lab, sizes: [Size; 2]) -> Result<Table> {
    let mut columns = Vec::new();
    let mut rows: Vec<(String, Vec<Cell>)> = lab
        .engines
        .iter()
        .map(|engine| (engine.name.clone(), Vec::new()))
        .collect();
    for size in sizes {
        let sample = lab.sample(size)?;
        for form in Form::ALL {
            columns.push(format!("{} MB {}", size.bytes / 1_000_000, form.name()));
            let image = lab.published(&sample, form)?;
            let job = Job::new(lab, Operation::Memory, form, image);
            for ((_, cells), one) in rows.iter_mut().zip(job.series(Vec::new())?) {
                let peaks = one.values.iter().flatten();
                cells.push(Cell::series(
                    peaks.map(|cost| mebibytes(cost.peak_memory)),
                    0,
                ));
            }
        }
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("Peak memory of a pull (MiB)", &columns);
    for (name, cells) in rows {
        table.row(&name, cells);
    }
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

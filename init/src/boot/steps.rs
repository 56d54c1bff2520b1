//! The record of the boot: the duration of each step, and the failures that did not stop the boot.

use keelson_model::init::BootStep;

use crate::console;

/// The steps so far, in the order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Steps(pub(crate) Vec<BootStep>);

impl Steps {
    /// Runs a step. Failures are printed and recorded, and the boot continues.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Vec<String>) {
        let started = console::uptime();
        let problems = step();
        self.end(name, started, problems);
    }

    /// Records a step that began at `started` and ends now.
    pub(crate) fn end(&mut self, name: &str, started: f64, problems: Vec<String>) {
        for problem in &problems {
            console::warning(&format!("{name}: {problem}"));
        }
        self.record(name, started, console::uptime(), &problems);
    }

    /// Records a step without printing.
    pub(crate) fn record(&mut self, name: &str, started: f64, ended: f64, problems: &[String]) {
        self.0.push(BootStep {
            name: name.to_owned(),
            started,
            ended,
            error: (!problems.is_empty()).then(|| problems.join("; ")),
        });
    }
}

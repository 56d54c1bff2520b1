//! Runs cases, a few at a time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::lab::Lab;
use crate::runtime::Runtime;
use crate::verdict::Verdict;

/// The result of one case with one runtime, and its duration.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) time: Duration,
}

/// Outcomes by case, and by the runtime's position in the list.
pub(crate) type Results = BTreeMap<(&'static str, usize), Outcome>;

/// Runs every case with every runtime.
pub(crate) fn run(cases: &[&Case], runtimes: &[Runtime], jobs: usize) -> Results {
    let work: Vec<(&Case, usize)> = cases
        .iter()
        .flat_map(|case| (0..runtimes.len()).map(|index| (*case, index)))
        .collect();
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Results::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some((case, index)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(runtime) = runtimes.get(*index) else {
                        continue;
                    };
                    let begun = Instant::now();
                    let outcome = Outcome {
                        verdict: check(case, runtime),
                        time: begun.elapsed(),
                    };
                    let mut results = results
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    results.insert((case.id, *index), outcome);
                }
            });
        }
    });
    results
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn check(case: &Case, runtime: &Runtime) -> Verdict {
    // Dropping the lab cleans up, even after a panic.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new(runtime)?;
        (case.run)(&lab)?;
        lab.prove()
    }));
    match outcome {
        Ok(result) => Verdict::of(result),
        Err(_) => Verdict::Fail("the case panicked".to_owned()),
    }
}

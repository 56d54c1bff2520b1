//! Results of a run on another machine, for cases that this machine can't run.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::runner::{Outcome, Results};
use crate::runtime::Runtime;
use crate::verdict::Verdict;

/// Takes verdicts from `found`, the JSON of a report, for cases that were skipped here. Runtimes
/// with the same file name count as the same. Returns the identifiers of the cases.
pub(crate) fn fill_in(
    results: &mut Results,
    runtimes: &[Runtime],
    found: &Value,
) -> BTreeSet<&'static str> {
    let mut filled_in = BTreeSet::new();
    for ((case, runtime), outcome) in results.iter_mut() {
        let skipped = matches!(outcome.verdict, Verdict::Skip(_));
        let Some(runtime) = runtimes.get(*runtime).filter(|_| skipped) else {
            continue;
        };
        match outcome_of(found, case, &runtime.name) {
            Some(other) if !matches!(other.verdict, Verdict::Skip(_)) => {
                *outcome = other;
                filled_in.insert(*case);
            }
            _ => {}
        }
    }
    filled_in
}

/// The verdict of a case with a runtime, from the JSON of a report.
pub(crate) fn outcome_of(found: &Value, case: &str, runtime: &str) -> Option<Outcome> {
    let cases = found.as_array()?;
    let entry = cases.iter().find(|entry| entry["case"] == case)?;
    let named = |path: &str| {
        Path::new(path)
            .file_name()
            .is_some_and(|name| name == runtime)
    };
    let results = entry["results"].as_object()?;
    let (_, result) = results.iter().find(|(path, _)| named(path))?;
    let reason = result["reason"].as_str().unwrap_or_default().to_owned();
    let verdict = match result["verdict"].as_str()? {
        "pass" => Verdict::Pass,
        "FAIL" => Verdict::Fail(reason),
        "skip" => Verdict::Skip(reason),
        _ => return None,
    };
    let seconds = result["seconds"].as_f64().unwrap_or_default();
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Some(Outcome { verdict, time })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_skipped_cases_are_filled_in() {
        let runtime = Runtime {
            path: "/here/runc".into(),
            name: "runc".to_owned(),
            version: String::new(),
            hides_unified: false,
        };
        let outcome = |verdict| Outcome {
            verdict,
            time: Duration::ZERO,
        };
        let skip = || Verdict::Skip("no controller".to_owned());
        let mut results = Results::from([
            (("a.b.c", 0), outcome(skip())),
            (("a.b.d", 0), outcome(Verdict::Pass)),
            (("a.b.e", 0), outcome(skip())),
            (("a.b.f", 0), outcome(skip())),
        ]);
        let found = json!([
            {"case": "a.b.c", "results": {"/there/runc": {"verdict": "FAIL", "reason": "no"}}},
            {"case": "a.b.d", "results": {"/there/runc": {"verdict": "FAIL", "reason": "no"}}},
            {"case": "a.b.e", "results": {"/there/crun": {"verdict": "pass"}}},
            {"case": "a.b.f", "results": {"/there/runc": {"verdict": "skip", "reason": "no"}}},
        ]);
        let filled_in = fill_in(&mut results, &[runtime], &found);
        assert_eq!(filled_in, BTreeSet::from(["a.b.c"]));
        let verdict = |case| &results[&(case, 0)].verdict;
        assert_eq!(*verdict("a.b.c"), Verdict::Fail("no".to_owned()));
        assert_eq!(*verdict("a.b.d"), Verdict::Pass);
        assert_eq!(*verdict("a.b.e"), skip());
        assert_eq!(*verdict("a.b.f"), skip());
    }
}

//! The results as a table, as JSON and as a page of the documentation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::case::Case;
use crate::exceptions::{self, EXCEPTIONS, REVIEWED};
use crate::rootless;
use crate::runner::Results;
use crate::runtime::Runtime;
use crate::verdict::Verdict;

/// The results of a run.
pub(crate) struct Report<'a> {
    pub(crate) cases: &'a [&'a Case],
    pub(crate) runtimes: &'a [Runtime],
    pub(crate) results: &'a Results,
    /// Cases whose results come from another machine.
    pub(crate) elsewhere: &'a BTreeSet<&'static str>,
    /// The position of the runtime that must pass.
    pub(crate) subject: usize,
}

impl Report<'_> {
    fn verdict(&self, case: &Case, runtime: usize) -> &Verdict {
        const NONE: &Verdict = &Verdict::Skip(String::new());
        self.results
            .get(&(case.id, runtime))
            .map_or(NONE, |outcome| &outcome.verdict)
    }

    fn peers(&self) -> impl Iterator<Item = usize> {
        (0..self.runtimes.len()).filter(|index| *index != self.subject)
    }

    /// Cases that the subject fails without an exception, and cases that it passes although an
    /// exception names them (then the exception must be removed). Results of the other runtimes do
    /// not count.
    fn wrong(&self) -> Vec<&Case> {
        self.cases
            .iter()
            .filter(|case| match self.verdict(case, self.subject) {
                Verdict::Fail(_) => exceptions::reason(case.id).is_none(),
                Verdict::Pass => exceptions::reason(case.id).is_some(),
                Verdict::Skip(_) => false,
            })
            .copied()
            .collect()
    }

    pub(crate) fn subject_fails(&self) -> bool {
        !self.wrong().is_empty()
    }

    /// Whether any case was skipped for a runtime.
    pub(crate) fn passes_over(&self) -> bool {
        let mut outcomes = self.results.values();
        outcomes.any(|outcome| matches!(outcome.verdict, Verdict::Skip(_)))
    }

    /// Cases that every peer fails: the case itself may be wrong.
    fn suspect(&self, case: &Case) -> bool {
        self.peers().count() > 1
            && self
                .peers()
                .all(|peer| matches!(self.verdict(case, peer), Verdict::Fail(_)))
    }

    /// The results for a terminal.
    pub(crate) fn table(&self) -> String {
        let width = self.cases.iter().map(|case| case.id.len()).max();
        let width = width.unwrap_or_default();
        let mut text = format!("{:<width$}", "case");
        for runtime in self.runtimes {
            text.push_str(&format!("  {:<15}", runtime.name));
        }
        text.push('\n');
        let mut reasons = String::new();
        for case in self.cases {
            text.push_str(&format!("{:<width$}", case.id));
            for (index, runtime) in self.runtimes.iter().enumerate() {
                let verdict = self.verdict(case, index);
                text.push_str(&format!("  {:<15}", verdict.word()));
                if let Verdict::Fail(reason) | Verdict::Skip(reason) = verdict {
                    reasons.push_str(&format!(
                        "{} {} {}: {reason}\n",
                        verdict.word(),
                        runtime.name,
                        case.id
                    ));
                }
            }
            if self.suspect(case) {
                text.push_str("  suspect");
            }
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&reasons);
        text.push('\n');
        text.push_str(&self.summary());
        text
    }

    /// How many cases a runtime passed, failed and skipped.
    fn counts(&self, runtime: usize) -> [usize; 3] {
        ["pass", "FAIL", "skip"].map(|word| {
            let words = self
                .cases
                .iter()
                .map(|case| self.verdict(case, runtime).word());
            words.filter(|found| *found == word).count()
        })
    }

    fn summary(&self) -> String {
        let mut text = String::new();
        for (index, runtime) in self.runtimes.iter().enumerate() {
            let [pass, fail, skip] = self.counts(index);
            text.push_str(&format!(
                "{:<16} {pass:>3} passed, {fail:>2} failed, {skip:>2} skipped, of {}\n",
                runtime.name,
                self.cases.len()
            ));
        }
        let suspects = self.cases.iter().filter(|case| self.suspect(case)).count();
        if suspects > 0 {
            text.push_str(&format!(
                "{suspects} cases are suspect: every other runtime fails them.\n"
            ));
        }
        let wrong = self.wrong();
        for case in &wrong {
            let what = match self.verdict(case, self.subject) {
                Verdict::Pass => "NEEDS NO EXCEPTION",
                _ => "FAILED",
            };
            text.push_str(&format!("{what}: {} ({})\n", case.id, case.requirement));
        }
        if wrong.is_empty() {
            let name = self.runtimes.get(self.subject).map(|runtime| &runtime.name);
            text.push_str(&format!(
                "{} passes every case, but for {} written exceptions.\n",
                name.map(String::as_str).unwrap_or_default(),
                EXCEPTIONS.len()
            ));
        }
        text
    }

    /// The results for programs.
    pub(crate) fn json(&self) -> Value {
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|case| {
                let results: serde_json::Map<String, Value> = self
                    .runtimes
                    .iter()
                    .enumerate()
                    .map(|(index, runtime)| {
                        let verdict = self.verdict(case, index);
                        let reason = match verdict {
                            Verdict::Pass => None,
                            Verdict::Fail(reason) | Verdict::Skip(reason) => Some(reason),
                        };
                        let time = self.results.get(&(case.id, index));
                        let value = json!({
                            "verdict": verdict.word(),
                            "reason": reason,
                            "seconds": time.map(|outcome| outcome.time.as_secs_f64()),
                        });
                        (runtime.path.display().to_string(), value)
                    })
                    .collect();
                json!({
                    "case": case.id,
                    "level": case.level.name(),
                    "section": case.section,
                    "requirement": case.requirement,
                    "suspect": self.suspect(case),
                    "exception": exceptions::reason(case.id),
                    "results": results,
                })
            })
            .collect();
        json!(cases)
    }

    /// The results for the documentation, including those as an ordinary user.
    pub(crate) fn page(&self, user: &Report<'_>) -> String {
        let mut text = String::from(PAGE_HEAD);
        text.push_str(&self.sums());
        text.push_str("| case | level | section | requirement |");
        for runtime in self.runtimes {
            text.push_str(&format!(" {} |", runtime.name));
        }
        text.push_str("\n|---|---|---|---|");
        text.push_str(&"---|".repeat(self.runtimes.len()));
        text.push('\n');
        for case in self.cases {
            text.push_str(&row(case));
            let mark = match self.elsewhere.contains(case.id) {
                true => " (VM)",
                false => "",
            };
            for index in 0..self.runtimes.len() {
                text.push_str(&format!(" {}{mark} |", self.verdict(case, index).word()));
            }
            text.push('\n');
        }
        text.push_str("\n## Skipped, and why\n\n");
        let mut reasons: Vec<String> = self
            .results
            .iter()
            .filter_map(|((case, _), outcome)| match &outcome.verdict {
                Verdict::Skip(reason) => Some(format!("- `{case}`: {reason}\n")),
                _ => None,
            })
            .collect();
        reasons.dedup();
        if reasons.is_empty() {
            text.push_str("None.\n");
        }
        text.extend(reasons);
        text.push_str("\n## Suspect cases, and why they stand\n\n");
        for case in self.cases.iter().filter(|case| self.suspect(case)) {
            let reason = REVIEWED.iter().find(|(id, _)| *id == case.id);
            let reason = reason.map_or("not looked at yet", |(_, reason)| reason);
            text.push_str(&format!("- `{}`: {reason}.\n", case.id));
        }
        text.push_str("\n## Exceptions\n\n");
        if EXCEPTIONS.is_empty() {
            text.push_str("None.\n");
        }
        for (case, reason) in EXCEPTIONS {
            text.push_str(&format!("- `{case}`: {reason}\n"));
        }
        text.push_str(USER_HEAD);
        text.push_str(&user.sums());
        text.push_str(&user.verdicts());
        text.push_str("\n### What does not apply to an ordinary user\n\n");
        for (lack, cases) in rootless::left_out() {
            let names: Vec<String> = cases.iter().map(|case| format!("`{}`", case.id)).collect();
            text.push_str(&format!("- {}: {}\n", lack.reason(), names.join(", ")));
        }
        text
    }

    /// How many cases each runtime passed.
    fn sums(&self) -> String {
        let mut text = String::from(
            "| runtime | version | passed | failed | skipped |\n|---|---|---|---|---|\n",
        );
        for (index, runtime) in self.runtimes.iter().enumerate() {
            text.push_str(&count_row(
                &runtime.name,
                &runtime.version,
                self.counts(index),
            ));
        }
        text.push('\n');
        text
    }

    /// The verdicts. Requirements are added only where the page does not have them further up.
    fn verdicts(&self) -> String {
        let mut text = String::from("| case |");
        for runtime in self.runtimes {
            text.push_str(&format!(" {} |", runtime.name));
        }
        text.push_str(&format!("\n|---|{}\n", "---|".repeat(self.runtimes.len())));
        for case in self.cases {
            text.push_str(&user_row(case));
            for index in 0..self.runtimes.len() {
                text.push_str(&format!(" {} |", self.verdict(case, index).word()));
            }
            text.push('\n');
        }
        text
    }
}

/// The part of a row of the page that does not depend on a run.
fn row(case: &Case) -> String {
    format!(
        "| `{}` | {} | {} | {} |",
        case.id,
        case.level.name(),
        case.section,
        case.requirement.replace('|', "\\|")
    )
}

/// The part of a row of the ordinary user's table that doesn't depend on a run.
fn user_row(case: &Case) -> String {
    match case.id.starts_with("rootless.") {
        true => format!(
            "| `{}`: {} |",
            case.id,
            case.requirement.replace('|', "\\|")
        ),
        false => format!("| `{}` |", case.id),
    }
}

/// A line of the page's table of runtimes.
fn count_row(name: &str, version: &str, [pass, fail, skip]: [usize; 3]) -> String {
    format!("| {name} | {version} | {pass} | {fail} | {skip} |\n")
}

const PAGE_HEAD: &str = "\
# Conformance of the runtime

What the OCI runtime specification 1.2 requires, and what callers rely on of runc's command line,
each as a case of the package `conformance` that runs against any runtime:

```
cargo build -p keelson-runtime && cargo run -p conformance -- [--filter TEXT] [--json FILE] [--page]
```

The exit code is not 0 when Keelson's runtime fails a case, whoever else passes or fails it, unless
the case is among the exceptions below; an exception that is passed is wrong as well. A runtime that
is asked to refuse something, or in which nothing is seen of the container, must also run an ordinary
container, so that a program that always fails or always succeeds passes nothing: both are tests of
the suite (`conformance/tests/runtimes.rs`). A case that both peers fail is suspect itself; the run
says so. `cargo xtask test` runs it in the host tier.

This page is the output of one run with `--page`; nothing is added by hand, and a test holds its rows
and sums against the list of cases. The run was on a machine with a hybrid cgroup layout (version 1
controllers, version 2 without), with Debian 12's runc and crun, which are both older than version
1.2 of the specification. crun refuses that layout and is called in a mount namespace without
cgroup2. Level: *must* and *should* are the specification's words, *runc* means runc's interface.

Cases for limits need the controllers of cgroup v2, those for profiles AppArmor. A host without passes
over them; `qemu-tests/tests/runtime.rs` runs them with our runtime in
Keelson's own virtual machine each time, where a case that is passed over is a failure.
`cargo run -p qemu-tests --example conformance -- FILE` runs them there with runc and crun, too, and
`--elsewhere FILE` puts its results in the place of the gaps, marked *VM*, as on this page.

Where Keelson's runtime is stricter than runc, on purpose:

| what | why |
|---|---|
| Members that the specification requires must be there and not null, such as both values of a limit. | runc takes 0, which is another limit than anybody meant. |
| Files, terminals and FIFOs with a name that are given as standard streams keep their owner; pipes become the user's. | runc changes the owner of all, and a file on the host stays the container's user's. |
| Identifiers of containers have at most 255 bytes. | runc says 1024, and fails where the directory is made. |
| The option `--no-pivot` is refused. | See the exceptions. |
| A cgroup with processes in it is refused, as by runc 1.3. | They would be limited, frozen and killed with the container. |
| A bind whose options only allow something (`rw`, `suid`, `dev`, `exec`) loses what its source forbids, as since runc 1.2 and with crun, also in a container with a user namespace. runc 1.1 leaves it as it is, crun does in user namespaces. | Otherwise the option would do nothing without a word. With no option at all, what the source forbids stays forbidden. |
| Access times of a bind stay as its source has them unless `noatime`, `relatime` or `strictatime` is among its options; `atime` is `relatime`. runc and crun reset them with `nodiratime`, and pass over `atime`. | They are not about what a mount allows. |
| The command `update` does not take rules for devices. | The filter in force can't be changed without a gap. |
| A working directory is never reached through links of procfs to descriptors. | CVE-2024-21626. |

A path of the form `slice:prefix:name` in `linux.cgroupsPath` is placed where systemd would put that
scope; `--systemd-cgroup` itself is refused, since there is no systemd to ask.

The engines that call a runtime are tested beside it, with the packages of Debian 12
(`runtime/tests/podman.rs`, `containerd.rs`, `docker.rs`): each runs, executes in, pauses, stops,
kills and removes containers and gives them a terminal.

| engine | how it is told | on a machine with version 1 controllers |
|---|---|---|
| Podman | `podman --runtime PATH --cgroup-manager cgroupfs` | also `--pids-limit 0`, since its own limit can't be set |
| containerd | `ctr run --runc-binary PATH` | nothing more |
| Docker | `dockerd --add-runtime keelson=PATH --exec-opt native.cgroupdriver=cgroupfs`, then `docker run --runtime keelson` | limits such as `--memory` are refused by name |

";

const USER_HEAD: &str = "
## As an ordinary user

The same run has called each runtime a second time as rootless engines do (`--rootless`): an ordinary
user makes a user namespace with `newuidmap` and a mount namespace, has an XDG_RUNTIME_DIR and no
cgroup of its own, and calls the runtime as root inside. As these engines do, it binds the host's
procfs or sysfs where the container shares the host's namespace. Cases named `rootless` are only tried
here. `cargo xtask test` runs this pass with Keelson's runtime.

";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::case::Case;

    #[test]
    fn the_page_is_of_one_run_of_these_cases() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (page, of_user) = page.split_once(super::USER_HEAD).expect("two parts");
        let users = crate::rootless::cases();
        check(
            of_user,
            &users.iter().collect::<Vec<_>>(),
            1,
            super::user_row,
        );
        let cases = crate::cases::all();
        check(page, &cases.iter().collect::<Vec<_>>(), 4, super::row);
    }

    /// Compares a part of the page with its cases. Verdicts follow after some columns.
    fn check(page: &str, cases: &[&Case], columns: usize, row: fn(&Case) -> String) {
        let rows: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for (case, found) in cases.iter().zip(&rows) {
            let wanted = row(case);
            assert!(
                found.starts_with(&wanted),
                "docs/conformance.md is not of these cases; write it anew with --page:\n{wanted}\n{found}"
            );
        }
        assert_eq!(rows.len(), cases.len(), "rows of docs/conformance.md");

        // A row that was added or changed by hand does not change the sums of the run.
        let sums: Vec<Vec<&str>> = table(page, "| runtime | version |");
        assert!(!sums.is_empty(), "docs/conformance.md has no sums");
        for (index, sum) in sums.iter().enumerate() {
            let [name, version, ..] = sum[..] else {
                panic!("{sum:?}");
            };
            let count = |word: &str| {
                let verdicts = rows.iter().map(|row| cells(row)[columns + index]);
                verdicts.filter(|verdict| verdict.starts_with(word)).count()
            };
            let wanted = super::count_row(name, version, ["pass", "FAIL", "skip"].map(count));
            assert_eq!(format!("| {} |\n", sum.join(" | ")), wanted);
        }
    }

    fn cells(row: &str) -> Vec<&str> {
        row.trim_matches('|').split(" | ").map(str::trim).collect()
    }

    fn table<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
        page.lines()
            .skip_while(|line| !line.starts_with(heading))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .map(cells)
            .collect()
    }
}

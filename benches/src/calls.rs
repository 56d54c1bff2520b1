//! Counts system calls in the output of strace.

use std::collections::{BTreeMap, BTreeSet};

/// Counts the calls by name in the output of `strace -f -o FILE` of a driver. The driver's own are
/// left out, and so are those of its children before they execute `program`.
pub fn count(trace: &str, program: &str) -> BTreeMap<String, usize> {
    let lines = || {
        trace.lines().filter_map(|line| {
            let (pid, text) = line.split_once(' ')?;
            Some((pid, text.trim_start()))
        })
    };
    let Some(driver) = lines().map(|(pid, _)| pid).next() else {
        return BTreeMap::new();
    };
    let executes = |text: &str| text.starts_with(&format!("execve(\"{program}\""));
    let commands: BTreeSet<&str> = lines()
        .filter(|(_, text)| executes(text))
        .map(|(pid, _)| pid)
        .collect();
    let mut begun: BTreeSet<&str> = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for (pid, text) in lines() {
        if pid == driver {
            continue;
        }
        if executes(text) {
            begun.insert(pid);
        }
        if commands.contains(pid) && !begun.contains(pid) {
            continue;
        }
        let name = text.split('(').next().unwrap_or_default();
        // Skip signals, exits, and the second halves of interrupted lines.
        let is_call = text.contains('(')
            && !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_call {
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calls_of_the_measured_program_count() {
        let trace = "\
10 read(0, \".\", 1) = 1
11 close(5) = 0
11 execve(\"/x/runtime\", [\"runtime\"], 0x1) = 0
11 close(3) = 0
11 wait4(-1,  <unfinished ...>
12 close(4) = 0
12 execve(\"/bin/true\", [\"true\"], 0x1) = 0
12 exit_group(0) = ?
12 +++ exited with 0 +++
11 <... wait4 resumed>NULL, 0, NULL) = 12
11 --- SIGCHLD {si_signo=SIGCHLD} ---
";
        let counts = count(trace, "/x/runtime");
        let total: usize = counts.values().sum();
        assert_eq!(total, 6, "{counts:?}");
        assert_eq!(counts["execve"], 2);
        assert_eq!(counts["close"], 2);
    }
}

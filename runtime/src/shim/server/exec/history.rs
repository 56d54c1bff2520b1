//! The ends of exec sessions. They are kept for a hostd that was not running at that moment, or
//! that was killed before it stored the answer.

use std::collections::VecDeque;

use keelson_shim_protocol::{Execution, ExecutionState, Exit};

/// How many reported ends are kept. If there are more, the oldest is forgotten.
const MAX_TOLD: usize = 64;
/// How many ends are kept in all. As many sessions may run at a time, and while nobody asks, no new
/// ones are made.
const MAX_KEPT: usize = 1024;

/// The ends, oldest first.
#[derive(Default)]
pub(super) struct History(VecDeque<Ended>);

struct Ended {
    name: String,
    pid: i32,
    exit: Exit,
    /// A client asked for it and got the answer.
    told: bool,
}

impl History {
    /// Adds one.
    pub(super) fn add(&mut self, name: &str, pid: i32, exit: &Exit) {
        if self.0.len() >= MAX_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Ended {
            name: name.to_owned(),
            pid,
            exit: exit.clone(),
            told: false,
        });
    }

    /// Records that a session's end was reported.
    pub(super) fn told(&mut self, name: &str) {
        if let Some(ended) = self.0.iter_mut().rev().find(|ended| ended.name == name) {
            ended.told = true;
        }
        let told = self.0.iter().filter(|ended| ended.told).count();
        if told > MAX_TOLD
            && let Some(oldest) = self.0.iter().position(|ended| ended.told)
        {
            self.0.remove(oldest);
        }
    }

    /// How a session has ended.
    pub(super) fn exit(&self, name: &str) -> Option<Exit> {
        let mut latest = self.0.iter().rev();
        let found = latest.find(|ended| ended.name == name && !name.is_empty());
        found.map(|ended| ended.exit.clone())
    }

    /// All ends that are kept.
    pub(super) fn list(&self) -> impl Iterator<Item = Execution> {
        self.0.iter().map(|ended| Execution {
            exec: ended.name.clone(),
            state: ExecutionState::Ended {
                pid: ended.pid,
                exit: ended.exit.clone(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32) -> Exit {
        Exit {
            version: 1,
            code,
            oom_killed: false,
            started_at: 1,
            finished_at: 2,
            error: None,
            log_lost: 0,
        }
    }

    #[test]
    fn unreported_ends_are_kept_longer() {
        let mut history = History::default();
        history.add("untold", 1, &exit(7));
        for number in 0..200 {
            let name = number.to_string();
            history.add(&name, number, &exit(number));
            history.told(&name);
        }
        assert_eq!(history.exit("untold").unwrap().code, 7);
        assert_eq!(history.exit("0"), None);
        assert_eq!(history.exit("199").unwrap().code, 199);
        assert_eq!(history.list().count(), MAX_TOLD + 1);
        for number in 0..2000 {
            history.add("another", number, &exit(0));
        }
        assert_eq!(history.list().count(), MAX_KEPT);
    }

    #[test]
    fn the_latest_of_a_name_counts() {
        let mut history = History::default();
        history.add("a", 1, &exit(1));
        history.add("a", 2, &exit(2));
        assert_eq!(history.exit("a").unwrap().code, 2);
        assert_eq!(history.exit(""), None);
    }
}

//! A helper process loads modules for devices that appear while the machine runs.

use std::collections::{BTreeSet, VecDeque};
use std::process::{Command, Stdio};

use crate::modules::HELPER_LOAD;

/// How many aliases are in one command line. The kernel allows far longer ones.
const BATCH: usize = 128;
/// How many aliases may wait. If there are more, a coldplug follows, see [`Hotplug::lost`].
const MOST: usize = 4096;

/// Aliases that wait for the helper, and the helper.
#[derive(Debug, Default)]
pub(crate) struct Hotplug {
    waiting: VecDeque<String>,
    known: BTreeSet<String>,
    helper: Option<i32>,
    coldplug: bool,
}

/// The next work of the helper.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    Load(Vec<String>),
    Coldplug,
}

impl Hotplug {
    /// A device with this alias appeared. An alias that was tried before is skipped: its
    /// module is loaded, or does not exist.
    pub(crate) fn appeared(&mut self, modalias: &str) {
        if self.known.len() >= MOST || self.waiting.len() >= MOST {
            self.known.clear();
            self.waiting.clear();
            self.coldplug = true;
        } else if self.known.insert(modalias.to_owned()) {
            self.waiting.push_back(modalias.to_owned());
        }
    }

    /// Events were lost: every device is examined again.
    pub(crate) fn lost(&mut self) {
        self.coldplug = true;
    }

    /// A child ended. Returns whether it was the helper.
    pub(crate) fn ended(&mut self, pid: i32) -> bool {
        let own = self.helper == Some(pid);
        if own {
            self.helper = None;
        }
        own
    }

    /// Starts the helper if there is work and no helper runs.
    pub(crate) fn turn(&mut self) {
        if self.helper.is_some() {
            return;
        }
        let Some(work) = self.next() else {
            return;
        };
        let mut command = Command::new(crate::PROGRAM);
        match work {
            Work::Coldplug => command.arg(crate::modules::HELPER_COLDPLUG),
            Work::Load(aliases) => command.arg(HELPER_LOAD).args(aliases),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        keelson_sys::service_process::prepare(&mut command, None, None);
        match command.spawn() {
            Ok(child) => self.helper = i32::try_from(child.id()).ok(),
            Err(error) => crate::console::warning(&format!("start the module helper: {error}")),
        }
    }

    fn next(&mut self) -> Option<Work> {
        if std::mem::take(&mut self.coldplug) {
            return Some(Work::Coldplug);
        }
        let batch = self.waiting.len().min(BATCH);
        let aliases: Vec<String> = self.waiting.drain(..batch).collect();
        (!aliases.is_empty()).then_some(Work::Load(aliases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alias_is_tried_once() {
        let mut hotplug = Hotplug::default();
        hotplug.appeared("a");
        hotplug.appeared("b");
        hotplug.appeared("a");
        let work = Work::Load(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(hotplug.next(), Some(work));
        hotplug.appeared("a");
        assert_eq!(hotplug.next(), None);
    }

    #[test]
    fn lost_events_lead_to_a_coldplug() {
        let mut hotplug = Hotplug::default();
        hotplug.lost();
        assert_eq!(hotplug.next(), Some(Work::Coldplug));
        assert_eq!(hotplug.next(), None);
    }

    #[test]
    fn a_flood_is_bounded() {
        let mut hotplug = Hotplug::default();
        for number in 0..2 * MOST {
            hotplug.appeared(&number.to_string());
        }
        assert!(hotplug.waiting.len() <= MOST && hotplug.known.len() <= MOST);
        assert_eq!(hotplug.next(), Some(Work::Coldplug));
    }
}

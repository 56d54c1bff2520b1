//! Helper processes for devices that appear or go while the machine runs: one loads modules, then
//! one brings /dev up to date.

use std::collections::{BTreeSet, VecDeque};
use std::process::{Command, Stdio};

use crate::devices::HELPER_DEVICES;
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
    /// Whether a device has changed since the last look at /dev.
    changed: bool,
}

/// The next work of the helper.
#[derive(Debug, PartialEq, Eq)]
enum Work {
    Load(Vec<String>),
    Coldplug,
    Devices,
}

impl Hotplug {
    /// With a look at all devices as the first work.
    pub(crate) fn with_devices() -> Self {
        Self {
            changed: true,
            ..Self::default()
        }
    }

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
        self.changed = true;
    }

    /// A device with a node appeared, changed or went.
    pub(crate) fn changed(&mut self) {
        self.changed = true;
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
            Work::Devices => command.arg(HELPER_DEVICES),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        keelson_sys::service_process::prepare(&mut command, None, None);
        match command.spawn() {
            Ok(child) => self.helper = i32::try_from(child.id()).ok(),
            Err(error) => {
                crate::console::warning(&format!("start the helper for devices: {error}"))
            }
        }
    }

    fn next(&mut self) -> Option<Work> {
        if std::mem::take(&mut self.coldplug) {
            return Some(Work::Coldplug);
        }
        let batch = self.waiting.len().min(BATCH);
        let aliases: Vec<String> = self.waiting.drain(..batch).collect();
        if !aliases.is_empty() {
            return Some(Work::Load(aliases));
        }
        // Last, because a module that is loaded makes devices.
        std::mem::take(&mut self.changed).then_some(Work::Devices)
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
        assert_eq!(hotplug.next(), Some(Work::Devices));
        assert_eq!(hotplug.next(), None);
    }

    #[test]
    fn many_changes_are_one_look_at_all_devices() {
        let mut hotplug = Hotplug::default();
        hotplug.changed();
        hotplug.appeared("a");
        hotplug.changed();
        assert_eq!(hotplug.next(), Some(Work::Load(vec!["a".to_owned()])));
        assert_eq!(hotplug.next(), Some(Work::Devices));
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

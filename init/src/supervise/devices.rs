//! What the supervision does about devices that appear, change or go.

use super::button::Button;
use super::watchdog::Watchdog;
use super::{Source, Supervisor, now, turn};
use crate::console;
use crate::uevent::{Received, Uevent, UeventSocket};

impl Supervisor {
    pub(super) fn open_button(&mut self, device: &str) {
        let known = |source: &Source| matches!(source, Source::Button(b) if b.name == device);
        if self.sources.values().any(known) {
            return;
        }
        match Button::open(device) {
            Ok(Some(button)) => self.add(Source::Button(button)),
            Ok(None) => {}
            Err(error) => console::warning(&format!("open /dev/input/{device}: {error}")),
        }
    }

    pub(super) fn on_uevents(&mut self, uevents: &UeventSocket) -> bool {
        let mut open = true;
        turn::take(turn::MESSAGES, || match uevents.receive() {
            Ok(Received::Event(event)) => {
                self.on_uevent(&event);
                true
            }
            Ok(Received::Foreign) => true,
            Ok(Received::Lost) => {
                self.hotplug.lost();
                true
            }
            Ok(Received::Nothing) => false,
            Err(error) => {
                console::error(&format!("read device events: {error}"));
                open = false;
                false
            }
        });
        open
    }

    fn on_uevent(&mut self, event: &Uevent) {
        self.note_node(event);
        if event.action != "add" {
            return;
        }
        if let Some(modalias) = &event.modalias {
            self.hotplug.appeared(modalias);
        }
        let button = event.node.as_deref().and_then(|n| n.strip_prefix("input/"));
        if let Some(device) = button.filter(|name| name.starts_with("event")) {
            self.open_button(device);
        }
        if event.subsystem == "watchdog" {
            self.watchdog_appeared();
        }
    }

    /// Devices with a node may need a group or a link. Those of containers' terminals and layers
    /// come and go all the time, and need nothing.
    pub(super) fn note_node(&mut self, event: &Uevent) {
        let passing = ["loop", "ram", "zram", "nbd", "tty", "pts", "vcs"];
        let passes = |node: &String| passing.iter().any(|prefix| node.starts_with(prefix));
        let changes = event.action == "add" || event.subsystem == "block" && event.action != "bind";
        let relevant = changes && event.node.as_ref().is_some_and(|node| !passes(node));
        if relevant {
            self.hotplug.changed();
        }
    }

    /// Takes a watchdog that has appeared, unless a better one is in use.
    pub(super) fn watchdog_appeared(&mut self) {
        let Some(timeout) = self.watchdog_timeout else {
            return;
        };
        match self.watchdog.take() {
            Some(used) if !used.is_software() => self.watchdog = Some(used),
            used => {
                let better = Watchdog::open(timeout, now())
                    .filter(|new| used.is_none() || !new.is_software());
                self.watchdog = match (better, used) {
                    (Some(better), used) => {
                        if let Some(used) = used {
                            used.disarm();
                        }
                        Some(better)
                    }
                    (None, used) => used,
                };
            }
        }
    }
}

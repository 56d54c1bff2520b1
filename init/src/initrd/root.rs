//! Which of the devices present is the root device: the decision, without any device.

use std::collections::BTreeSet;
use std::time::Duration;

/// The forms in which the kernel command line names the root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootSpec {
    /// `PARTLABEL=`: name of a GPT partition.
    PartLabel(String),
    /// `PARTUUID=`: unique GUID of a GPT partition, lower case.
    PartUuid(String),
    /// `LABEL=`: label of a file system.
    Label(String),
    /// `UUID=`: UUID of a file system, in any case.
    Uuid(String),
    /// `/dev/NAME`.
    Device(String),
}

impl RootSpec {
    /// Reads the value of `root=`. `None` when it has none of the known forms.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = |prefixes: [&str; 2]| {
            prefixes
                .into_iter()
                .find_map(|prefix| text.strip_prefix(prefix))
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
        };
        if let Some(label) = value(["PARTLABEL=", "/dev/disk/by-partlabel/"]) {
            return Some(Self::PartLabel(label));
        }
        if let Some(uuid) = value(["PARTUUID=", "/dev/disk/by-partuuid/"]) {
            return Some(Self::PartUuid(uuid.to_ascii_lowercase()));
        }
        if let Some(label) = value(["LABEL=", "/dev/disk/by-label/"]) {
            return Some(Self::Label(label));
        }
        if let Some(uuid) = value(["UUID=", "/dev/disk/by-uuid/"]) {
            return Some(Self::Uuid(uuid));
        }
        let name = text.strip_prefix("/dev/").filter(|name| !name.is_empty())?;
        // Nodes in other directories (mapper/) have no such name in sysfs.
        let plain = !name.contains('/') && name != "." && name != "..";
        plain.then(|| Self::Device(name.to_owned()))
    }
}

/// A device that has what `root=` names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// Kernel name: `vda2`.
    pub(super) name: String,
    /// Kernel name of its disk: `vda`.
    pub(super) disk: String,
}

/// What is known about the disk that the firmware booted from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BootDisk {
    /// Nothing: no EFI, or no boot loader that tells.
    Unknown,
    /// Its EFI system partition is on none of the disks present.
    Absent,
    /// It is this disk. Several: copies of each other.
    Present(BTreeSet<String>),
}

/// The decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// There is no candidate yet.
    None,
    /// This device, at once.
    Certain(String),
    /// This device, if nothing better has appeared this long after it was first seen.
    Unless {
        name: String,
        better_within: Duration,
        /// What the operator should know then.
        remark: Option<String>,
    },
    /// Any of several devices. Which one can't be known, unless something changes in this time.
    Several {
        names: Vec<String>,
        better_within: Duration,
    },
}

/// Chooses among the devices that match. A wrong choice would start a kernel with another
/// system's files, or with another machine's data, so nothing is chosen by chance.
///
/// - The disk that the firmware booted from has priority over all others.
/// - While that disk is absent, nothing else is taken until the time for the root device is over.
/// - If it is unknown, the only match counts, `settle` after it was seen: its twin may be on
///   a slower bus.
/// - Equal matches are refused.
pub(super) fn choose(
    spec: &RootSpec,
    mut candidates: Vec<Candidate>,
    boot: &BootDisk,
    settle: Duration,
) -> Choice {
    candidates.sort();
    if let BootDisk::Present(disks) = boot {
        let on_boot_disk = |candidate: &Candidate| disks.contains(&candidate.disk);
        if candidates.iter().any(on_boot_disk) {
            candidates.retain(on_boot_disk);
        }
    }
    let [only] = candidates.as_slice() else {
        if candidates.is_empty() {
            return Choice::None;
        }
        return Choice::Several {
            names: candidates.into_iter().map(|c| c.name).collect(),
            better_within: match boot {
                BootDisk::Absent => Duration::MAX,
                _ => settle,
            },
        };
    };
    let name = only.name.clone();
    if matches!(spec, RootSpec::Device(_)) {
        return Choice::Certain(name);
    }
    match boot {
        BootDisk::Present(disks) if disks.contains(&only.disk) => match disks.len() {
            1 => Choice::Certain(name),
            _ => Choice::Unless {
                name,
                better_within: settle,
                remark: None,
            },
        },
        BootDisk::Present(disks) => Choice::Unless {
            remark: Some(format!(
                "the firmware booted from {}, but the root file system is on {}",
                Vec::from_iter(disks.iter().map(String::as_str)).join(" or "),
                only.disk
            )),
            name,
            better_within: settle,
        },
        BootDisk::Absent => Choice::Unless {
            remark: Some(format!(
                "the disk that the firmware booted from did not appear; the root file system is \
                 on {}",
                only.disk
            )),
            name,
            better_within: Duration::MAX,
        },
        BootDisk::Unknown if settle.is_zero() => Choice::Certain(name),
        BootDisk::Unknown => Choice::Unless {
            name,
            better_within: settle,
            remark: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(300);

    fn on(names: &[(&str, &str)]) -> Vec<Candidate> {
        let candidate = |(name, disk): &(&str, &str)| Candidate {
            name: (*name).to_owned(),
            disk: (*disk).to_owned(),
        };
        names.iter().map(candidate).collect()
    }

    fn decide(candidates: &[(&str, &str)], boot: &BootDisk) -> Choice {
        let spec = RootSpec::PartLabel("root".to_owned());
        choose(&spec, on(candidates), boot, SETTLE)
    }

    fn present(disks: &[&str]) -> BootDisk {
        BootDisk::Present(disks.iter().map(|disk| (*disk).to_owned()).collect())
    }

    #[test]
    fn forms_of_root() {
        let label = || RootSpec::PartLabel("root".into());
        assert_eq!(RootSpec::parse("PARTLABEL=root"), Some(label()));
        assert_eq!(
            RootSpec::parse("/dev/disk/by-partlabel/root"),
            Some(label())
        );
        let uuid = || RootSpec::PartUuid("ab-c".into());
        assert_eq!(RootSpec::parse("PARTUUID=AB-C"), Some(uuid()));
        assert_eq!(RootSpec::parse("/dev/disk/by-partuuid/ab-c"), Some(uuid()));
        assert_eq!(
            RootSpec::parse("LABEL=x"),
            Some(RootSpec::Label("x".into()))
        );
        assert_eq!(
            RootSpec::parse("UUID=12AB-34"),
            Some(RootSpec::Uuid("12AB-34".into()))
        );
        assert_eq!(
            RootSpec::parse("/dev/vda2"),
            Some(RootSpec::Device("vda2".into()))
        );
        for wrong in [
            "",
            "LABEL=",
            "/dev/",
            "/dev/..",
            "/dev/disk/by-uuid/",
            "/dev/mapper/x",
            "vda2",
            "ZFS=x",
        ] {
            assert_eq!(RootSpec::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_disk_that_was_booted_from_wins() {
        let both = [("sda2", "sda"), ("vda2", "vda")];
        let certain = |name: &str| Choice::Certain(name.to_owned());
        assert_eq!(decide(&both, &present(&["vda"])), certain("vda2"));
        assert_eq!(decide(&both, &present(&["sda"])), certain("sda2"));
        assert_eq!(decide(&both[..1], &present(&["sda"])), certain("sda2"));
        // Its root may be elsewhere, but not without a word.
        let Choice::Unless { name, remark, .. } = decide(&both[..1], &present(&["vdb"])) else {
            panic!("decided at once");
        };
        assert_eq!(name, "sda2");
        assert!(remark.unwrap().contains("vdb"));
    }

    #[test]
    fn a_slow_disk_is_waited_for() {
        let one = [("sda2", "sda")];
        let late = |choice| match choice {
            Choice::Unless { better_within, .. } => better_within,
            other => panic!("{other:?}"),
        };
        assert_eq!(late(decide(&one, &BootDisk::Absent)), Duration::MAX);
        assert_eq!(late(decide(&one, &BootDisk::Unknown)), SETTLE);
        assert_eq!(decide(&[], &BootDisk::Absent), Choice::None);
    }

    #[test]
    fn equal_labels_are_refused() {
        let both = [("vdb2", "vdb"), ("vda2", "vda")];
        for boot in [
            BootDisk::Unknown,
            present(&["vda", "vdb"]),
            present(&["sdc"]),
        ] {
            let Choice::Several {
                names,
                better_within,
            } = decide(&both, &boot)
            else {
                panic!("{boot:?}");
            };
            assert_eq!(names, ["vda2", "vdb2"]);
            assert_eq!(better_within, SETTLE);
        }
    }

    #[test]
    fn a_node_is_taken_by_its_name() {
        let spec = RootSpec::Device("vda2".to_owned());
        let found = on(&[("vda2", "vda")]);
        let choice = choose(&spec, found, &BootDisk::Absent, SETTLE);
        assert_eq!(choice, Choice::Certain("vda2".to_owned()));
    }
}

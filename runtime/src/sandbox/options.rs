//! Mount options of config.json.

use keelson_sys::mount_attr as attr;

/// A mount's options, sorted by meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `bind` or `rbind`: whether mounts below the source are included.
    pub(crate) bind: Option<bool>,
    /// Attributes of the mount itself.
    pub(crate) own: Attributes,
    /// Attributes of the mount and all below it (`rro` and its like).
    pub(crate) all: Attributes,
    /// `MS_…` propagation type, and whether it also applies to all mounts below.
    pub(crate) propagation: Option<(u64, bool)>,
    /// Whether an id mapping also applies to all mounts below (`ridmap`).
    pub(crate) idmap_all: bool,
    /// Change the existing mount.
    pub(crate) remount: bool,
    /// Fill a new tmpfs with the directory that it covers.
    pub(crate) copy_up: bool,
    /// Options for the file system, as key and value.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

impl Attributes {
    fn change(&mut self, bits: u64, on: bool) {
        self.set &= !bits;
        self.clear &= !bits;
        if on {
            self.set |= bits;
        } else {
            self.clear |= bits;
        }
    }

    /// Access time modes are a number in three bits; all three are cleared before it is set.
    fn access_time(&mut self, mode: u64) {
        self.set = self.set & !attr::ATIME_MASK | mode;
        self.clear |= attr::ATIME_MASK;
    }

    /// The same for a mount that must have exactly these attributes, and none of its source. The
    /// access time mode stays, because it does not restrict access.
    pub(crate) fn alone(self) -> Self {
        let others = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC | attr::NOSYMFOLLOW;
        let clear = self.clear | (others & !self.set);
        Self { clear, ..self }
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An option that is not supported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported(pub(crate) String);

/// Parses a list of options.
pub(crate) fn parse(options: &[String]) -> Result<Options, Unsupported> {
    let mut parsed = Options::default();
    for option in options {
        if change(&mut parsed.own, option) {
            continue;
        }
        if let Some(plain) = option.strip_prefix('r')
            && change(&mut parsed.all, plain)
        {
            continue;
        }
        match option.as_str() {
            other if WITHOUT_EFFECT.contains(&other) => {}
            "bind" => parsed.bind = Some(false),
            "rbind" => parsed.bind = Some(true),
            "idmap" => parsed.idmap_all = false,
            "ridmap" => parsed.idmap_all = true,
            "remount" => parsed.remount = true,
            "tmpcopyup" => parsed.copy_up = true,
            "copy-symlink" => return Err(Unsupported(option.clone())),
            other => {
                if let Some(propagation) = propagation(other) {
                    parsed.propagation = Some(propagation);
                    continue;
                }
                parsed.data.push(match other.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                });
            }
        }
    }
    Ok(parsed)
}

/// Whether an option asks for an id-mapped mount.
pub(crate) fn is_idmap(option: &str) -> bool {
    matches!(option, "idmap" | "ridmap")
}

/// Attributes by option: what it sets or clears. With a leading `r` it also applies to all mounts
/// below.
const ATTRIBUTES: &[(&str, u64, bool)] = &[
    ("ro", attr::RDONLY, true),
    ("rw", attr::RDONLY, false),
    ("nosuid", attr::NOSUID, true),
    ("suid", attr::NOSUID, false),
    ("nodev", attr::NODEV, true),
    ("dev", attr::NODEV, false),
    ("noexec", attr::NOEXEC, true),
    ("exec", attr::NOEXEC, false),
    ("nodiratime", attr::NODIRATIME, true),
    ("diratime", attr::NODIRATIME, false),
    ("nosymfollow", attr::NOSYMFOLLOW, true),
    ("symfollow", attr::NOSYMFOLLOW, false),
];

/// Access time modes by option. The opposites select the kernel's default.
const ACCESS_TIMES: &[(&str, u64)] = &[
    ("noatime", attr::NOATIME),
    ("strictatime", attr::STRICTATIME),
    ("atime", attr::RELATIME),
    ("relatime", attr::RELATIME),
    ("norelatime", attr::RELATIME),
    ("nostrictatime", attr::RELATIME),
];

/// Options that are the default anyway, or hints for mount(8).
const WITHOUT_EFFECT: &[&str] = &[
    "",
    "_netdev",
    "async",
    "auto",
    "defaults",
    "loud",
    "noauto",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "silent",
];

/// `MS_…` by option. With a leading `r` it also applies to all mounts below.
const PROPAGATIONS: &[(&str, u64)] = &[
    ("unbindable", libc::MS_UNBINDABLE),
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
];

/// The options that [`parse`] knows, and those that all file systems of the kernel know.
const OTHERS: &[&str] = &[
    "bind",
    "dirsync",
    "idmap",
    "iversion",
    "lazytime",
    "mand",
    "rbind",
    "remount",
    "ridmap",
    "sync",
    "tmpcopyup",
];

/// All options that are not passed on to the file system, sorted.
pub(crate) fn names() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, ..)| *name);
    let times = ACCESS_TIMES.iter().map(|(name, _)| *name);
    let twice = PROPAGATIONS.iter().map(|(name, _)| *name);
    let twice = attributes.chain(times).chain(twice);
    let once = WITHOUT_EFFECT.iter().chain(OTHERS).copied();
    let mut names: Vec<String> = twice
        .flat_map(|name| [name.to_owned(), format!("r{name}")])
        .chain(once.map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names
}

fn change(attributes: &mut Attributes, option: &str) -> bool {
    if let Some((_, mode)) = ACCESS_TIMES.iter().find(|(name, _)| *name == option) {
        attributes.access_time(*mode);
        return true;
    }
    match ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
        Some((_, bits, on)) => {
            attributes.change(*bits, *on);
            true
        }
        None => false,
    }
}

/// The `MS_…` constant of a propagation option, and whether it is recursive.
pub(crate) fn propagation(option: &str) -> Option<(u64, bool)> {
    let find = |name: &str| {
        let found = PROPAGATIONS.iter().find(|(known, _)| *known == name);
        found.map(|(_, flag)| *flag)
    };
    find(option)
        .map(|flag| (flag, false))
        .or_else(|| Some((find(option.strip_prefix('r')?)?, true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[&str]) -> Options {
        let owned: Vec<String> = list.iter().map(|option| (*option).to_owned()).collect();
        parse(&owned).unwrap()
    }

    #[test]
    fn options_are_sorted_by_meaning() {
        let parsed = options(&[
            "nosuid",
            "strictatime",
            "mode=755",
            "size=65536k",
            "ro",
            "rw",
        ]);
        assert_eq!(parsed.own.set, attr::NOSUID | attr::STRICTATIME);
        assert_eq!(parsed.own.clear, attr::RDONLY | attr::ATIME_MASK);
        assert_eq!(
            parsed.data,
            [
                ("mode".to_owned(), Some("755".to_owned())),
                ("size".to_owned(), Some("65536k".to_owned()))
            ]
        );
        let parsed = options(&["rbind", "rro", "rprivate", "rnosuid"]);
        assert_eq!(parsed.bind, Some(true));
        assert_eq!(parsed.own, Attributes::default());
        assert_eq!(parsed.all.set, attr::RDONLY | attr::NOSUID);
        assert_eq!(parsed.propagation, Some((1 << 18, true)));
    }

    #[test]
    fn options_without_meaning_here_are_refused() {
        let list = ["copy-symlink".to_owned()];
        assert_eq!(parse(&list), Err(Unsupported("copy-symlink".to_owned())));
    }

    #[test]
    fn every_name_is_understood() {
        for name in names() {
            let parsed = parse(std::slice::from_ref(&name)).unwrap();
            let passed_on = ["dirsync", "iversion", "lazytime", "mand", "sync"];
            assert_eq!(
                !parsed.data.is_empty(),
                passed_on.contains(&name.as_str()),
                "{name}"
            );
        }
    }

    #[test]
    fn relatime_is_no_recursive_option() {
        // "relatime" begins with the letter that marks recursive options.
        let parsed = options(&["relatime"]);
        assert_eq!(parsed.own.clear, attr::ATIME_MASK);
        assert!(parsed.all.is_empty());
        assert!(parsed.data.is_empty());
    }
}

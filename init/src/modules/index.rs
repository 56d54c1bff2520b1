//! The index files that depmod(8) writes for a kernel: the modules for each alias, the modules to
//! load before a module, and the built-in ones.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern;

/// The modules of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// File of each module, relative to the directory of the kernel's modules, and the modules that
    /// it needs, in loading order.
    modules: BTreeMap<String, (String, Vec<String>)>,
    /// Patterns and their modules, by the text before the first colon if that has no wildcards; the
    /// others under "".
    aliases: BTreeMap<String, Vec<(String, String)>>,
    /// Modules to load before a module, if they exist.
    before: BTreeMap<String, Vec<String>>,
    /// Modules to load after a module, if they exist.
    after: BTreeMap<String, Vec<String>>,
    built_in: BTreeSet<String>,
}

/// The content of the index files. A file that does not exist counts as empty.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// `modules.dep`: `path: path path …`, needed ones in reverse order of loading.
    pub(crate) dep: &'a [u8],
    /// `modules.alias`: `alias PATTERN MODULE`.
    pub(crate) alias: &'a [u8],
    /// `modules.softdep`: `softdep MODULE pre: … post: …`.
    pub(crate) softdep: &'a [u8],
    /// `modules.builtin`: one path per line.
    pub(crate) builtin: &'a [u8],
}

impl Index {
    /// Reads the index files. Lines of an unknown form are skipped: one odd line must not prevent
    /// the use of all other devices.
    pub(crate) fn parse(sources: Sources<'_>) -> Self {
        let mut index = Self::default();
        for line in lines(sources.dep) {
            let Some((path, needs)) = line.split_once(':') else {
                continue;
            };
            let Some(name) = module_name(path) else {
                continue;
            };
            let needs = needs.split_whitespace().rev().filter_map(module_name);
            index
                .modules
                .insert(name, (path.to_owned(), needs.collect()));
        }
        for line in lines(sources.alias) {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(alias), Some(module)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            index
                .aliases
                .entry(bus_of_pattern(alias).to_owned())
                .or_default()
                .push((alias.to_owned(), normal(module)));
        }
        for line in lines(sources.softdep) {
            index.softdep(line);
        }
        for line in lines(sources.builtin) {
            index.built_in.extend(module_name(line));
        }
        index
    }

    fn softdep(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else {
            return;
        };
        let module = normal(module);
        let mut behind = false;
        for word in words {
            match word {
                "pre:" => behind = false,
                "post:" => behind = true,
                other => {
                    let list = if behind {
                        &mut self.after
                    } else {
                        &mut self.before
                    };
                    list.entry(module.clone()).or_default().push(normal(other));
                }
            }
        }
    }

    /// File of a module, relative to the directory of the kernel's modules.
    pub(crate) fn file(&self, module: &str) -> Option<&str> {
        self.modules.get(module).map(|(path, _)| path.as_str())
    }

    /// Whether the kernel has this module built in.
    pub(crate) fn is_built_in(&self, module: &str) -> bool {
        self.built_in.contains(module)
    }

    /// The modules for a device's `MODALIAS`, for a request of the kernel (`fs-erofs`,
    /// `net-pf-16-proto-12`), or with this name.
    pub(crate) fn resolve(&self, request: &str) -> Vec<String> {
        let mut found = Vec::new();
        let name = normal(request);
        if self.modules.contains_key(&name) {
            found.push(name);
        }
        let bus = request.split(':').next().unwrap_or_default();
        for key in [bus, ""] {
            for (alias, module) in self.aliases.get(key).into_iter().flatten() {
                // `-` and `_` are the same in module names, but not in device aliases; requests
                // by the kernel use the spelling of the alias.
                if pattern::matches(alias.as_bytes(), request.as_bytes()) && !found.contains(module)
                {
                    found.push(module.clone());
                }
            }
            if key.is_empty() || bus.is_empty() {
                break;
            }
        }
        found
    }

    /// The modules to load, in this order, for `module`: soft and hard dependencies first, soft
    /// followers last, each once. Built-in and missing modules are left out, and circles of
    /// dependencies are cut.
    pub(crate) fn order(&self, module: &str) -> Vec<String> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        self.visit(module, &mut seen, &mut order);
        order
    }

    fn visit(&self, module: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        if !seen.insert(module.to_owned()) || self.is_built_in(module) {
            return;
        }
        let Some((_, needs)) = self.modules.get(module) else {
            return;
        };
        let soft = self.before.get(module).into_iter().flatten();
        for need in soft.chain(needs) {
            self.visit(need, seen, order);
        }
        order.push(module.to_owned());
        for follower in self.after.get(module).into_iter().flatten() {
            self.visit(follower, seen, order);
        }
    }
}

/// The list of modules that are loaded on every boot, and of those that no device may pull in
/// (`/usr/lib/keelson/modules.conf`): one name per line, `-name` blocks, `#` begins a comment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Loaded on every boot, in this order.
    pub(crate) always: Vec<String>,
    /// Never loaded because of a device.
    pub(crate) blocked: BTreeSet<String>,
}

impl Policy {
    /// Reads the file's content.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut policy = Self::default();
        for line in lines(bytes) {
            let name = line.split('#').next().unwrap_or_default().trim();
            match name.strip_prefix('-') {
                Some(blocked) => {
                    policy.blocked.insert(normal(blocked.trim()));
                }
                None if name.is_empty() => {}
                None => policy.always.push(normal(name)),
            }
        }
        policy
    }
}

/// A module's name is that of its file without `.ko…`. The kernel uses only underscores.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let (stem, _) = file.split_once(".ko")?;
    (!stem.is_empty()).then(|| normal(stem))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn bus_of_pattern(alias: &str) -> &str {
    match alias.split_once(':') {
        Some((bus, _)) if !bus.contains(['*', '?', '[', '\\']) => bus,
        Some(_) => "",
        None if alias.contains(['*', '?', '[', '\\']) => "",
        None => alias,
    }
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &[u8] =
        b"kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
        kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz\n\
        kernel/net/llc/llc.ko.xz:\n\
        kernel/a-b.ko:\nkernel/c.ko.zst:\nbroken line\n:\n";
    const ALIAS: &[u8] = b"# comment\nalias virtio:d00000001v* a_b\nalias acpi*:QEMU0002:* c\n\
        alias rtnl-link-bridge bridge\nalias odd\n";

    fn index() -> Index {
        Index::parse(Sources {
            dep: DEP,
            alias: ALIAS,
            softdep: b"softdep a_b pre: c missing post: llc\nsoftdep c pre: a-b\n",
            builtin: b"kernel/fs/ext4/ext4.ko\n",
        })
    }

    #[test]
    fn dependencies_are_loaded_first() {
        assert_eq!(index().order("bridge"), ["llc", "stp", "bridge"]);
    }

    #[test]
    fn circles_of_soft_dependencies_end() {
        assert_eq!(index().order("a_b"), ["c", "a_b", "llc"]);
    }

    #[test]
    fn aliases_names_and_requests() {
        let index = index();
        assert_eq!(index.resolve("virtio:d00000001v00001AF4"), ["a_b"]);
        assert_eq!(index.resolve("acpi:QEMU0002:"), ["c"]);
        assert_eq!(index.resolve("rtnl-link-bridge"), ["bridge"]);
        assert_eq!(index.resolve("a-b"), ["a_b"]);
        assert!(index.resolve("pci:v1").is_empty());
        assert!(index.resolve("").is_empty());
        assert!(index.is_built_in("ext4"));
        assert!(index.order("ext4").is_empty());
        assert_eq!(index.file("c"), Some("kernel/c.ko.zst"));
    }

    #[test]
    fn policy_knows_comments_and_blocks() {
        let policy = Policy::parse(b"overlay # layers\n\n-pcspkr\n virtio-net\n#x\n");
        assert_eq!(policy.always, ["overlay", "virtio_net"]);
        assert!(policy.blocked.contains("pcspkr"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(dep: Vec<u8>, alias: Vec<u8>, softdep: Vec<u8>, builtin: Vec<u8>) {
            let index = Index::parse(Sources {
                dep: &dep, alias: &alias, softdep: &softdep, builtin: &builtin,
            });
            index.resolve("virtio:d00000001v00001AF4");
            Policy::parse(&dep);
        }

        #[test]
        fn every_dependency_comes_before_its_module(
            edges in proptest::collection::vec((0u8..8, 0u8..8), 0..24)
        ) {
            // Only dependencies with smaller numbers: so there are no circles, as depmod
            // guarantees.
            let mut dep = String::new();
            for module in 0..8u8 {
                dep.push_str(&format!("m{module}.ko:"));
                for (a, b) in &edges {
                    if *a == module && b < a {
                        dep.push_str(&format!(" m{b}.ko"));
                    }
                }
                dep.push('\n');
            }
            let index = Index::parse(Sources { dep: dep.as_bytes(), ..Sources::default() });
            let order = index.order("m7");
            let at = |m: u8| order.iter().position(|name| *name == format!("m{m}"));
            for (a, b) in edges {
                if b < a && let (Some(user), Some(need)) = (at(a), at(b)) {
                    proptest::prop_assert!(need < user);
                }
            }
        }
    }
}

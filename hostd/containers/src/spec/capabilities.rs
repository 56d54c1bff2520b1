//! Capabilities by name and number.

use std::sync::LazyLock;

use keelson_model::spec::CapabilitySet;

/// capabilities(7), by number, without `CAP_`.
static ALL: LazyLock<Vec<String>> = LazyLock::new(|| {
    let names = keelson_linux::capability::names(u64::MAX);
    let bare = |name: &String| name.strip_prefix("CAP_").unwrap_or(name).to_owned();
    names.iter().map(bare).collect()
});

/// Whether there is a capability of that name: `NET_ADMIN`.
pub fn is_capability(name: &str) -> bool {
    ALL.iter().any(|known| known == name)
}

/// The names in a bit mask, by number: `CHOWN`, ….
pub fn capabilities_in(mask: u64) -> impl Iterator<Item = &'static str> {
    ALL.iter()
        .enumerate()
        .filter(move |(number, _)| mask & (1 << number) != 0)
        .map(|(_, name)| name.as_str())
}

/// What a container gets of what the host has: `CAP_CHOWN`, …, by number.
pub(crate) fn granted(set: &CapabilitySet, available: u64) -> Vec<String> {
    capabilities_in(available)
        .filter(|name| match set {
            CapabilitySet::All => true,
            CapabilitySet::Only(names) => names.contains(*name),
        })
        .map(|name| format!("CAP_{name}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_granted_as_far_as_the_host_has_it() {
        let only = CapabilitySet::Only(["CHOWN", "NET_ADMIN"].map(str::to_owned).into());
        assert_eq!(granted(&only, u64::MAX), ["CAP_CHOWN", "CAP_NET_ADMIN"]);
        assert_eq!(granted(&only, 0b11), ["CAP_CHOWN"]);
        assert_eq!(
            granted(&CapabilitySet::All, 0b11),
            ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]
        );
        assert_eq!(granted(&CapabilitySet::All, u64::MAX).len(), 41);
        assert!(is_capability("NET_ADMIN") && !is_capability("CAP_NET_ADMIN"));
    }
}

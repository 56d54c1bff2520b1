//! How links are recognised as ours: by their alias, which names the engine and the object. Names
//! would not do: others, and other engines on the same machine, call theirs `veth…` and `br-…`, too.

/// Who made what: the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(String);

/// Longest alias that the kernel keeps.
const LONGEST: usize = 255;

impl Owner {
    /// By the engine's identifier.
    pub(super) fn new(engine: &str) -> Self {
        // Identifiers of objects have 64 digits.
        Self(engine.chars().take(LONGEST - 100).collect())
    }

    /// The alias of a network's link.
    pub(super) fn network(&self, id: &str) -> String {
        self.alias("network", id)
    }

    /// The alias of an endpoint's link on the host.
    pub(super) fn endpoint(&self, id: &str) -> String {
        self.alias("endpoint", id)
    }

    fn alias(&self, kind: &str, id: &str) -> String {
        let mut alias = format!("keelson {} {kind} {id}", self.0);
        let end = (0..=LONGEST).rev().find(|end| alias.is_char_boundary(*end));
        alias.truncate(end.unwrap_or(0));
        alias
    }

    /// Which network a link is of, when it is one of ours.
    pub(super) fn network_of<'a>(&self, alias: Option<&'a str>) -> Option<&'a str> {
        self.object(alias, "network")
    }

    /// Which endpoint a link is of, when it is one of ours.
    pub(super) fn endpoint_of<'a>(&self, alias: Option<&'a str>) -> Option<&'a str> {
        self.object(alias, "endpoint")
    }

    fn object<'a>(&self, alias: Option<&'a str>, kind: &str) -> Option<&'a str> {
        let rest = alias?
            .strip_prefix("keelson ")?
            .strip_prefix(self.0.as_str())?;
        rest.strip_prefix(' ')?
            .strip_prefix(kind)?
            .strip_prefix(' ')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_knows_its_own_only() {
        let (own, other) = (Owner::new("abc"), Owner::new("ab"));
        let (network, endpoint) = (own.network("n1"), own.endpoint("e1"));
        assert_eq!(own.network_of(Some(&network)), Some("n1"));
        assert_eq!(own.endpoint_of(Some(&endpoint)), Some("e1"));
        assert_eq!(own.network_of(Some(&endpoint)), None);
        assert_eq!(other.network_of(Some(&network)), None);
        assert_eq!(own.network_of(Some("n1")), None);
        assert_eq!(own.network_of(None), None);
        assert!(Owner::new(&"é".repeat(300)).network(&"0".repeat(64)).len() <= LONGEST);
    }
}

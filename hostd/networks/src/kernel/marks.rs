//! Recognises our links by their alias, which names the engine and the object. Link names are not
//! enough: other programs and engines on the same machine also use `veth…` and `br-…`.

/// The engine that creates the marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(String);

/// Longest alias that the kernel keeps.
const LONGEST: usize = 255;

impl Owner {
    /// Makes the marks of the engine with this identifier.
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

    /// The network of a link, if the link is ours.
    pub(super) fn network_of<'a>(&self, alias: Option<&'a str>) -> Option<&'a str> {
        self.object(alias, "network")
    }

    /// The endpoint of a link, if the link is ours.
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
    fn an_engine_recognises_only_its_own_links() {
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

//! The containers of one scope, by identifier and by name.

use std::collections::{BTreeMap, HashMap};

use crate::EngineError;

/// Containers by identifier, with their names. Every operation takes logarithmic time.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    by_id: BTreeMap<String, T>,
    /// Name → identifier; a name is taken before its container is in `by_id`.
    names: HashMap<String, String>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            names: HashMap::new(),
        }
    }
}

impl<T: Clone> Registry<T> {
    /// Takes a name for an identifier.
    pub(crate) fn reserve(&mut self, name: &str, id: &str) -> Result<(), EngineError> {
        match self.names.get(name) {
            Some(owner) => Err(EngineError::NameInUse {
                name: name.to_owned(),
                id: owner.clone(),
            }),
            None => {
                self.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        }
    }

    /// Releases a name.
    pub(crate) fn release(&mut self, name: &str) {
        self.names.remove(name);
    }

    pub(crate) fn insert(&mut self, id: &str, container: T) {
        self.by_id.insert(id.to_owned(), container);
    }

    pub(crate) fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.by_id.values()
    }

    /// By full identifier, then by name, then by unique beginning of an identifier.
    pub(crate) fn resolve(&self, wanted: &str) -> Result<T, EngineError> {
        let missing = || EngineError::NoSuchContainer(wanted.to_owned());
        if let Some(container) = self.by_id.get(wanted) {
            return Ok(container.clone());
        }
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Some(container) = self.names.get(name).and_then(|id| self.by_id.get(id)) {
            return Ok(container.clone());
        }
        if wanted.is_empty() {
            return Err(missing());
        }
        let mut matches = self
            .by_id
            .range(wanted.to_owned()..)
            .take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => Err(EngineError::AmbiguousId(wanted.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use keelson_model::error::ErrorKind;

    use super::*;

    #[test]
    fn resolution() {
        let mut registry = Registry::default();
        for (id, name) in [("abc1", "web"), ("abd2", "abc"), ("b3", "abc1")] {
            registry.reserve(name, id).unwrap();
            registry.insert(id, id);
        }
        assert_eq!(
            registry.resolve("abc1").unwrap(),
            "abc1",
            "identifier first"
        );
        assert_eq!(registry.resolve("abc").unwrap(), "abd2", "then name");
        assert_eq!(registry.resolve("/web").unwrap(), "abc1");
        assert_eq!(registry.resolve("abd").unwrap(), "abd2", "then beginning");
        let kind =
            |registry: &Registry<&str>, wanted: &str| registry.resolve(wanted).unwrap_err().kind();
        assert_eq!(kind(&registry, "ab"), ErrorKind::InvalidInput);
        assert_eq!(kind(&registry, "zz"), ErrorKind::NotFound);
        assert_eq!(kind(&registry, ""), ErrorKind::NotFound);
        assert_eq!(kind(&registry, "/"), ErrorKind::NotFound);
        let error = registry.reserve("web", "x").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is already in use by container \"abc1\"")
        );
        registry.release("web");
        registry.reserve("web", "x").unwrap();
        registry.remove("b3");
        assert_eq!(kind(&registry, "b3"), ErrorKind::NotFound);
    }
}

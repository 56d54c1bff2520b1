//! Reads the members of a mapping one by one, and warns about those that nobody asked for.

use crate::notes::Notes;
use crate::yaml::{YamlMember, YamlNode};

/// The members of a mapping that were not read yet.
pub(crate) struct Fields<'a> {
    /// The mapping, as its author knows it: `users[]`, `write_files[]`; empty for the document.
    path: String,
    left: Vec<&'a YamlMember>,
}

impl<'a> Fields<'a> {
    /// The members of `node`. If it is no mapping, that is a warning, and there are none.
    pub(crate) fn of(node: &'a YamlNode, path: &str, notes: &mut Notes) -> Self {
        if node.map().is_none() && !node.is_null() {
            notes.at(
                node.line,
                format!("{path} must be a mapping and is left out"),
            );
        }
        Self {
            path: path.to_owned(),
            left: node.map().unwrap_or_default().iter().collect(),
        }
    }

    /// Takes a member; `-` and `_` are the same in names. A null is as good as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a YamlNode> {
        let at = self.left.iter().position(|entry| same(&entry.key, name))?;
        let node = &self.left.remove(at).node;
        (!node.is_null()).then_some(node)
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, name: &str, notes: &mut Notes) -> Option<&'a str> {
        let node = self.take(name)?;
        let text = node.text();
        if text.is_none() {
            self.wrong(node, name, "a text", notes);
        }
        text
    }

    /// Takes a truth value.
    pub(crate) fn boolean(&mut self, name: &str, notes: &mut Notes) -> Option<bool> {
        let node = self.take(name)?;
        let truth = node.boolean();
        if truth.is_none() {
            self.wrong(node, name, "true or false", notes);
        }
        truth
    }

    /// Takes a whole number.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self, name: &str, notes: &mut Notes) -> Option<T> {
        let node = self.take(name)?;
        let number = node.integer().and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            self.wrong(node, name, "a whole number in range", notes);
        }
        number
    }

    /// Takes a text or a list of texts.
    pub(crate) fn texts(&mut self, name: &str, notes: &mut Notes) -> Vec<&'a str> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        match node.texts() {
            Some(texts) => texts.into_iter().map(|(_, text)| text).collect(),
            None => {
                self.wrong(node, name, "a text or a list of texts", notes);
                Vec::new()
            }
        }
    }

    /// Takes a list.
    pub(crate) fn list(&mut self, name: &str, notes: &mut Notes) -> &'a [YamlNode] {
        let Some(node) = self.take(name) else {
            return &[];
        };
        if node.list().is_none() {
            self.wrong(node, name, "a list", notes);
        }
        node.list().unwrap_or_default()
    }

    /// Takes members that need no action.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        self.left
            .retain(|entry| !names.iter().any(|name| same(&entry.key, name)));
    }

    /// Warns about members that are known and have no effect here; each with its reason.
    pub(crate) fn unsupported(&mut self, known: &[(&str, &str)], notes: &mut Notes) {
        let path = self.path.clone();
        self.left.retain(|entry| {
            let reason = known.iter().find(|(name, _)| same(&entry.key, name));
            if let Some((name, reason)) = reason {
                let name = full(&path, name);
                notes.at(entry.line, format!("{name} is not supported: {reason}"));
            }
            reason.is_none()
        });
    }

    /// Warns about what is left.
    pub(crate) fn finish(self, notes: &mut Notes) {
        for entry in self.left {
            let name = full(&self.path, &entry.key);
            notes.at(entry.line, format!("{name} is unknown and is left out"));
        }
    }

    /// Warns about a value of the wrong kind.
    pub(crate) fn wrong(&self, node: &YamlNode, name: &str, wanted: &str, notes: &mut Notes) {
        let name = full(&self.path, name);
        notes.at(
            node.line,
            format!("{name} must be {wanted} and is left out"),
        );
    }
}

fn full(path: &str, name: &str) -> String {
    // A name of a hostile document may be long.
    let name: String = name.chars().take(100).collect();
    match path {
        "" => name,
        path => format!("{path}.{name}"),
    }
}

fn same(left: &str, right: &str) -> bool {
    left.len() == right.len()
        && left
            .bytes()
            .zip(right.bytes())
            .all(|(l, r)| l == r || matches!((l, r), (b'-', b'_') | (b'_', b'-')))
}

//! Numbers of users and groups. A name keeps its number, also while the configuration does not name
//! it, because files on /var belong to numbers.

use std::collections::{BTreeMap, BTreeSet};

/// The first number, which is what `core` and others are everywhere.
const FIRST: u32 = 1000;
/// The last number. Higher ones belong to containers, dynamic users and nobody.
const LAST: u32 = 59_999;

/// The numbers that were given out, by name. Groups begin with `%`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ids(BTreeMap<String, u32>);

impl Ids {
    /// Reads `name number` in lines. `None` if a line is anything else: were it left out, somebody else
    /// would get the number, and with it the files.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(bytes).ok()?.lines().map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        });
        lines.collect::<Option<_>>().map(Self)
    }

    /// Numbers that are known from elsewhere. Those of the system are left out.
    pub(crate) fn known(numbers: impl Iterator<Item = (String, u32)>) -> Self {
        Self(
            numbers
                .filter(|(_, number)| (FIRST..=LAST).contains(number))
                .collect(),
        )
    }

    pub(crate) fn to_text(&self) -> String {
        let lines = self.0.iter();
        lines
            .map(|(name, number)| format!("{name} {number}\n"))
            .collect()
    }

    /// The number of a name; `None`: there are no more.
    pub(crate) fn of(&mut self, name: &str) -> Option<u32> {
        if let Some(number) = self.0.get(name) {
            return Some(*number);
        }
        let taken: BTreeSet<u32> = self.0.values().copied().collect();
        let number = (FIRST..=LAST).find(|number| !taken.contains(number))?;
        self.0.insert(name.to_owned(), number);
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay() {
        let mut ids = Ids::parse(b"core 1000\n%staff 1001\n").unwrap();
        assert_eq!(ids.of("core"), Some(1000));
        assert_eq!(ids.of("anna"), Some(1002));
        assert_eq!(ids.of("core"), Some(1000));
        let again = Ids::parse(ids.to_text().as_bytes());
        assert_eq!(again, Some(ids));
        for damaged in [
            &b"core 1000\nbroken\n"[..],
            b"anna x\n",
            b"core 1000\n\xff\n",
        ] {
            assert_eq!(Ids::parse(damaged), None);
        }
    }
}

//! What is in a table now.

use crate::element::Element;
use crate::object::{Set, Table};
use crate::wire::{self, Attributes, NFTABLES};
use crate::{Netfilter, NftError};

const GET_TABLE: u16 = NFTABLES | 1;
const GET_RULES: u16 = NFTABLES | 7;
const GET_ELEMENTS: u16 = NFTABLES | 13;
const GET_GENERATION: u16 = NFTABLES | 16;

/// How often a list is read when it changes during the reading.
const ATTEMPTS: u32 = 10;

impl Netfilter {
    /// Returns the elements of a set or map, in no particular order. Elements whose verdict names a
    /// chain that is not in `chains` are left out.
    ///
    /// # Errors
    /// There is no such set ([`NftError::is_missing`]).
    pub fn elements(
        &mut self,
        table: Table,
        set: &Set,
        chains: &[&'static str],
    ) -> Result<Vec<Element>, NftError> {
        let label = format!("list the elements of {} of {table}", set.name);
        self.list(&label, |netfilter, found| {
            let fill = |writer: &mut wire::Writer| {
                writer.text(1, table.name);
                writer.text(2, set.name);
            };
            let family = table.family.number();
            netfilter.request(&label, GET_ELEMENTS, wire::DUMP, family, fill, |message| {
                let list = message.attributes().nested(3);
                for (_, element) in list.into_iter().flatten() {
                    found.extend(Element::read(set, chains, Attributes(element)));
                }
            })
        })
    }

    /// Counts the rules of a table.
    ///
    /// # Errors
    /// The kernel refuses. A table that does not exist has no rules.
    pub fn rules(&mut self, table: Table) -> Result<usize, NftError> {
        let label = format!("list the rules of {table}");
        let found = self.list(&label, |netfilter, found| {
            let fill = |writer: &mut wire::Writer| writer.text(1, table.name);
            let family = table.family.number();
            netfilter.request(&label, GET_RULES, wire::DUMP, family, fill, |_| {
                found.push(());
            })
        })?;
        Ok(found.len())
    }

    /// Whether a table exists.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn has_table(&mut self, table: Table) -> Result<bool, NftError> {
        let label = format!("find {table}");
        let fill = |writer: &mut wire::Writer| writer.text(1, table.name);
        let family = table.family.number();
        match self.request(&label, GET_TABLE, 0, family, fill, |_| {}) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the generation of the ruleset. Every transaction, whoever commits it, changes this
    /// number.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn generation(&mut self) -> Result<u32, NftError> {
        let label = "read the generation";
        let mut generation = None;
        let each = |message: &wire::Message<'_>| generation = message.attributes().number(1);
        self.request(label, GET_GENERATION, 0, 0, |_| {}, each)?;
        generation.ok_or_else(|| NftError::Silent {
            message: label.to_owned(),
        })
    }

    /// Reads a list, and starts again when it changed meanwhile.
    pub(crate) fn list<T>(
        &mut self,
        label: &str,
        mut read: impl FnMut(&mut Self, &mut Vec<T>) -> Result<bool, NftError>,
    ) -> Result<Vec<T>, NftError> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            match read(self, &mut found) {
                Ok(false) => return Ok(found),
                Ok(true) => {}
                // What older kernels answer in the same case.
                Err(error) if error.errno() == Some(rustix::io::Errno::INTR.raw_os_error()) => {}
                Err(error) => return Err(error),
            }
        }
        Err(NftError::Unstable {
            message: label.to_owned(),
            attempts: ATTEMPTS,
        })
    }
}

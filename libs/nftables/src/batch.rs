//! Changes that take effect together or not at all.

use crate::element::Element;
use crate::object::{Chain, Data, Set, Table};
use crate::rule::Rule;
use crate::value::Kind;
use crate::wire::{self, NFTABLES, Writer};

/// Message types: their numbers in the subsystem.
const NEW_TABLE: u16 = NFTABLES;
const DELETE_TABLE: u16 = NFTABLES | 2;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENTS: u16 = NFTABLES | 12;
const DELETE_ELEMENTS: u16 = NFTABLES | 14;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Stands for a data type: the map's data are verdicts.
const VERDICTS: u32 = 0xffff_ff00;
/// The policy of a base chain: a packet that no rule decides is accepted.
const ACCEPT: u32 = 1;
/// Flag of a set that has data.
const MAP: u32 = 8;

/// Notes that nft stores with a set.
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;

/// Elements in one message: its list has at most 65,535 bytes, an element at most 120.
const ELEMENTS_PER_MESSAGE: usize = 400;

/// Changes that take effect together or not at all. See
/// [`Netfilter::commit`](crate::Netfilter::commit).
#[derive(Debug)]
pub struct Batch {
    writer: Writer,
    /// What each message asks for; errors quote it. Message 0 opens the transaction.
    labels: Vec<String>,
    /// Offset of the last message.
    last: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        let mut writer = Writer::default();
        let resource = wire::BATCH_RESOURCE;
        writer.message(BATCH_BEGIN, wire::REQUEST, 0, 0, resource, |_| {});
        Self {
            writer,
            labels: vec!["change the packet filter".to_owned()],
            last: 0,
        }
    }

    /// Whether there are no changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.len() < 2
    }

    /// Adds a table, unless there is one.
    pub fn add_table(&mut self, table: Table) {
        self.push(
            NEW_TABLE,
            wire::CREATE,
            table,
            format!("add {table}"),
            |writer| {
                writer.text(1, table.name);
            },
        );
    }

    /// Adds a table that must not be there yet: with one the batch is refused by `EEXIST`.
    pub fn create_table(&mut self, table: Table) {
        self.push(
            NEW_TABLE,
            wire::CREATE | wire::EXCLUSIVE,
            table,
            format!("create {table}"),
            |writer| {
                writer.text(1, table.name);
            },
        );
    }

    /// Deletes a table with all that is in it. It must be there: [`Self::add_table`] before makes sure
    /// of that.
    pub fn delete_table(&mut self, table: Table) {
        self.push(
            DELETE_TABLE,
            0,
            table,
            format!("delete {table}"),
            |writer| {
                writer.text(1, table.name);
            },
        );
    }

    /// Adds a chain, unless there is one.
    pub fn add_chain(&mut self, table: Table, chain: &Chain) {
        let label = format!("add chain {} of {table}", chain.name);
        self.push(NEW_CHAIN, wire::CREATE, table, label, |writer| {
            writer.text(1, table.name);
            writer.text(3, chain.name);
            if let Some((kind, hook, priority)) = chain.base {
                writer.nested(4, |writer| {
                    writer.number(1, hook.number());
                    writer.attribute(2, &priority.to_be_bytes());
                });
                writer.number(5, ACCEPT);
                writer.text(7, kind.as_str());
            }
        });
    }

    /// Adds a set or map, unless there is one.
    pub fn add_set(&mut self, table: Table, set: &Set) {
        let number = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let label = format!("add set {} of {table}", set.name);
        self.push(NEW_SET, wire::CREATE, table, label, |writer| {
            let (key, length) = Kind::joined(set.key);
            writer.text(1, table.name);
            writer.text(2, set.name);
            writer.number(3, set.data.map_or(0, |_| MAP));
            writer.number(4, key);
            writer.number(5, length);
            match set.data {
                None => {}
                Some(Data::Verdict) => writer.number(6, VERDICTS),
                Some(Data::Values(kinds)) => {
                    let (kind, length) = Kind::joined(kinds);
                    writer.number(6, kind);
                    writer.number(7, length);
                }
            }
            // An identifier for other messages of this transaction. Nobody uses it, but the kernel
            // requires it.
            writer.number(10, number);
            // The type alone does not tell nft the byte order of a name.
            if let [Kind::Name] = set.key {
                let mut data = vec![KEY_BYTE_ORDER, 4];
                data.extend_from_slice(&HOST_ORDER.to_ne_bytes());
                writer.attribute(13, &data);
            }
        });
    }

    /// Adds a rule at the end of its chain.
    pub fn add_rule(&mut self, table: Table, rule: &Rule) {
        let label = format!(
            "add rule \"{}\" to chain {} of {table}",
            rule.comment, rule.chain
        );
        self.push(
            NEW_RULE,
            wire::CREATE | wire::APPEND,
            table,
            label,
            |writer| {
                writer.text(1, table.name);
                writer.text(2, rule.chain);
                writer.nested(4, |writer| writer.append(rule.expressions.as_bytes()));
                if let Ok(length) = u8::try_from(rule.comment.len() + 1)
                    && length > 1
                {
                    // nft stores its notes here: type 0 is a comment.
                    let mut data = vec![0, length];
                    data.extend_from_slice(rule.comment.as_bytes());
                    data.push(0);
                    writer.attribute(7, &data);
                }
            },
        );
    }

    /// Adds elements. If an element exists already, it must have the same data.
    pub fn add_elements<'a>(
        &mut self,
        table: Table,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        self.elements(NEW_ELEMENTS, table, set, elements);
    }

    /// Deletes elements. They must exist.
    pub fn delete_elements<'a>(
        &mut self,
        table: Table,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        self.elements(DELETE_ELEMENTS, table, set, elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        table: Table,
        set: &Set,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        let (verb, flags) = match kind {
            NEW_ELEMENTS => ("add to", wire::CREATE),
            _ => ("delete from", 0),
        };
        while let Some(first) = elements.peek() {
            let key: Vec<_> = first.key.iter().map(ToString::to_string).collect();
            let key = key.join(" . ");
            let label = format!("{verb} {} of {table}: {key} and what follows", set.name);
            let part = elements.by_ref().take(ELEMENTS_PER_MESSAGE);
            self.push(kind, flags, table, label, |writer| {
                writer.text(1, table.name);
                writer.text(2, set.name);
                writer.nested(3, |writer| {
                    for element in part {
                        element.write(writer, kind == NEW_ELEMENTS);
                    }
                });
            });
        }
    }

    fn push(
        &mut self,
        kind: u16,
        flags: u16,
        table: Table,
        label: String,
        fill: impl FnOnce(&mut Writer),
    ) {
        self.last = self.writer.len();
        let sequence = u32::try_from(self.labels.len()).unwrap_or(u32::MAX);
        let family = table.family.number();
        self.writer
            .message(kind, wire::REQUEST | flags, sequence, family, 0, fill);
        self.labels.push(label);
    }

    /// The bytes of the transaction. The kernel acknowledges the last change, whose number is one
    /// less than the number of labels.
    pub(crate) fn finish(&self) -> Writer {
        let mut writer = self.writer.clone();
        writer.add_flags(self.last, wire::ACK);
        let resource = wire::BATCH_RESOURCE;
        writer.message(BATCH_END, wire::REQUEST, 0, 0, resource, |_| {});
        writer
    }

    /// What each message asks for, by its number.
    pub(crate) fn labels(&self) -> &[String] {
        &self.labels
    }
}

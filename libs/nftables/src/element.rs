//! The members of sets and maps.

use crate::object::{Data, Set};
use crate::value::{Value, Verdict, join, split};
use crate::wire::{Attributes, Writer};

/// What a map holds for a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// What to do.
    Verdict(Verdict),
    /// Values.
    Values(Vec<Value>),
}

/// A member of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// Its key.
    pub key: Vec<Value>,
    /// Its data, in a map.
    pub datum: Option<Datum>,
}

impl Element {
    /// Writes the element as a member of a list.
    pub(crate) fn write(&self, writer: &mut Writer, with_datum: bool) {
        writer.nested(1, |writer| {
            writer.nested(1, |writer| writer.attribute(1, &join(&self.key)));
            match &self.datum {
                Some(Datum::Verdict(verdict)) if with_datum => {
                    writer.nested(2, |writer| verdict.write(writer));
                }
                Some(Datum::Values(values)) if with_datum => {
                    writer.nested(2, |writer| writer.attribute(1, &join(values)));
                }
                _ => {}
            }
        });
    }

    /// Reads a member of a list of elements. The chain of a verdict must be one of `chains`.
    pub(crate) fn read(
        set: &Set,
        chains: &[&'static str],
        element: Attributes<'_>,
    ) -> Option<Self> {
        let key = split(set.key, element.nested(1)?.find(1)?)?;
        let datum = match set.data {
            None => None,
            Some(Data::Values(kinds)) => {
                let values = split(kinds, element.nested(2)?.find(1)?)?;
                Some(Datum::Values(values))
            }
            Some(Data::Verdict) => {
                let verdict = element.nested(2)?.nested(2)?;
                let chain = || {
                    let name = verdict.text(2)?;
                    chains.iter().find(|chain| **chain == name).copied()
                };
                Some(Datum::Verdict(match verdict.number(1)?.cast_signed() {
                    0 => Verdict::Drop,
                    1 => Verdict::Accept,
                    -3 => Verdict::Jump(chain()?),
                    -4 => Verdict::Goto(chain()?),
                    -5 => Verdict::Return,
                    _ => return None,
                }))
            }
        };
        Some(Self { key, datum })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::value::Kind;

    fn value(kind: Kind) -> BoxedStrategy<Value> {
        match kind {
            Kind::Ipv4 => any::<[u8; 4]>().prop_map(|a| Value::Ipv4(a.into())).boxed(),
            Kind::Ipv6 => any::<[u8; 16]>()
                .prop_map(|a| Value::Ipv6(a.into()))
                .boxed(),
            Kind::Protocol => any::<u8>().prop_map(Value::Protocol).boxed(),
            Kind::Port => any::<u16>().prop_map(Value::Port).boxed(),
            Kind::Name => "[a-z0-9.-]{1,15}".prop_map(Value::Name).boxed(),
        }
    }

    fn values(kinds: &'static [Kind]) -> impl Strategy<Value = Vec<Value>> {
        kinds.iter().map(|kind| value(*kind)).collect::<Vec<_>>()
    }

    const KEYS: &[&[Kind]] = &[
        &[Kind::Ipv4],
        &[Kind::Name],
        &[Kind::Name, Kind::Name],
        &[Kind::Ipv4, Kind::Protocol, Kind::Port],
        &[Kind::Ipv6, Kind::Protocol, Kind::Port],
        &[Kind::Protocol, Kind::Port],
    ];
    const DATA: &[Option<Data>] = &[
        None,
        Some(Data::Verdict),
        Some(Data::Values(&[Kind::Ipv4, Kind::Port])),
        Some(Data::Values(&[Kind::Ipv6, Kind::Port])),
        Some(Data::Values(&[Kind::Ipv4])),
    ];
    const CHAINS: &[&str] = &["a", "longer_name"];

    fn datum(data: Option<Data>) -> BoxedStrategy<Option<Datum>> {
        match data {
            None => Just(None).boxed(),
            Some(Data::Values(kinds)) => values(kinds)
                .prop_map(|values| Some(Datum::Values(values)))
                .boxed(),
            Some(Data::Verdict) => prop_oneof![
                Just(Verdict::Accept),
                Just(Verdict::Drop),
                Just(Verdict::Return),
                Just(Verdict::Jump("a")),
                Just(Verdict::Goto("longer_name")),
            ]
            .prop_map(|verdict| Some(Datum::Verdict(verdict)))
            .boxed(),
        }
    }

    fn element() -> impl Strategy<Value = (Set, Element)> {
        let kinds = (0..KEYS.len(), 0..DATA.len());
        kinds.prop_flat_map(|(key, data)| {
            let set = Set {
                name: "s",
                key: KEYS[key],
                data: DATA[data],
            };
            (values(set.key), datum(set.data))
                .prop_map(move |(key, datum)| (set, Element { key, datum }))
        })
    }

    proptest! {
        #[test]
        fn elements_are_read_as_they_were_written((set, element) in element()) {
            let mut writer = Writer::default();
            element.write(&mut writer, true);
            let (kind, payload) = Attributes(writer.as_bytes()).next().unwrap();
            prop_assert_eq!(kind, 1);
            let key = Attributes(payload).nested(1).unwrap().find(1).unwrap();
            let length = usize::try_from(Kind::joined(set.key).1).unwrap();
            prop_assert_eq!(key.len(), length);
            let read = Element::read(&set, CHAINS, Attributes(payload));
            prop_assert_eq!(read, Some(element));
        }
    }

    #[test]
    fn an_element_has_the_kernels_bytes() {
        let element = Element {
            key: vec![
                Value::Ipv4(Ipv4Addr::new(192, 0, 2, 1)),
                Value::Protocol(6),
                Value::Port(80),
            ],
            datum: Some(Datum::Verdict(Verdict::Jump("x"))),
        };
        let mut writer = Writer::default();
        element.write(&mut writer, true);
        let expected: [u8; 48] = [
            48, 0, 1, 0x80, // the element
            20, 0, 1, 0x80, 16, 0, 1, 0, 192, 0, 2, 1, 6, 0, 0, 0, 0, 80, 0, 0, // its key
            24, 0, 2, 0x80, 20, 0, 2, 0x80, // its data: a verdict
            8, 0, 1, 0, 0xff, 0xff, 0xff, 0xfd, // jump
            6, 0, 2, 0, b'x', 0, 0, 0, // to x
        ];
        assert_eq!(writer.as_bytes(), expected);
    }
}

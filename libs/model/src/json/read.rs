//! Typed reading of a [`Json`] value.

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Unexpected, Visitor};

use super::{Json, JsonError, REST};

type Members = Vec<(String, Json)>;

impl<'de> IntoDeserializer<'de, JsonError> for Json {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Json {
    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Self::Null => Unexpected::Other("null"),
            Self::Bool(value) => Unexpected::Bool(*value),
            Self::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Unexpected::Unsigned(value),
                (None, Some(value)) => Unexpected::Signed(value),
                (None, None) => Unexpected::Float(number.as_f64().unwrap_or(0.0)),
            },
            // The value may be long, or a secret.
            Self::String(_) => Unexpected::Other("a string"),
            Self::List(_) => Unexpected::Seq,
            Self::Object(_) => Unexpected::Map,
        }
    }

    /// Passes a value that is not null to the visitor.
    fn give<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => visitor.visit_u64(value),
                (None, Some(value)) => visitor.visit_i64(value),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(0.0)),
            },
            Self::String(text) => visitor.visit_string(text),
            Self::List(list) => visitor.visit_seq(Elements {
                elements: list.into_iter(),
                at: 0,
            }),
            Self::Object(members) => visitor.visit_map(Entries::all(members)),
        }
    }
}

/// `null` is the empty value of a type.
macro_rules! or_empty {
    ($($method:ident $empty:ident($value:expr),)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self {
                Json::Null => visitor.$empty($value),
                other => other.give(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Json {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.give(visitor)
    }

    or_empty! {
        deserialize_bool visit_bool(false),
        deserialize_i8 visit_i8(0),
        deserialize_i16 visit_i16(0),
        deserialize_i32 visit_i32(0),
        deserialize_i64 visit_i64(0),
        deserialize_i128 visit_i128(0),
        deserialize_u8 visit_u8(0),
        deserialize_u16 visit_u16(0),
        deserialize_u32 visit_u32(0),
        deserialize_u64 visit_u64(0),
        deserialize_u128 visit_u128(0),
        deserialize_f32 visit_f32(0.0),
        deserialize_f64 visit_f64(0.0),
        deserialize_str visit_str(""),
        deserialize_string visit_str(""),
        deserialize_seq visit_seq(SeqDeserializer::<_, JsonError>::new(std::iter::empty::<Json>())),
        deserialize_map visit_map(
            MapDeserializer::<_, JsonError>::new(std::iter::empty::<(String, Json)>())
        ),
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Self::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    /// Missing elements of a list are empty, and elements that are too many are dropped.
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let mut list = match self {
            Self::Null => Vec::new(),
            Self::List(list) => list,
            other => return Err(JsonError::invalid_type(other.unexpected(), &visitor)),
        };
        list.resize(length, Self::Null);
        Self::List(list).give(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self {
            Self::Null => visitor.visit_map(Entries::all(Vec::new())),
            Self::Object(members) => visitor.visit_map(Entries::of(members, fields)),
            other => Err(JsonError::invalid_type(other.unexpected(), &visitor)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self {
            Self::Null => visitor.visit_enum(StrDeserializer::<JsonError>::new("")),
            Self::String(text) => visitor.visit_enum(text.into_deserializer()),
            other => {
                let read = other.into_value().deserialize_enum(name, variants, visitor);
                read.map_err(JsonError::custom)
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct identifier
    }
}

/// The elements of a list.
struct Elements {
    elements: std::vec::IntoIter<Json>,
    at: usize,
}

impl<'de> serde::de::SeqAccess<'de> for Elements {
    type Error = JsonError;

    fn next_element_seed<T: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, JsonError> {
        let Some(element) = self.elements.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(element);
        let at = self.at;
        self.at += 1;
        read.map(Some)
            .map_err(|error| error.below(&format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

/// The members of an object.
struct Entries {
    members: std::vec::IntoIter<(String, Json)>,
    value: Option<(String, Json)>,
}

impl Entries {
    /// As a map: all of them.
    fn all(members: Members) -> Self {
        Self {
            members: members.into_iter(),
            value: None,
        }
    }

    /// As a type with these fields: each once, by the field's own name.
    fn of(members: Members, fields: &'static [&'static str]) -> Self {
        let mut known: Members = Vec::new();
        let mut rest = Vec::new();
        for (name, value) in members {
            // No document can use the special name.
            let exact = fields.iter().find(|field| **field == name);
            let field = exact
                .or_else(|| {
                    fields
                        .iter()
                        .find(|field| field.eq_ignore_ascii_case(&name))
                })
                .filter(|field| **field != REST);
            match (field, value) {
                (None, value) => rest.push((name, value)),
                // It is used for lists only; other values ignore it.
                (Some(field), Json::Null) => {
                    known.retain(|(name, value)| name != field || !matches!(value, Json::List(_)));
                }
                (Some(field), value) => match known.iter_mut().find(|(name, _)| name == field) {
                    None => known.push(((*field).to_owned(), value)),
                    Some((_, Json::Object(before))) if matches!(value, Json::Object(_)) => {
                        if let Json::Object(members) = value {
                            before.extend(members);
                        }
                    }
                    Some((_, before)) => *before = value,
                },
            }
        }
        if fields.contains(&REST) {
            known.push((REST.to_owned(), Json::Object(rest)));
        }
        Self::all(known)
    }
}

impl<'de> serde::de::MapAccess<'de> for Entries {
    type Error = JsonError;

    fn next_key_seed<K: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, JsonError> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        let key = seed.deserialize(StrDeserializer::<JsonError>::new(&name))?;
        self.value = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<T: serde::de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, JsonError> {
        let (name, value) = self
            .value
            .take()
            .ok_or_else(|| JsonError::custom("a value is asked for before its name"))?;
        seed.deserialize(value).map_err(|error| error.below(&name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

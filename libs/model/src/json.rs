//! Reads JSON from other programs in the way of Go's package `encoding/json`, which most container
//! tools use. Our programs accept the same documents:
//!
//! * The names of members match without regard to (ASCII) case.
//! * A member that is `null` counts as absent; in a list or as the value of a map `null` is the
//!   empty value of its type.
//! * A member may occur several times. The last one counts; objects are merged.
//! * Unknown members may have any value.
//!
//! An error names the path of the member. Derived types work without changes, except with
//! `flatten`, `untagged` and `tag`, which bypass this module. A field that is renamed to [`REST`]
//! gets all members that have no field.

#[doc(hidden)]
pub mod mangle;
mod read;
mod tree;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

pub use tree::{Json, MAX_VALUES};

/// Name of the field that gets the members without a field, as a map or an object.
pub const REST: &str = "$rest";

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// The path of the member: `config.Env[2]`; empty for the document itself.
    path: String,
    message: String,
}

impl JsonError {
    /// The path of the wrong member, such as `config.Env[2]`; empty for the document itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, when the value is the member `parent` of another one.
    #[must_use]
    pub fn below(mut self, parent: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => parent.to_owned(),
            inner if inner.starts_with('[') => format!("{parent}{inner}"),
            inner => format!("{parent}.{inner}"),
        };
        self
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "member {path}: {}", self.message),
        }
    }
}

impl std::error::Error for JsonError {}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            path: String::new(),
            message: message.to_string(),
        }
    }
}

/// Reads a document.
///
/// # Errors
/// When it is not JSON, or a member that is needed is missing or of another type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    T::deserialize(Json::parse(bytes)?)
}

/// Reads a value that was kept from another document, where it is the member `name`.
///
/// # Errors
/// When it is of another type.
pub fn from_member<T: DeserializeOwned>(name: &str, value: Json) -> Result<T, JsonError> {
    T::deserialize(value).map_err(|error| error.below(name))
}

/// For `deserialize_with`: a list of strings, or a single string for a list of one.
///
/// # Errors
/// When it is neither.
pub fn strings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Visitor;

    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of strings, or a string")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(Visitor)
}

/// For `deserialize_with`: like [`strings`] of a member that may be missing.
///
/// # Errors
/// When it is neither a list of strings nor a string.
pub fn some_strings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    strings(deserializer).map(Some)
}

/// For `deserialize_with`: a member that only informs people. One of another type counts as absent.
///
/// # Errors
/// Never, of a document that [`from_slice`] reads.
pub fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    let value = Json::deserialize(deserializer)?;
    Ok(T::deserialize(value).unwrap_or_default())
}

/// For `deserialize_with`: like [`lenient`] of a list. An element of another type is the empty one.
///
/// # Errors
/// Never, of a document that [`from_slice`] reads.
pub fn lenient_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    let read = |element| T::deserialize(element).unwrap_or_default();
    Ok(match Json::deserialize(deserializer)? {
        Json::List(list) => list.into_iter().map(read).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    struct Inner {
        #[serde(default, rename = "Text")]
        text: String,
        #[serde(default)]
        number: Option<i64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outer {
        needed: String,
        #[serde(default)]
        list: Vec<String>,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        map: BTreeMap<String, String>,
        #[serde(default, deserialize_with = "strings")]
        words: Vec<String>,
        #[serde(default, deserialize_with = "lenient")]
        remark: Option<String>,
        #[serde(default)]
        switch: bool,
        #[serde(default, rename = "$rest")]
        rest: BTreeMap<String, serde_json::Value>,
    }

    fn read(text: &str) -> Outer {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn null_counts_as_absent() {
        let bare = read(r#"{"needed":"x"}"#);
        let nulls = r#"{"needed":"x","list":null,"inner":null,"map":null,"words":null,
            "remark":null,"switch":null}"#;
        assert_eq!(read(nulls), bare);
        let inside = read(r#"{"needed":"x","list":["a",null],"map":{"a":null}}"#);
        assert_eq!(inside.list, ["a", ""]);
        assert_eq!(inside.map["a"], "");
        let error = from_slice::<Outer>(br#"{"needed":null}"#).unwrap_err();
        assert!(error.to_string().contains("`needed`"), "{error}");
    }

    #[test]
    fn names_match_without_case_and_the_last_counts() {
        let read = read(
            r#"{"NEEDED":"a","needed":"b","Needed":"c","INNER":{"text":"t","NUMBER":1},
                "inner":{"Number":2},"Map":{"A":"1","a":"2"}}"#,
        );
        assert_eq!(read.needed, "c");
        assert_eq!((&*read.inner.text, read.inner.number), ("t", Some(2)));
        assert_eq!(read.map.len(), 2);
    }

    #[test]
    fn members_without_a_field_are_kept_or_ignored() {
        let read = read(r#"{"needed":"a","x":[1,{"y":null}],"X":2,"inner":{"z":[[[]]]}}"#);
        let rest: Vec<_> = read.rest.keys().collect();
        assert_eq!(rest, ["X", "x"]);
        assert_eq!(read.rest["x"], serde_json::json!([1, {"y": null}]));
    }

    #[test]
    fn strings_are_lists_of_one_where_allowed() {
        assert_eq!(read(r#"{"needed":"a","words":"b c"}"#).words, ["b c"]);
        assert_eq!(read(r#"{"needed":"a","words":["b"]}"#).words, ["b"]);
        let wrong = from_slice::<Outer>(br#"{"needed":"a","list":"b"}"#).unwrap_err();
        assert!(wrong.to_string().starts_with("member list: "), "{wrong}");
        assert_eq!(read(r#"{"needed":"a","remark":[1]}"#).remark, None);
    }

    #[test]
    fn errors_name_the_member() {
        for (text, path) in [
            (r#"{"needed":1}"#, "needed"),
            (r#"{"needed":"a","LIST":["x",5]}"#, "list[1]"),
            (r#"{"needed":"a","inner":{"number":"1"}}"#, "inner.number"),
            (r#"{"needed":"a","map":{"k":[]}}"#, "map.k"),
            (r#"[]"#, ""),
            ("{", ""),
            ("{} x", ""),
        ] {
            let error = from_slice::<Outer>(text.as_bytes()).unwrap_err();
            assert_eq!(error.path(), path, "{error}");
        }
    }

    #[test]
    fn documents_of_very_many_values_are_refused() {
        let many = format!("{{\"x\":[{}0]}}", "0,".repeat(MAX_VALUES));
        let error = from_slice::<Outer>(many.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("values"), "{error}");
        let deep = format!("{{\"x\":{}", "[".repeat(100_000));
        assert!(from_slice::<Outer>(deep.as_bytes()).is_err());
    }
}

//! Query parameters and filters.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::error::ApiError;

/// Undoes percent encoding; invalid UTF-8 is replaced. `plus`: `+` stands for a space, as in
/// query strings.
pub fn percent_decode(text: &str, plus: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => match tail {
                [high, low, after @ ..] => match (hex(*high), hex(*low)) {
                    (Some(high), Some(low)) => {
                        out.push(high << 4 | low);
                        rest = after;
                    }
                    _ => out.push(byte),
                },
                _ => out.push(byte),
            },
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The query string's parameters.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub fn parse(query: Option<&str>) -> Self {
        Self(
            query
                .unwrap_or_default()
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(name, true), percent_decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of a parameter that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A truth value as Docker reads it: anything but nothing, `0`, `no`, `false` and `none`.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            !matches!(
                value.trim().to_ascii_lowercase().as_str(),
                "" | "0" | "no" | "false" | "none"
            )
        })
    }

    /// A number.
    ///
    /// # Errors
    /// InvalidInput naming the parameter.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    ApiError::invalid(format!(
                        "invalid value {value:?} for query parameter {name}: not a number in range"
                    ))
                })
            })
            .transpose()
    }

    /// A reference in two parameters: `repository` by the name given, and `tag`, which may also be
    /// a digest. `None`: there is no repository.
    pub fn reference(&self, repository: &str) -> Option<String> {
        let repository = self.get(repository)?;
        Some(match self.get("tag") {
            Some(digest) if digest.contains(':') => format!("{repository}@{digest}"),
            Some(tag) => format!("{repository}:{tag}"),
            None => repository.to_owned(),
        })
    }

    /// The `filters` parameter. `known` are the names that the caller understands.
    ///
    /// # Errors
    /// InvalidInput when it is not JSON or names a filter that is not known.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, ApiError> {
        Filters::parse(self.get("filters").unwrap_or("{}"), known)
    }
}

/// Filters: for each name the values of which one must fit.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Docker's two spellings: `{"label":["a"]}` and, from older clients, `{"label":{"a":true}}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum FilterValues {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        let raw: BTreeMap<String, FilterValues> = serde_json::from_str(text)
            .map_err(|e| ApiError::invalid(format!("invalid filters: {e}")))?;
        let mut out = BTreeMap::new();
        for (name, values) in raw {
            if !known.contains(&name.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter '{name}'")));
            }
            let values = match values {
                FilterValues::List(list) => list,
                FilterValues::Set(set) => set
                    .into_iter()
                    .filter_map(|(value, on)| on.then_some(value))
                    .collect(),
            };
            if !values.is_empty() {
                out.insert(name, values);
            }
        }
        Ok(Self(out))
    }

    /// The values of a filter; empty when it is not given.
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Adds a value to a filter.
    pub fn add(&mut self, name: &str, value: &str) {
        let values = self.0.entry(name.to_owned()).or_default();
        values.push(value.to_owned());
    }

    /// Whether the filter is given.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the filter is not given or one of its values fits.
    pub fn any(&self, name: &str, fits: impl Fn(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).iter().any(|value| fits(value))
    }

    /// Whether every `label` (`key` or `key=value`) and no `label!` is among the labels.
    pub fn labels<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => get(key) == Some(value),
            None => get(wanted).is_some(),
        };
        self.values("label").iter().all(|label| has(label))
            && !self.values("label!").iter().any(|label| has(label))
    }

    /// The single truth value of a filter (`dangling=true`).
    ///
    /// # Errors
    /// InvalidInput when it is neither.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.values(name) {
            [] => Ok(None),
            values if values.iter().all(|value| matches!(&**value, "true" | "1")) => Ok(Some(true)),
            values if values.iter().all(|value| matches!(&**value, "false" | "0")) => {
                Ok(Some(false))
            }
            values => Err(ApiError::invalid(format!(
                "invalid filter '{name}=[{}]'",
                values.join(" ")
            ))),
        }
    }
}

/// Patterns as Docker has them in filters: a value fits a text that equals it, or in which the
/// regular expression that it is finds something. What is none finds nothing.
#[derive(Debug)]
pub struct Patterns(Vec<(String, Option<Regex>)>);

/// Memory that one compiled expression may take, in bytes.
const MAX_EXPRESSION: usize = 1 << 20;

impl Patterns {
    /// The values of a filter.
    pub fn new(values: &[String]) -> Self {
        let compiled = values.iter().map(|value| {
            let expression = RegexBuilder::new(value)
                .size_limit(MAX_EXPRESSION)
                .dfa_size_limit(MAX_EXPRESSION)
                .build();
            (value.clone(), expression.ok())
        });
        Self(compiled.collect())
    }

    /// Whether there are none, or one fits.
    pub fn fit(&self, text: &str) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|(value, expression)| {
                value == text || expression.as_ref().is_some_and(|e| e.is_match(text))
            })
    }

    /// Whether the name of a container fits, with or without its slash.
    pub fn fit_name(&self, name: &str) -> bool {
        self.fit(name) || self.fit(&format!("/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse(Some("a=1&b=x%20y+z&c&force=1&v=False&t=%zz"));
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), Some("x y z"));
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("t"), Some("%zz"));
        assert!(query.flag("force"));
        assert!(!query.flag("v"));
        assert!(!query.flag("nothing"));
        assert_eq!(query.number::<i64>("a").unwrap(), Some(1));
        assert!(query.number::<i64>("b").is_err());
    }

    #[test]
    fn both_spellings_of_filters_are_read() {
        let known = ["label", "status"];
        let new = Filters::parse(r#"{"label":["a","b=1"]}"#, &known).unwrap();
        let old = Filters::parse(r#"{"label":{"a":true,"b=1":true,"c":false}}"#, &known).unwrap();
        assert_eq!(new, old);
        assert!(Filters::parse(r#"{"colour":["red"]}"#, &known).is_err());
        assert!(Filters::parse("[]", &known).is_err());
        let labels = |key: &str| match key {
            "a" => Some("x"),
            "b" => Some("1"),
            _ => None,
        };
        assert!(new.labels(labels));
        assert!(!new.labels(|_| None));
    }

    #[test]
    fn names_are_regular_expressions() {
        let fits = |pattern: &str, name: &str| Patterns::new(&[pattern.to_owned()]).fit_name(name);
        for (pattern, name) in [
            ("eb", "web-1"),
            ("^/web-1$", "web-1"),
            ("^web-1$", "web-1"),
            ("/web", "web-1"),
            ("web.*[0-9]", "web-1"),
            ("^(web|db)-[0-9]+$", "db-22"),
            ("w.b", "web-1"),
            ("(?i)WEB", "web-1"),
            ("", "web-1"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("^eb", "web-1"),
            ("web$", "web-1"),
            ("^web-[0-9]$", "web-12"),
            ("web*$", "web-1"),
            ("[", "web-1"),
            ("*", "web-1"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        let several = Patterns::new(&["[".to_owned(), "db".to_owned()]);
        assert!(several.fit_name("db") && !several.fit_name("web"));
        assert!(Patterns::new(&[]).fit_name("anything"));
    }

    proptest! {
        #[test]
        fn any_query_is_survived(text in ".{0,80}") {
            let query = Query::parse(Some(&text));
            let _ = query.filters(&["a"]);
            let _ = percent_decode(&text, true);
        }

        #[test]
        fn encoding_every_byte_round_trips(text in ".{0,40}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(percent_decode(&encoded, true), text);
        }
    }
}

//! Query parameters and filters.

use std::collections::BTreeMap;

use keelson_model::json::{self, Json, JsonError};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::error::ApiError;

/// Undoes percent encoding; invalid UTF-8 is replaced. `plus`: `+` stands for a space, as in
/// query strings.
///
/// # Errors
/// `InvalidInput` naming the wrong escape, in the words of Go's package `net/url`.
pub fn percent_decode(text: &str, plus: bool) -> Result<String, ApiError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => match tail {
                [high, low, after @ ..] if is_hex(*high) && is_hex(*low) => {
                    out.push(hex(*high) << 4 | hex(*low));
                    rest = after;
                }
                _ => {
                    let escape = String::from_utf8_lossy(tail.get(..2).unwrap_or(tail));
                    return Err(ApiError::invalid(format!(
                        "invalid URL escape \"%{escape}\""
                    )));
                }
            },
            _ => out.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

fn hex(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        _ => byte
            .to_ascii_lowercase()
            .wrapping_sub(b'a')
            .wrapping_add(10),
    }
}

/// The query string's parameters.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    ///
    /// # Errors
    /// `InvalidInput`: an escape is wrong, or a semicolon separates parameters.
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut parameters = Vec::new();
        for pair in query.unwrap_or_default().split('&') {
            if pair.contains(';') {
                return Err(ApiError::invalid("invalid semicolon separator in query"));
            }
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                parameters.push((percent_decode(name, true)?, percent_decode(value, true)?));
            }
        }
        Ok(Self(parameters))
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

    /// A truth value as Docker reads it. False: empty, `0`, `no`, `false` and `none`. True: anything
    /// else.
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
    /// `InvalidInput` naming the parameter.
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

    /// A reference in two parameters: the one named `repository`, and `tag`, which may also be a
    /// digest. `None`: there is no repository.
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
    /// `InvalidInput` when it is not JSON or names a filter that is not known.
    pub fn filters(&self, known: &[&str]) -> Result<Filters, ApiError> {
        Filters::parse(self.get("filters").unwrap_or("{}"), known)
    }
}

/// Filters: a name with several values. One of the values must fit.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        let wrong =
            |error: JsonError| ApiError::invalid(format!("invalid filter: {}", error.message()));
        let raw: BTreeMap<String, Json> = json::from_slice(text.as_bytes()).map_err(wrong)?;
        let mut out = BTreeMap::new();
        for (name, values) in raw {
            if !known.contains(&name.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter '{name}'")));
            }
            // Docker's two spellings: `{"label":["a"]}` and `{"label":{"a":true}}`.
            let values = match values {
                Json::Object(_) => BTreeMap::<String, bool>::deserialize(values)
                    .map_err(wrong)?
                    .into_iter()
                    .filter_map(|(value, on)| on.then_some(value))
                    .collect(),
                list => Vec::<String>::deserialize(list).map_err(wrong)?,
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
    /// `InvalidInput` when it is neither.
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

/// The patterns of a filter, as Docker reads them. A value matches a text that equals it, or in
/// which it matches something as a regular expression. A wrong expression matches nothing.
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
        let query = Query::parse(Some("a=1&&b=x%20y+z&c&force=1&v=False&q={\"|\\")).unwrap();
        assert_eq!(query.get("a"), Some("1"));
        assert_eq!(query.get("b"), Some("x y z"));
        assert_eq!(query.get("c"), None);
        assert_eq!(query.get("q"), Some("{\"|\\"));
        assert!(query.flag("force"));
        assert!(!query.flag("v"));
        assert!(!query.flag("nothing"));
        assert_eq!(query.number::<i64>("a").unwrap(), Some(1));
        assert!(query.number::<i64>("b").is_err());
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for (text, word) in [
            ("a=%zz", "\"%zz\""),
            ("a=1&%4", "\"%4\""),
            ("a=%", "\"%\""),
            ("a=%é", "\"%é\""),
            ("a=1;b=2", "semicolon"),
        ] {
            let error = Query::parse(Some(text)).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn both_spellings_of_filters_are_read() {
        let known = ["label", "status"];
        let new = Filters::parse(r#"{"label":["a","b=1"]}"#, &known).unwrap();
        let old = Filters::parse(r#"{"label":{"a":true,"b=1":true,"c":false}}"#, &known).unwrap();
        assert_eq!(new, old);
        assert!(Filters::parse(r#"{"colour":["red"]}"#, &known).is_err());
        let none = Filters::parse(r#"{"label":null,"status":{}}"#, &known).unwrap();
        assert_eq!(none, Filters::default());
        for wrong in ["[]", "", "{", r#"{"label":"a"}"#, r#"{"label":{"a":1}}"#] {
            let error = Filters::parse(wrong, &known).unwrap_err();
            assert!(error.to_string().starts_with("invalid filter"), "{error}");
        }
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
            if let Ok(query) = Query::parse(Some(&text)) {
                let _ = query.filters(&["a"]);
            }
            let _ = Filters::parse(&text, &["a"]);
        }

        #[test]
        fn encoding_every_byte_round_trips(text in ".{0,40}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            prop_assert_eq!(percent_decode(&encoded, true).unwrap(), text);
        }
    }
}

//! Patterns of image names, with the grammar of Go's `path.Match`.

use std::iter::Peekable;
use std::str::Chars;

use crate::error::ApiError;

/// A pattern: `busybox`, `busy*`, `*/app:1.?`, `[a-c]*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `*`: any characters but `/`.
    Many,
    /// `?`: one character but `/`.
    Any,
    /// One of ranges, or with `true` none of them. It may be a `/`.
    Class(bool, Vec<(char, char)>),
    One(char),
}

impl Token {
    fn fits(&self, character: char) -> bool {
        match self {
            Self::Many | Self::Any => character != '/',
            Self::Class(without, ranges) => {
                let within = |(low, high): &(char, char)| (*low..=*high).contains(&character);
                ranges.iter().any(within) != *without
            }
            Self::One(wanted) => *wanted == character,
        }
    }
}

impl Pattern {
    /// # Errors
    /// The pattern does not follow the grammar. The text is Docker's.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let wrong = || ApiError::invalid(format!("syntax error in pattern: {text:?}"));
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '*' => Token::Many,
                '?' => Token::Any,
                '[' => class(&mut rest).ok_or_else(wrong)?,
                '\\' => Token::One(rest.next().ok_or_else(wrong)?),
                other => Token::One(other),
            });
        }
        Ok(Self(tokens))
    }

    /// Whether it fits a name, with or without the tag or digest.
    pub(super) fn fits(&self, name: &str) -> bool {
        let repository = match name.split_once('@') {
            Some((repository, _)) => repository,
            None => match name.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => repository,
                _ => name,
            },
        };
        self.is_all_of(name) || self.is_all_of(repository)
    }

    fn is_all_of(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Where to continue after the last `*`: its place in the pattern, and the text that it covers.
        let (mut p, mut t) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        while t < text.len() || p < self.0.len() {
            match (self.0.get(p), text.get(t)) {
                (Some(Token::Many), _) => {
                    back = Some((p, t));
                    p += 1;
                    continue;
                }
                (Some(token), Some(character)) if token.fits(*character) => {
                    p += 1;
                    t += 1;
                    continue;
                }
                _ => {}
            }
            match back {
                Some((star, covered)) if text.get(covered).is_some_and(|c| *c != '/') => {
                    back = Some((star, covered + 1));
                    p = star + 1;
                    t = covered + 1;
                }
                _ => return false,
            }
        }
        true
    }
}

/// The part between brackets.
fn class(rest: &mut Peekable<Chars<'_>>) -> Option<Token> {
    let without = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let low = bound(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => bound(rest)?,
            None => low,
        };
        ranges.push((low, high));
    }
    Some(Token::Class(without, ranges))
}

fn bound(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().fits(name)
    }

    #[test]
    fn names_fit_patterns() {
        for (pattern, name) in [
            ("busybox", "busybox:latest"),
            ("busybox:latest", "busybox:latest"),
            ("busy*", "busybox:latest"),
            ("*:lat*t", "busybox:latest"),
            ("*/app", "team/app:1"),
            ("host:5000/app", "host:5000/app:1"),
            ("busyb?x", "busybox@sha256:00"),
            ("[ab]*", "busybox:latest"),
            ("[^x-z]usy[b-d]ox", "busybox:latest"),
            (r"\b[\u]s*", "busybox:latest"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("busy", "busybox:latest"),
            ("*", "team/app:1"),
            ("busybox:1", "busybox:latest"),
            ("[^b]*", "busybox:latest"),
            ("[c-z]usybox", "busybox:latest"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        for wrong in ["[", "[]", "[]a]", "[a", "[a-]", "[-a]", "a\\", "[^", "[\\"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_stars(text in "[a-z:.]{0,20}", at in 0usize..20) {
            prop_assert!(fits(&text, &text));
            let at = at.min(text.len());
            let starred = format!("{}*{}", &text[..at], &text[at..]);
            prop_assert!(fits(&starred, &text));
        }

        #[test]
        fn any_pattern_is_survived(pattern in "[a-c*?^/\\\\\\[\\]-]{0,12}", name in "[a-c/]{0,8}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.fits(&name);
            }
        }
    }
}

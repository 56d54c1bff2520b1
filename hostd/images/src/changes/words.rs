//! Words of Dockerfile instructions: quotes, backslashes and variables.

use std::iter::Peekable;
use std::str::Chars;

use super::BadChange;

/// Returns a variable's value.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) fn single(rest: &str, variable: Variable<'_>) -> Result<String, BadChange> {
    Ok(words(rest, variable)?.join(" "))
}

/// `name=value …`, or the old form `name value` with one value of several words.
pub(super) fn pairs(
    rest: &str,
    variable: Variable<'_>,
) -> Result<Vec<(String, String)>, BadChange> {
    let words = words(rest, variable)?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        return match rest.split_once(char::is_whitespace) {
            Some((name, value)) => Ok(vec![(name.to_owned(), value.trim().to_owned())]),
            None => Err(format!("{rest:?} is not name=value").into()),
        };
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!("{word:?} is not name=value").into()),
        })
        .collect()
}

/// Splits at white space outside of quotes, and replaces `$NAME`, `${NAME}`, `${NAME:-default}` and
/// `${NAME:+other}` by values. Nothing is special between single quotes.
pub(super) fn words(text: &str, variable: Variable<'_>) -> Result<Vec<String>, BadChange> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => {
                let next = characters.next().ok_or("it ends with a backslash")?;
                let word = word.get_or_insert_default();
                // Between quotes, a backslash before an ordinary character is kept.
                if quote.is_some() && !matches!(next, '"' | '$' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None | Some('"'), '$') => {
                let value = expand(&mut characters, variable)?;
                word.get_or_insert_default().push_str(&value);
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quotation mark is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

/// The replacement for the variable whose dollar sign was read.
fn expand(
    characters: &mut Peekable<Chars<'_>>,
    variable: Variable<'_>,
) -> Result<String, BadChange> {
    if characters.next_if_eq(&'{').is_none() {
        let name = name(characters);
        return Ok(match name.as_str() {
            "" => "$".to_owned(),
            name => variable(name).unwrap_or_default(),
        });
    }
    let name = name(characters);
    let mut rest = String::new();
    loop {
        match characters.next() {
            Some('}') => break,
            Some(character) => rest.push(character),
            None => return Err(format!("${{{name} is not closed by a brace").into()),
        }
    }
    let value = variable(&name).filter(|value| !value.is_empty());
    if name.is_empty() {
        return Err(format!("${{{rest}}} names no variable").into());
    }
    if rest.is_empty() {
        return Ok(value.unwrap_or_default());
    }
    match (rest.strip_prefix(":-"), rest.strip_prefix(":+")) {
        (Some(default), _) => Ok(value.unwrap_or_else(|| default.to_owned())),
        (_, Some(other)) => Ok(value.map(|_| other.to_owned()).unwrap_or_default()),
        _ => Err(format!("unsupported modifier {rest:?} in substitution").into()),
    }
}

fn name(characters: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = characters.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_and_variables() {
        let variable = |name: &str| (name == "A").then(|| "v".to_owned());
        for (text, wanted) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b"c '$A'"#, &["a bc", "$A"]),
            (
                r#"$A "${A}x" \$A ${B:-d} ${A:+o}${B:+o}"#,
                &["v", "vx", "$A", "d", "o"],
            ),
            (r#""a\n\"" $ $-"#, &["a\\n\"", "$", "$-"]),
            ("''", &[""]),
        ] {
            assert_eq!(words(text, &variable).unwrap(), wanted, "{text}");
        }
        for wrong in ["'", "\\", "${A", "${}", "${A?x}"] {
            assert!(words(wrong, &variable).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_causes_a_panic(text in r#"[a-z$\{\}:+"' \\-]{0,30}"#) {
            let _ = pairs(&text, &|_| None);
        }
    }
}

//! YAML as a tree that remembers lines, and keeps the words of scalars.
//!
//! Scalars stay texts until somebody wants a number: `0644` is a mode, `52:54:00:12:34:56` a
//! hardware address and `1.10` a version, whatever YAML 1.1 makes of them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Largest document, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Most nodes of a document, those that aliases repeat included.
const MAX_NODES: usize = 200_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// Why a document can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum YamlError {
    /// It is not YAML.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// It is not text.
    #[error("the document is not UTF-8 text")]
    NotText,
    /// It exceeds a limit.
    #[error("line {line}: {limit}")]
    TooLarge {
        /// Line, counted from 1.
        line: usize,
        /// Which one.
        limit: &'static str,
    },
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlNode {
    /// Line, counted from 1; 0 if unknown.
    pub line: usize,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, a number, a truth value or nothing: see the functions of [`YamlNode`].
    Scalar {
        /// As written, after quoting was removed.
        text: String,
        /// Not quoted, so it may be something else than a text.
        plain: bool,
        /// Tagged `!!binary`: the text is base64.
        binary: bool,
    },
    /// A sequence.
    List(Vec<YamlNode>),
    /// A mapping. Keys are unique: of equal ones, the last counts.
    Map(Vec<YamlMember>),
}

/// A member of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlMember {
    /// The name.
    pub key: String,
    /// Line of the name.
    pub line: usize,
    /// The value.
    pub node: YamlNode,
}

impl YamlNode {
    /// A text: any scalar but nothing.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The bytes of a text, or those that `!!binary` encodes.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        let text = self.text()?;
        match &self.value {
            Value::Scalar { binary: true, .. } => {
                let dense: String = text.split_ascii_whitespace().collect();
                BASE64_STANDARD.decode(dense).ok().map(Cow::Owned)
            }
            _ => Some(Cow::Borrowed(text.as_bytes())),
        }
    }

    /// Nothing: an absent value, `~` or `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true, .. }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A truth value, also in the words of YAML 1.1. Quoted ones count, as people write them.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self.text()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }

    /// A whole number.
    #[must_use]
    pub fn integer(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    /// The members of a list.
    #[must_use]
    pub fn list(&self) -> Option<&[YamlNode]> {
        match &self.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The members of a mapping.
    #[must_use]
    pub fn map(&self) -> Option<&[YamlMember]> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The member `name` of a mapping.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&YamlNode> {
        let entry = self.map()?.iter().find(|entry| entry.key == name)?;
        Some(&entry.node)
    }

    /// The texts of a list of scalars, or of one scalar. `None` if there is anything else.
    #[must_use]
    pub fn texts(&self) -> Option<Vec<(usize, &str)>> {
        match &self.value {
            Value::List(list) => list
                .iter()
                .map(|node| Some((node.line, node.text()?)))
                .collect(),
            Value::Scalar { .. } if self.is_null() => Some(Vec::new()),
            Value::Scalar { text, .. } => Some(vec![(self.line, text)]),
            Value::Map(_) => None,
        }
    }

    fn nodes(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(list) => list.iter().map(YamlNode::nodes).sum(),
            Value::Map(map) => map.iter().map(|entry| entry.node.nodes()).sum(),
        }
    }
}

/// Reads the first document. Nothing at all is an empty mapping.
///
/// # Errors
/// [`YamlError`]; the document is read whole or not at all.
pub fn parse(bytes: &[u8]) -> Result<YamlNode, YamlError> {
    if bytes.len() > MAX_BYTES {
        return Err(YamlError::TooLarge {
            line: 1,
            limit: "the document has more than 4 MiB",
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| YamlError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        anchors: BTreeMap::new(),
        nodes: 0,
        parser: Parser::new_from_str(text),
    };
    builder.document()
}

/// The same tree from JSON, without lines.
#[must_use]
pub fn from_json(value: &serde_json::Value) -> YamlNode {
    let scalar = |text: String, plain| Value::Scalar {
        text,
        plain,
        binary: false,
    };
    // The parser of JSON limits the depth to 128.
    let value = match value {
        serde_json::Value::Null => scalar(String::new(), true),
        serde_json::Value::Bool(truth) => scalar(truth.to_string(), true),
        serde_json::Value::Number(number) => scalar(number.to_string(), true),
        serde_json::Value::String(text) => scalar(text.clone(), false),
        serde_json::Value::Array(list) => Value::List(list.iter().map(from_json).collect()),
        serde_json::Value::Object(map) => Value::Map(
            map.iter()
                .map(|(key, value)| YamlMember {
                    key: key.clone(),
                    line: 0,
                    node: from_json(value),
                })
                .collect(),
        ),
    };
    YamlNode { line: 0, value }
}

/// Whether a tag is `!!NAME`.
fn is_tag(tag: &Tag, name: &str) -> bool {
    tag.suffix_in_namespace("tag:yaml.org,2002:")
        .is_some_and(|suffix| suffix == name)
}

struct Builder<'input> {
    parser: Parser<'input, granit_parser::StrInput<'input>>,
    anchors: BTreeMap<usize, YamlNode>,
    nodes: usize,
}

impl<'input> Builder<'input> {
    fn document(&mut self) -> Result<YamlNode, YamlError> {
        let mut root = None;
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(YamlError::Syntax {
                            line: span.start.line(),
                            message: "there is a second document".to_owned(),
                        });
                    }
                }
                Event::StreamStart | Event::DocumentEnd => {}
                other => root = Some(self.node(other, &span, 0)?),
            }
        }
        let empty = YamlNode {
            line: 1,
            value: Value::Map(Vec::new()),
        };
        Ok(root.filter(|node| !node.is_null()).unwrap_or(empty))
    }

    /// The next event that is not a comment.
    fn next(&mut self) -> Result<(Event<'input>, Span), YamlError> {
        loop {
            match self.parser.next_event() {
                Some(Ok((event, span))) => {
                    let counts = event.is_node()
                        || matches!(
                            event,
                            Event::StreamStart
                                | Event::StreamEnd
                                | Event::DocumentStart(..)
                                | Event::DocumentEnd
                                | Event::SequenceEnd
                                | Event::MappingEnd
                        );
                    if counts {
                        return Ok((event, span));
                    }
                }
                Some(Err(error)) => {
                    return Err(YamlError::Syntax {
                        line: error.marker().line(),
                        message: error.info().to_owned(),
                    });
                }
                None => {
                    return Ok((Event::StreamEnd, Span::default()));
                }
            }
        }
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(YamlError::TooLarge {
                line,
                limit: "the document has more than 200000 values, aliases included",
            });
        }
        Ok(())
    }

    fn node(
        &mut self,
        event: Event<'input>,
        span: &Span,
        depth: usize,
    ) -> Result<YamlNode, YamlError> {
        let line = span.start.line();
        if depth > MAX_DEPTH {
            return Err(YamlError::TooLarge {
                line,
                limit: "values are nested deeper than 64",
            });
        }
        self.count(1, line)?;
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let binary = tag.as_ref().is_some_and(|tag| is_tag(tag, "binary"));
                let string = tag.as_ref().is_some_and(|tag| is_tag(tag, "str"));
                let value = Value::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain && !string && !binary,
                    binary,
                };
                (anchor, value)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut list = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd | Event::StreamEnd) {
                        break;
                    }
                    list.push(self.node(event, &span, depth + 1)?);
                }
                (anchor, Value::List(list))
            }
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(YamlError::Syntax {
                        line,
                        message: "an alias refers to a value that contains it".to_owned(),
                    });
                };
                self.count(node.nodes(), line)?;
                return Ok(node);
            }
            _ => {
                return Err(YamlError::Syntax {
                    line,
                    message: "a value is missing here".to_owned(),
                });
            }
        };
        let node = YamlNode { line, value };
        if anchor > 0 {
            self.count(node.nodes(), line)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<YamlMember> = Vec::new();
        // Where each key is: a document may have many.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let key = self.node(event, &span, depth + 1)?;
            let Value::Scalar { text, plain, .. } = key.value else {
                return Err(YamlError::Syntax {
                    line: key.line,
                    message: "the name of a member must be a text".to_owned(),
                });
            };
            let (event, span) = self.next()?;
            let node = self.node(event, &span, depth + 1)?;
            if plain && text == "<<" {
                merged.push(node);
                continue;
            }
            let entry = YamlMember {
                key: text.clone(),
                line: key.line,
                node,
            };
            match places.get(&text).and_then(|place| entries.get_mut(*place)) {
                Some(before) => *before = entry,
                None => {
                    places.insert(text, entries.len());
                    entries.push(entry);
                }
            }
        }
        for node in merged {
            let sources = match node.value {
                Value::List(list) => list,
                _ => vec![node],
            };
            for source in sources {
                for entry in source.map().unwrap_or_default() {
                    if !places.contains_key(&entry.key) {
                        places.insert(entry.key.clone(), entries.len());
                        entries.push(entry.clone());
                    }
                }
            }
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_words_and_lines() {
        let node =
            parse(b"#cloud-config\na: 0644\nb: 52:54:00:12:34:56\nc: yes\nd:\ne: '~'\n").unwrap();
        assert_eq!(node.get("a").unwrap().text(), Some("0644"));
        assert_eq!(node.get("b").unwrap().text(), Some("52:54:00:12:34:56"));
        assert_eq!(node.get("c").unwrap().boolean(), Some(true));
        assert!(node.get("d").unwrap().is_null());
        assert_eq!(node.get("e").unwrap().text(), Some("~"));
        assert_eq!(node.map().unwrap()[1].line, 3);
        assert_eq!(parse(b"").unwrap().map(), Some(&[][..]));
        assert_eq!(parse(b"# nothing\n").unwrap().map(), Some(&[][..]));
    }

    #[test]
    fn aliases_merge_keys_and_binary_are_read() {
        let text = b"base: &b {x: 1, y: 2}\nover: {<<: *b, y: 3}\nlist: [*b]\nbin: !!binary aGk=\n";
        let node = parse(text).unwrap();
        let over = node.get("over").unwrap();
        assert_eq!(over.get("x").unwrap().integer(), Some(1));
        assert_eq!(over.get("y").unwrap().integer(), Some(3));
        assert_eq!(node.get("bin").unwrap().bytes().unwrap(), &b"hi"[..]);
    }

    #[test]
    fn faults_have_lines() {
        let Err(YamlError::Syntax { line, .. }) = parse(b"a: 1\nb: [1, 2\nc: }\n") else {
            panic!("not refused");
        };
        assert!((2..=4).contains(&line), "{line}");
        assert!(parse(b"a: 1\n---\nb: 2\n").is_err());
        assert!(parse(b"? [a]\n: 1\n").is_err());
        assert_eq!(parse(&[0xff, 0xfe]), Err(YamlError::NotText));
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{below}]\n");
        }
        assert!(matches!(
            parse(bomb.as_bytes()),
            Err(YamlError::TooLarge { .. })
        ));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(YamlError::TooLarge { .. })
        ));
        assert!(parse(b"a: &a [*a]\n").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_yields_a_tree_or_an_error(text in ".{0,200}") {
            let _ = parse(text.as_bytes());
        }
    }
}

//! The kernel command line (`Documentation/admin-guide/kernel-parameters.rst`).

/// The parameters of the kernel command line, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    parameters: Vec<(String, Option<String>)>,
}

impl CommandLine {
    /// Splits at blanks; double quotes protect blanks and vanish, whether they stand around the
    /// whole parameter or around the value. Parameters after ` -- ` are for init only and are read
    /// like the others.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut parameters = Vec::new();
        let mut word = String::new();
        let mut quoted = false;
        for character in text.chars() {
            match character {
                '"' => quoted = !quoted,
                c if !quoted && (c.is_ascii_whitespace() || c == '\0') => {
                    push(&mut parameters, &mut word);
                }
                c => word.push(c),
            }
        }
        push(&mut parameters, &mut word);
        Self { parameters }
    }

    /// The command line that the running kernel was started with.
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read("/proc/cmdline").unwrap_or_default())
    }

    /// The value of the last `name=value`. `-` and `_` are the same in names.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .rev()
            .find(|(key, value)| value.is_some() && same_name(key, name))
            .and_then(|(_, value)| value.as_deref())
    }

    /// Whether the parameter is given, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(key, _)| same_name(key, name))
    }

    /// `parameter=value` words for module `module`, as its options.
    pub(crate) fn module_options(&self, module: &str) -> String {
        let mut options = Vec::new();
        for (key, value) in &self.parameters {
            let Some((owner, parameter)) = key.split_once('.') else {
                continue;
            };
            if same_name(owner, module) && !parameter.is_empty() {
                options.push(match value {
                    Some(value) => format!("{parameter}={value}"),
                    None => parameter.to_owned(),
                });
            }
        }
        options.join(" ")
    }
}

fn push(parameters: &mut Vec<(String, Option<String>)>, word: &mut String) {
    if word.is_empty() {
        return;
    }
    let parameter = match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.clone(), None),
    };
    parameters.push(parameter);
    word.clear();
}

fn same_name(left: &str, right: &str) -> bool {
    left.len() == right.len()
        && left
            .bytes()
            .zip(right.bytes())
            .all(|(l, r)| l == r || matches!((l, r), (b'-', b'_') | (b'_', b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_flags_and_quotes() {
        let line =
            CommandLine::parse(b"root=PARTLABEL=root quiet a.b=1 \"x y=z w\" t=\"p q\" a-b.c d=\n");
        assert_eq!(line.value("root"), Some("PARTLABEL=root"));
        assert!(line.has("quiet"));
        assert_eq!(line.value("quiet"), None);
        assert_eq!(line.value("x y"), Some("z w"));
        assert_eq!(line.value("t"), Some("p q"));
        assert_eq!(line.value("d"), Some(""));
        assert_eq!(line.module_options("a"), "b=1");
        assert_eq!(line.module_options("a_b"), "c");
    }

    #[test]
    fn the_last_value_wins() {
        let line = CommandLine::parse(b"root=a root=b root");
        assert_eq!(line.value("root"), Some("b"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_accepted(bytes: Vec<u8>) {
            CommandLine::parse(&bytes);
        }
    }
}

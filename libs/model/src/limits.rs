//! Limits in bytes on foreign input that is kept, shared by several parts of Keelson. A number
//! of entries alone bounds nothing, because one entry can be as large as a request.

/// Bytes of the names and values of all labels that a client sets on a container. Those of its
/// image come to them, of which there are no more.
pub const LABELS: usize = 1 << 20;
/// Bytes of everything that a client says about a container, as JSON.
pub const CONFIGURATION: usize = 2 << 20;
/// Bytes of one argument or variable of a process. The kernel takes no longer ones
/// (`MAX_ARG_STRLEN`, execve(2)), with the zero at the end.
pub const STRING: usize = (128 << 10) - 1;
/// Bytes of the labels that one event carries; labels that do not fit are left out of it.
pub const EVENT: usize = 16 << 10;

/// Those pairs, in their order, that fit into so many bytes together.
pub fn fitting<'a>(
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    mut bytes: usize,
) -> impl Iterator<Item = (&'a String, &'a String)> {
    pairs.into_iter().filter(move |(name, value)| {
        match bytes.checked_sub(name.len() + value.len()) {
            Some(left) => {
                bytes = left;
                true
            }
            None => false,
        }
    })
}

/// The beginning of a text, at most so many bytes of it, and a sign that there was more.
pub fn shortened(text: &str, bytes: usize) -> String {
    match text.len() <= bytes {
        true => text.to_owned(),
        false => format!("{}…", &text[..text.floor_char_boundary(bytes)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_left_out() {
        let labels = [("a", 3), ("b", 100), ("c", 4)].map(|(k, n)| (k.to_owned(), "x".repeat(n)));
        let pairs = labels.iter().map(|(name, value)| (name, value));
        let names: Vec<_> = fitting(pairs, 9).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("aäc", 2), "a…");
    }
}

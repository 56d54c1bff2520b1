//! Limits in bytes on input from outside that is kept, used by several parts of Keelson. A limit on
//! the number of entries is not enough, because one entry can be as large as a request.

/// Bytes of the names and values of all labels that a client sets on a container. The image's
/// labels are added to them; the same limit holds for those.
pub const LABELS: usize = 1 << 20;
/// Bytes of a client's complete description of a container, as JSON.
pub const CONFIGURATION: usize = 2 << 20;
/// Bytes of one argument or variable of a process. The kernel refuses longer ones
/// (`MAX_ARG_STRLEN`, execve(2)); the final zero counts.
pub const STRING: usize = (128 << 10) - 1;
/// Bytes of the labels that one event carries; labels that do not fit are left out of it.
pub const EVENT: usize = 16 << 10;

/// The pairs, in their order, that fit into this many bytes together.
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

/// The beginning of a text, at most this many bytes, and a sign that there was more.
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
    fn pairs_that_are_too_large_are_left_out() {
        let labels = [("a", 3), ("b", 100), ("c", 4)].map(|(k, n)| (k.to_owned(), "x".repeat(n)));
        let pairs = labels.iter().map(|(name, value)| (name, value));
        let names: Vec<_> = fitting(pairs, 9).map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("aäc", 2), "a…");
    }
}

//! Shell patterns as `modules.alias` uses them (depmod(8), fnmatch(3) without flags).

/// Whether `text` as a whole matches `pattern`: `*` any run of bytes, `?` any byte, `[…]` one of
/// a set (with ranges; `!` or `^` first negates), a backslash makes the next byte literal. Linear
/// in practice, because only the last star is tried again.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to continue after the last star: the pattern after it, and the end of the text that it
    // matches.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(pattern, p, byte),
            _ => None,
        };
        if let Some(next) = step {
            p = next;
            t += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() => {
                star = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            _ => return false,
        }
    }
}

/// Matches one byte against the element of the pattern at `p`. Returns where the next one begins.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'\\' => match pattern.get(p + 1) {
            Some(&literal) => (literal == byte).then_some(p + 2),
            None => (byte == b'\\').then_some(p + 1),
        },
        b'[' => match set(pattern, p + 1, byte) {
            Some((found, next)) => found.then_some(next),
            // Without a closing bracket, the bracket is an ordinary byte.
            None => (byte == b'[').then_some(p + 1),
        },
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Reads a bracket expression that begins after `[`: whether `byte` is in it, and where it ends.
fn set(pattern: &[u8], start: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(start)?, b'!' | b'^');
    let first = if negated { start + 1 } else { start };
    let mut found = false;
    let mut at = first;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_aliases() {
        let yes = |p: &str, t: &str| assert!(matches(p.as_bytes(), t.as_bytes()), "{p} {t}");
        let no = |p: &str, t: &str| assert!(!matches(p.as_bytes(), t.as_bytes()), "{p} {t}");
        yes("acpi*:QEMU0002:*", "acpi:QEMU0002:");
        yes("virtio:d00000002v*", "virtio:d00000002v00001AF4");
        no("virtio:d00000002v*", "virtio:d00000001v00001AF4");
        yes(
            "pci:v00001AF4d*sv*sd*bc*sc*i*",
            "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc80i00",
        );
        yes("a[0-9]b", "a5b");
        no("a[!0-9]b", "a5b");
        yes("a[]x]b", "a]b");
        yes("a[x-]b", "a-b");
        yes("a[b", "a[b");
        yes("a\\*", "a*");
        no("a\\*", "ab");
        yes("**", "");
        yes("*a*a*b", "xaxaxab");
        no("*a*a*b", "xaxaxa");
    }

    proptest::proptest! {
        #[test]
        fn a_star_matches_everything(text: Vec<u8>) {
            proptest::prop_assert!(matches(b"*", &text));
        }

        #[test]
        fn plain_text_matches_itself_only(a in "[a-z:]{0,12}", b in "[a-z:]{0,12}") {
            proptest::prop_assert_eq!(matches(a.as_bytes(), b.as_bytes()), a == b);
        }

        #[test]
        fn prefix_and_suffix(a in "[a-c]{0,6}", b in "[a-c]{0,6}", middle in "[a-c]{0,6}") {
            let pattern = format!("{a}*{b}");
            let text = format!("{a}{middle}{b}");
            proptest::prop_assert!(matches(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_accepted(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
        }
    }
}

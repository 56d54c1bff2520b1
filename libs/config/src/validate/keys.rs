//! Checks of lines of `authorized_keys` (sshd(8)).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Types of keys that sshd of the console accepts.
const TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Longest line, in bytes. sshd reads no longer ones.
const LONGEST: usize = 8 << 10;
/// Least bits of an RSA key.
const RSA_BITS: usize = 2048;

/// What is wrong with a line: the end of a sentence that begins with the field.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct KeyFault(String);

/// Whether a line is one key, with or without options before it.
///
/// # Errors
/// It is none.
pub(super) fn check_key(line: &str) -> Result<(), KeyFault> {
    if line.len() > LONGEST {
        return fault(format!("has {} bytes", line.len()));
    }
    if line.contains(|c: char| c.is_control() && c != '\t') {
        return fault("has a line break or a control character");
    }
    if line.contains("PRIVATE KEY") {
        return fault("is a private key, which nobody else may have: make a new pair");
    }
    let mut words = Words(line).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or_default();
    let (kind, blob) = match TYPES.contains(&first) {
        true => (first, words.next()),
        // Options come first.
        false => (words.next().unwrap_or_default(), words.next()),
    };
    if !TYPES.contains(&kind) {
        return fault(match first.starts_with("ssh-dss") {
            true => "is a DSA key, which OpenSSH accepts no more".to_owned(),
            false => format!("has no type of key: one of {}", TYPES.join(", ")),
        });
    }
    let blob = blob.and_then(|blob| STANDARD.decode(blob).ok());
    match blob {
        Some(blob) => check_blob(kind, &blob),
        None => fault(format!("has no key in base64 after {kind}")),
    }
}

fn fault(text: impl Into<String>) -> Result<(), KeyFault> {
    Err(KeyFault(text.into()))
}

/// RFC 4253, section 6.6: strings and numbers, each after its length.
fn check_blob(kind: &str, blob: &[u8]) -> Result<(), KeyFault> {
    let damaged = || {
        KeyFault(format!(
            "is damaged: what stands after {kind} is no such key"
        ))
    };
    let mut parts = Vec::new();
    let mut rest = blob;
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_be_bytes(*length) as usize;
        let part = after.get(..length).ok_or_else(damaged)?;
        parts.push(part);
        rest = after.get(length..).unwrap_or_default();
    }
    let sizes: Vec<usize> = parts.iter().skip(1).map(|part| part.len()).collect();
    if parts.first() != Some(&kind.as_bytes()) {
        return Err(damaged());
    }
    match (kind, sizes.as_slice()) {
        ("ssh-ed25519", [32]) | ("sk-ssh-ed25519@openssh.com", [32, _]) => Ok(()),
        ("ssh-rsa", [_, modulus]) => {
            // A leading zero byte keeps the number positive.
            let bits = modulus.saturating_sub(1) * 8;
            match bits + 8 > RSA_BITS {
                true => Ok(()),
                false => fault(format!("is an RSA key of fewer than {RSA_BITS} bits")),
            }
        }
        (kind, [_, point] | [_, point, _]) if kind.contains("ecdsa") && *point > 0 => Ok(()),
        _ => Err(damaged()),
    }
}

/// Words between blanks; blanks between quotation marks count as part of a word.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (mut quoted, mut escaped) = (false, false);
        let end = self.0.char_indices().find(|(_, c)| {
            if *c == '"' && !escaped {
                quoted = !quoted;
            }
            escaped = *c == '\\' && !escaped;
            !quoted && matches!(c, ' ' | '\t')
        });
        let end = end.map_or(self.0.len(), |(at, _)| at);
        let (word, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPLhmDYR7cdOi6VNG5l1/k3dYjRYcgNz2m4FVwTxmnf me@home";

    #[test]
    fn keys_pass() {
        let command = format!("command=\"say \\\"hi\\\"\",no-pty {ED25519}");
        for line in [ED25519, &command, &format!("  {ED25519}")] {
            check_key(line).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let blob = ED25519.split(' ').nth(1).unwrap();
        let short = blob.get(..40).unwrap();
        for (line, word) in [
            (String::new(), "no type"),
            ("hello world".to_owned(), "no type"),
            (format!("ssh-rsa {blob}"), "damaged"),
            (format!("ssh-ed25519 {short}"), "damaged"),
            ("ssh-ed25519 ???".to_owned(), "base64"),
            ("ssh-dss AAAA".to_owned(), "DSA"),
            (format!("{ED25519}\nssh-ed25519 {blob}"), "line break"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(), "private"),
            (format!("{ED25519}{}", "x".repeat(LONGEST)), "bytes"),
        ] {
            let why = check_key(&line).unwrap_err().to_string();
            assert!(why.contains(word), "{line}: {why}");
        }
        // 1024 bits.
        let mut weak = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\0\x81\0".to_vec();
        weak.extend([0xff; 128]);
        let why = check_key(&format!("ssh-rsa {}", STANDARD.encode(&weak)))
            .unwrap_err()
            .to_string();
        assert!(why.contains("2048"), "{why}");
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_judged(line in "\\PC{0,200}") {
            let _ = check_key(&line);
            let _ = check_key(&format!("ssh-ed25519 {}", STANDARD.encode(&line)));
        }
    }
}

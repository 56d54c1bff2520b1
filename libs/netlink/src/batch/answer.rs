//! Parses the kernel's answers (netlink(7)). Truncated messages are left out.

use crate::batch::encode::HEADER;

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// An object that was asked for.
    Data {
        /// Which request it answers.
        sequence: u32,
        /// What it is.
        kind: u16,
        /// The message without its header.
        body: &'a [u8],
        /// The list changed while it was read.
        interrupted: bool,
    },
    /// An acknowledgement, an error, or the end of a list.
    End {
        /// Which request it answers.
        sequence: u32,
        /// The error number; 0 is success.
        errno: i32,
        /// The kernel's explanation, often empty.
        detail: String,
        /// The list changed while it was read.
        interrupted: bool,
    },
}

impl Message<'_> {
    /// Which request it answers.
    pub(crate) const fn sequence(&self) -> u32 {
        match self {
            Self::Data { sequence, .. } | Self::End { sequence, .. } => *sequence,
        }
    }
}

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Types below are netlink's own.
const FIRST_OF_PROTOCOL: u16 = 16;
const INTERRUPTED: u16 = 0x10;
/// The error does not repeat the request's body.
const CAPPED: u16 = 0x100;
/// Attributes follow the error.
const ATTRIBUTES: u16 = 0x200;
/// The attribute with the kernel's explanation.
const TEXT: u16 = 1;

/// The messages of one datagram.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        loop {
            let length = u32_at(bytes, 0)? as usize;
            let message = bytes.get(..length)?;
            let body = message.get(HEADER..)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
            let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
            let sequence = u32_at(message, 8)?;
            let interrupted = flags & INTERRUPTED != 0;
            match kind {
                ERROR | DONE => {
                    // The end of a list has an error number, too; zero or none on success.
                    let errno = i32_at(body, 0).unwrap_or(0).saturating_neg();
                    let detail = detail(kind, flags, body).unwrap_or_default();
                    return Some(Message::End {
                        sequence,
                        errno,
                        detail,
                        interrupted,
                    });
                }
                FIRST_OF_PROTOCOL.. => {
                    return Some(Message::Data {
                        sequence,
                        kind,
                        body,
                        interrupted,
                    });
                }
                _ => {}
            }
        }
    })
}

/// The text among the attributes after an error.
fn detail(kind: u16, flags: u16, body: &[u8]) -> Option<String> {
    if flags & ATTRIBUTES == 0 {
        return None;
    }
    let after = match kind {
        DONE => 4,
        _ if flags & CAPPED != 0 => 4 + HEADER,
        _ => 4 + (u32_at(body, 4)? as usize).max(HEADER).next_multiple_of(4),
    };
    let mut attributes = body.get(after..)?;
    loop {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if u16_at(attributes, 2)? == TEXT {
            let text = value.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn acknowledgements_errors_and_objects_are_told_apart() {
        let mut bytes = message(ERROR, CAPPED, 1, &[0; 4 + HEADER]);
        let mut error = (-17i32).to_ne_bytes().to_vec();
        error.extend([0; HEADER]);
        error.extend([9, 0, 2, 0, 1, 1, 1, 1, 1, 0, 0, 0]);
        error.extend([11, 0, 1, 0]);
        error.extend(b"exists\0");
        bytes.extend(message(ERROR, CAPPED | ATTRIBUTES, 2, &error));
        bytes.extend(message(16, INTERRUPTED, 3, &[7, 8]));
        bytes.extend(message(1, 0, 3, &[]));
        bytes.extend(message(DONE, 0, 3, &[0; 4]));
        let end = |sequence, errno, detail: &str| Message::End {
            sequence,
            errno,
            detail: detail.to_owned(),
            interrupted: false,
        };
        let found: Vec<_> = messages(&bytes).collect();
        let expected = [
            end(1, 0, ""),
            end(2, 17, "exists"),
            Message::Data {
                sequence: 3,
                kind: 16,
                body: &[7, 8],
                interrupted: true,
            },
            end(3, 0, ""),
        ];
        assert_eq!(found, expected);
        // Any part of it is parsed without a panic, and yields no more messages than the whole.
        for length in 0..bytes.len() {
            assert!(messages(&bytes[..length]).count() <= expected.len());
        }
    }

    #[test]
    fn a_length_of_zero_ends_the_answer() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(messages(&message(16, 0, 1, &[])[..15]).count(), 0);
    }
}

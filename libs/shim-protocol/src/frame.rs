//! Messages as frames: a little-endian `u32` length, then that many bytes of JSON.
//!
//! Nothing here reads or writes: [`encode`] appends to a buffer, and a [`Decoder`] gets the bytes
//! that have arrived. So the shim's event loop, hostd's tasks and the blocking clients of tests and
//! benchmarks can all use it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest message that either side accepts, in bytes of JSON.
pub const MAX_FRAME: u32 = 1 << 20;
/// Bytes of a frame's length.
const HEADER: usize = 4;

/// Why a message could not be framed. The buffer is then unchanged.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Longer than [`MAX_FRAME`].
    #[error("the message has {0} bytes, at most {MAX_FRAME} are allowed")]
    TooLong(usize),
    /// It can't be written as JSON.
    #[error("the message can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Why no message could be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A length above [`MAX_FRAME`]. The bytes after it can't be interpreted, so the decoder drops
    /// them and everything that arrives later.
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    Oversized(u32),
    /// The frame is not a message of the wanted type. It was removed; the next one can be decoded.
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
    /// The bytes end inside a frame.
    #[error("the connection ended after {have} bytes of a frame, {missing} or more were missing")]
    Truncated {
        /// How many bytes of the frame have arrived, its length included.
        have: usize,
        /// At least how many bytes are missing.
        missing: usize,
    },
}

/// Appends a message to a buffer.
///
/// # Errors
/// [`EncodeError`], when the message is too long.
pub fn encode<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = buffer.len();
    buffer.extend([0; HEADER]);
    let written = serde_json::to_writer(&mut *buffer, message).map_err(EncodeError::from);
    let framed = written.and_then(|()| {
        let length = buffer.len() - start - HEADER;
        match u32::try_from(length) {
            Ok(length) if length <= MAX_FRAME => Ok(length),
            _ => Err(EncodeError::TooLong(length)),
        }
    });
    match framed {
        Ok(length) => {
            if let Some(header) = buffer.get_mut(start..start + HEADER) {
                header.copy_from_slice(&length.to_le_bytes());
            }
            Ok(())
        }
        Err(error) => {
            buffer.truncate(start);
            Err(error)
        }
    }
}

/// Decodes messages from the bytes of a connection.
///
/// It stores bytes until their messages are taken. If the caller takes all messages before it feeds
/// more, it stores at most [`MAX_FRAME`] bytes plus one read of the caller.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// The beginning of the first frame that was not taken yet.
    start: usize,
    /// An oversized frame has arrived.
    lost: bool,
}

impl Decoder {
    /// A new decoder without bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes that have arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        // Each byte is moved at most once per call, not once per message.
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.rest().len()
    }

    /// Whether [`Decoder::take`] returns a message or an error without more bytes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self.length() {
            Some(length) => length > MAX_FRAME || self.held() >= HEADER + length as usize,
            None => false,
        }
    }

    /// At least how many bytes are missing until a message is complete. A caller that reads exactly
    /// this many never reads beyond a message. The bytes after it may not be messages.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self.length() {
            Some(length) if length > MAX_FRAME => 0,
            Some(length) => (HEADER + length as usize).saturating_sub(self.held()),
            None => HEADER - self.held(),
        }
    }

    /// The next message. `None`: it is not complete yet.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<Result<T, DecodeError>> {
        let length = self.length()?;
        if length > MAX_FRAME {
            self.lost = true;
            self.take_rest();
            return Some(Err(DecodeError::Oversized(length)));
        }
        let body = self.start + HEADER;
        let end = body + length as usize;
        let frame = self.buffer.get(body..end)?;
        let message = serde_json::from_slice(frame).map_err(DecodeError::from);
        self.start = end;
        if self.start == self.buffer.len() {
            // A large message must not keep its memory as long as the connection lasts.
            self.take_rest();
        }
        Some(message)
    }

    /// Checks the end: no more bytes will arrive.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when a message has begun and is not complete.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.held() {
            0 => Ok(()),
            have => match self.missing() {
                0 => Ok(()),
                missing => Err(DecodeError::Truncated { have, missing }),
            },
        }
    }

    /// Takes the bytes after the last message: after [`crate::Request::Attach`] they belong to the
    /// stream.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.buffer.drain(..self.start);
        self.start = 0;
        std::mem::take(&mut self.buffer)
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn length(&self) -> Option<u32> {
        self.rest().first_chunk().copied().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn framed(messages: &[Value]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            encode(message, &mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn a_frame_is_a_little_endian_length_and_json() {
        assert_eq!(framed(&[json!({})]), b"\x02\0\0\0{}");
    }

    #[test]
    fn an_oversized_message_is_not_framed_and_leaves_the_buffer_alone() {
        let mut buffer = b"before".to_vec();
        let error = encode(&"x".repeat(MAX_FRAME as usize), &mut buffer).unwrap_err();
        assert!(matches!(error, EncodeError::TooLong(_)), "{error}");
        assert_eq!(buffer, b"before");
        // With its quotes exactly as long as allowed.
        encode(&"x".repeat(MAX_FRAME as usize - 2), &mut buffer).unwrap();
        let mut decoder = Decoder::new();
        decoder.feed(&buffer[6..]);
        assert!(decoder.take::<String>().unwrap().is_ok());
    }

    #[test]
    fn bytes_after_an_oversized_frame_are_dropped() {
        let mut decoder = Decoder::new();
        decoder.feed(&(MAX_FRAME + 1).to_le_bytes());
        assert!(decoder.is_ready());
        let error = decoder.take::<Value>().unwrap().unwrap_err();
        assert!(matches!(error, DecodeError::Oversized(_)), "{error}");
        decoder.feed(&framed(&[json!(1)]));
        assert!(!decoder.is_ready());
        assert!(decoder.take::<Value>().is_none());
        assert_eq!(decoder.held(), 0);
    }

    #[test]
    fn a_malformed_message_does_not_harm_the_next() {
        let mut decoder = Decoder::new();
        decoder.feed(b"\x01\0\0\0{");
        decoder.feed(&framed(&[json!(7)]));
        let error = decoder.take::<Value>().unwrap().unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
        assert_eq!(decoder.take::<u8>().unwrap().unwrap(), 7);
    }

    #[test]
    fn bytes_after_the_last_message_are_kept() {
        let mut decoder = Decoder::new();
        let mut bytes = framed(&[json!(1)]);
        bytes.extend(b"input");
        decoder.feed(&bytes);
        assert_eq!(decoder.take::<u8>().unwrap().unwrap(), 1);
        assert_eq!(decoder.take_rest(), b"input");
        assert_eq!(decoder.held(), 0);
    }

    proptest! {
        #[test]
        fn messages_survive_any_partition(
            texts in prop::collection::vec(".{0,40}", 0..8),
            cuts in prop::collection::vec(1_usize..20, 1..40),
        ) {
            let messages: Vec<Value> = texts.iter().map(|text| json!({ "text": text })).collect();
            let bytes = framed(&messages);
            let mut decoder = Decoder::new();
            let mut found = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                decoder.feed(part);
                rest = after;
                while let Some(message) = decoder.take::<Value>() {
                    found.push(message.unwrap());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(decoder.finish().is_ok());
        }

        #[test]
        fn reading_the_missing_bytes_never_reads_beyond(
            texts in prop::collection::vec(".{0,40}", 1..5),
        ) {
            let mut bytes = framed(&texts.iter().map(|text| json!(text)).collect::<Vec<_>>());
            bytes.extend(b"behind");
            let mut rest = bytes.as_slice();
            let mut decoder = Decoder::new();
            for text in &texts {
                while decoder.missing() > 0 {
                    prop_assert!(!decoder.is_ready());
                    let (part, after) = rest.split_at(decoder.missing());
                    decoder.feed(part);
                    rest = after;
                }
                prop_assert_eq!(&decoder.take::<String>().unwrap().unwrap(), text);
            }
            prop_assert_eq!(rest, b"behind");
        }

        #[test]
        fn an_incomplete_message_is_an_error(cut in 1_usize..15) {
            let bytes = framed(&[json!("0123456789")]);
            let mut decoder = Decoder::new();
            decoder.feed(&bytes[..cut]);
            prop_assert!(decoder.take::<Value>().is_none());
            let cut_off = matches!(
                decoder.finish(),
                Err(DecodeError::Truncated { have, missing })
                    if have == cut && cut + missing <= bytes.len()
            );
            prop_assert!(cut_off);
        }
    }
}

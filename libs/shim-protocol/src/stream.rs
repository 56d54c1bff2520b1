//! The output of an attached stream: frames of one byte stream number, three zero bytes, a
//! big-endian `u32` length and the data. It is Docker's framing; here it is also used with a
//! terminal.

/// Bytes of a frame's header.
pub const HEADER: usize = 8;
/// Longest data of a frame that a client accepts, in bytes. A shim's frames are far shorter.
pub const MAX_DATA: u32 = 16 << 20;

/// The output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// Its number in frames.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// The contents of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// The stream of the data.
    pub stream: OutputStream,
    /// Bytes of data that follow.
    pub length: u32,
}

/// The bytes are not a header from a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a frame: stream {stream}, {length} bytes")]
pub struct NoHeader {
    stream: u8,
    length: u32,
}

impl StreamHeader {
    /// Its bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.length.to_be_bytes();
        [self.stream.number(), 0, 0, 0, a, b, c, d]
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`NoHeader`] when it names no output, or more data than [`MAX_DATA`].
    pub const fn from_bytes(bytes: [u8; HEADER]) -> Result<Self, NoHeader> {
        let [stream, _, _, _, a, b, c, d] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        let output = match stream {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => return Err(NoHeader { stream, length }),
        };
        if length > MAX_DATA {
            return Err(NoHeader { stream, length });
        }
        Ok(Self {
            stream: output,
            length,
        })
    }
}

/// Appends a frame to a buffer. The data must be shorter than [`MAX_DATA`].
pub fn encode(stream: OutputStream, data: &[u8], buffer: &mut Vec<u8>) {
    let length = data.len() as u32;
    buffer.extend(StreamHeader { stream, length }.to_bytes());
    buffer.extend_from_slice(data);
}

/// Appends data to the last frame of a buffer, which begins at `start`.
pub fn extend(start: usize, data: &[u8], buffer: &mut Vec<u8>) {
    buffer.extend_from_slice(data);
    let length = (buffer.len() - start - HEADER) as u32;
    if let Some(header) = buffer.get_mut(start + 4..start + HEADER) {
        header.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_docker() {
        let mut buffer = b"x".to_vec();
        encode(OutputStream::Stderr, b"ab", &mut buffer);
        assert_eq!(buffer, b"x\x02\0\0\0\0\0\0\x02ab");
        extend(1, b"c", &mut buffer);
        assert_eq!(buffer, b"x\x02\0\0\0\0\0\0\x03abc");
        let header = StreamHeader::from_bytes(*buffer[1..].first_chunk().unwrap()).unwrap();
        assert_eq!((header.stream, header.length), (OutputStream::Stderr, 3));
    }

    #[test]
    fn other_bytes_are_no_header() {
        for bytes in [
            *b"\0\0\0\0\0\0\0\0",
            *b"\x03\0\0\0\0\0\0\0",
            *b"\x01\0\0\0\xff\0\0\0",
        ] {
            assert!(StreamHeader::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }
}

//! Docker's framing of several output streams on one connection: one byte with the stream's
//! number, three zero bytes, a big-endian `u32` length, then the data.

use bytes::{BufMut, Bytes, BytesMut};

/// The header before data of a stream (0 standard input, 1 standard output, 2 standard error).
pub fn header(stream: u8, length: usize) -> [u8; 8] {
    // A shim's frame is shorter (keelson_shim_protocol::stream::MAX_DATA), and so is a piece of a
    // log.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [stream, 0, 0, 0, a, b, c, d]
}

/// Frames data of a stream. With a terminal there is only one stream, and the data is not framed.
pub fn frame(stream: u8, data: Bytes, tty: bool) -> Bytes {
    if tty {
        return data;
    }
    let header = header(stream, data.len());
    let mut out = BytesMut::with_capacity(header.len() + data.len());
    out.put_slice(&header);
    out.put_slice(&data);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_framed_unless_a_terminal() {
        let framed = frame(2, Bytes::from_static(b"ab"), false);
        assert_eq!(&framed[..], b"\x02\0\0\0\0\0\0\x02ab");
        assert_eq!(&frame(1, Bytes::from_static(b"ab"), true)[..], b"ab");
    }
}

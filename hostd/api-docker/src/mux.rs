//! Docker's framing of several output streams on one connection: one byte with the stream's
//! number, three zero bytes, a big-endian `u32` length, then the data.

use bytes::{BufMut, Bytes, BytesMut};

/// Frames data of a stream (0 standard input, 1 standard output, 2 standard error). With a
/// terminal there is only one stream, and the data is not framed.
pub fn frame(stream: u8, data: Bytes, tty: bool) -> Bytes {
    if tty {
        return data;
    }
    let mut out = BytesMut::with_capacity(8 + data.len());
    put(&mut out, stream, &data, tty);
    out.freeze()
}

/// Like [`frame`], appended to others.
pub fn put(out: &mut BytesMut, stream: u8, data: &[u8], tty: bool) {
    if !tty {
        out.put_u8(stream);
        out.put_bytes(0, 3);
        // A frame of a shim's is shorter (keelson_shim_protocol::stream::MAX_DATA).
        out.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }
    out.put_slice(data);
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

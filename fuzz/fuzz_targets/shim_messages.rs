//! Bytes that a client or a shim sends: decoding ends, stores no more than was received, and
//! decoded messages can be framed again.
#![cfg_attr(fuzzing, no_main)]

use keelson_shim_protocol::{DecodeError, Decoder, MAX_FRAME, Request, Response, encode, stream};

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let mut decoder = Decoder::new();
    // The first byte decides into which pieces the others are cut.
    let (size, bytes) = bytes
        .split_first()
        .map_or((1, bytes), |(size, rest)| (usize::from(*size) + 1, rest));
    for piece in bytes.chunks(size) {
        decoder.feed(piece);
        while let Some(request) = decoder.take::<Request>() {
            match request {
                Ok(request) => {
                    let mut framed = Vec::new();
                    // JSON of other people's may be shorter than ours.
                    if encode(&request, &mut framed).is_ok() {
                        let mut again = Decoder::new();
                        again.feed(&framed);
                        assert_eq!(again.missing(), 0);
                        assert_eq!(again.take::<Request>().unwrap().unwrap(), request);
                        assert!(again.finish().is_ok());
                    }
                }
                Err(DecodeError::Oversized(length)) => {
                    assert!(length > MAX_FRAME);
                    assert_eq!(decoder.held(), 0);
                }
                Err(DecodeError::Malformed(_)) => {}
                Err(DecodeError::Truncated { .. }) => panic!("bytes may still come"),
            }
        }
        assert!(!decoder.is_ready() && decoder.held() <= bytes.len());
    }
    let _ = serde_json::from_slice::<Response>(bytes);
    if let Some(header) = bytes.first_chunk()
        && let Ok(header) = stream::StreamHeader::from_bytes(*header)
    {
        let again = stream::StreamHeader::from_bytes(header.to_bytes());
        assert_eq!(again, Ok(header));
    }
});

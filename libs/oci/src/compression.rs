//! Recognises the compression of a blob by its first bytes, because media types are not reliable in
//! practice.

mod members;

use std::io::{self, BufRead, Read};

use members::Members;

/// How many first bytes [`Compression::detect`] looks at.
pub const DETECT_BYTES: usize = 10;

/// The compression of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None that we know.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The format of the program bzip2.
    Bzip2,
    /// The .xz file format 1.2.
    Xz,
}

/// A compression that is recognised but not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} compression is not supported; use gzip, zstd, xz, bzip2 or none")]
pub struct UnsupportedCompression(pub &'static str);

impl Compression {
    /// Recognises the compression by a blob's first [`DETECT_BYTES`] bytes (fewer when the blob
    /// is shorter).
    pub fn detect(start: &[u8]) -> Result<Self, UnsupportedCompression> {
        const MAGICS: [(&[u8], Result<Compression, UnsupportedCompression>); 6] = [
            (b"\x1f\x8b\x08", Ok(Compression::Gzip)),
            (b"\x28\xb5\x2f\xfd", Ok(Compression::Zstd)),
            (b"BZh", Ok(Compression::Bzip2)),
            (b"\xfd7zXZ\0", Ok(Compression::Xz)),
            (b"\x04\x22\x4d\x18", Err(UnsupportedCompression("lz4"))),
            (b"\x1f\x9d", Err(UnsupportedCompression("compress"))),
        ];
        // A skippable frame may come before the first frame of zstd (as zstd:chunked has them).
        if members::is_skippable(start) {
            return Ok(Self::Zstd);
        }
        MAGICS
            .iter()
            .find(|(magic, _)| start.starts_with(magic))
            .map_or(Ok(Self::Plain), |(_, compression)| *compression)
    }

    /// A reader of the uncompressed bytes. Several members or frames one after another count as
    /// one stream, and other bytes after the last one (zeros that fill up a tape's block, for
    /// example) are skipped, as gzip(1) and tar(1) do. All of the input is read.
    ///
    /// # Errors
    /// When the decoder cannot be set up (memory).
    pub fn decoder<'a, R: BufRead + Send + 'a>(
        self,
        reader: R,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(reader),
            Self::Gzip | Self::Zstd | Self::Bzip2 | Self::Xz => {
                Box::new(Members::new(self, reader)?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Made by the usual program.
    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut child = Command::new("xz")
            .arg("-c")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("no xz: install the package xz-utils");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(bytes).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap().stdout
    }

    #[test]
    fn round_trips() {
        let text = b"some text ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let level = bzip2::Compression::fast();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), level);
        bzip2.write_all(&text).unwrap();
        for (bytes, expected) in [
            (gzip, Compression::Gzip),
            (zstd, Compression::Zstd),
            (bzip2.finish().unwrap(), Compression::Bzip2),
            (xz(&text), Compression::Xz),
            (text.clone(), Compression::Plain),
        ] {
            let found = Compression::detect(&bytes).unwrap();
            assert_eq!(found, expected);
            let mut back = Vec::new();
            let twice = [&bytes[..], &bytes[..]].concat();
            found
                .decoder(&twice[..])
                .unwrap()
                .read_to_end(&mut back)
                .unwrap();
            assert_eq!(back, [&text[..], &text[..]].concat());
        }
    }

    #[test]
    fn bytes_after_the_last_member_are_skipped() {
        let text = b"some text ".repeat(1000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&text).unwrap();
        let all = [
            gzip.finish().unwrap(),
            zstd::encode_all(&text[..], 1).unwrap(),
            bzip2.finish().unwrap(),
            xz(&text),
        ];
        for whole in &all {
            let compression = Compression::detect(whole).unwrap();
            let read = |bytes: &[u8]| {
                // In pieces of one byte, too.
                let mut back = Vec::new();
                let slow = io::BufReader::with_capacity(1, bytes);
                compression.decoder(slow)?.read_to_end(&mut back)?;
                let mut again = Vec::new();
                let mut input = io::Cursor::new(bytes);
                compression.decoder(&mut input)?.read_to_end(&mut again)?;
                assert!(back == again && input.position() == bytes.len() as u64);
                Ok::<_, io::Error>(back)
            };
            for padding in [&[0; 1][..], &[0; 10_240], b"garbage", b"\x1f", &whole[..1]] {
                let padded = [whole, padding].concat();
                assert!(
                    read(&padded).unwrap() == text,
                    "{compression:?} {padding:?}"
                );
            }
            let twice = [&whole[..], whole, &[0; 512]].concat();
            assert_eq!(
                read(&twice).unwrap().len(),
                2 * text.len(),
                "{compression:?}"
            );
            // If another member begins, it must be complete.
            for cut in [whole.len() - 1, whole.len() / 2] {
                assert!(read(&whole[..cut]).is_err(), "{compression:?}");
                let second = [whole, &whole[..cut]].concat();
                assert!(read(&second).is_err(), "{compression:?}");
            }
            let mut broken = whole.clone();
            broken[whole.len() / 2] ^= 0xff;
            assert!(read(&broken).is_err() || read(&broken).unwrap() != text);
        }
        // Not without end.
        let endless = [&all[0][..], &vec![0; 65 << 20]].concat();
        let mut decoder = Compression::Gzip.decoder(&endless[..]).unwrap();
        let error = decoder.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("follow"), "{error}");
    }

    #[test]
    fn errors_name_the_compression() {
        let error = Compression::detect(b"\x04\x22\x4d\x18\x64\x40").unwrap_err();
        assert!(error.to_string().contains("lz4"));
        assert_eq!(Compression::detect(b""), Ok(Compression::Plain));
    }
}

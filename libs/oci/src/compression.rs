//! How a blob is compressed, told from its first bytes: media types in the wild are not reliable.

use std::io::{self, BufRead, Read};

/// How many first bytes [`Compression::detect`] looks at.
pub const DETECT_BYTES: usize = 10;

/// Memory that a decoder of xz may take, in KiB: its strongest level wants 65 MiB.
const XZ_MEMORY: u32 = 130 << 10;

/// The compression of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None that we know.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The form of the program bzip2.
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
        if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] = start {
            return Ok(Self::Zstd);
        }
        MAGICS
            .iter()
            .find(|(magic, _)| start.starts_with(magic))
            .map_or(Ok(Self::Plain), |(_, compression)| *compression)
    }

    /// A reader of the uncompressed bytes. Several members or frames one after another count as
    /// one stream.
    ///
    /// # Errors
    /// When the decoder cannot be set up (memory).
    pub fn decoder<'a, R: BufRead + Send + 'a>(
        self,
        reader: R,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(reader),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                // Frames with a larger window would need that much memory each; 128 MiB is what
                // `zstd --long` makes and what other engines accept.
                decoder.window_log_max(27)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// By the program that everybody has.
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
    fn names_what_it_refuses() {
        let error = Compression::detect(b"\x04\x22\x4d\x18\x64\x40").unwrap_err();
        assert!(error.to_string().contains("lz4"));
        assert_eq!(Compression::detect(b""), Ok(Compression::Plain));
    }
}

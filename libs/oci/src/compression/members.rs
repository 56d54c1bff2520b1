//! Streams of several compressed members, with other bytes after them.

use std::io::{self, BufRead, Read};

use super::Compression;

/// Memory that a decoder of xz may use, in KiB: its strongest level needs 65 MiB.
const XZ_MEMORY: u32 = 130 << 10;
/// Bytes that may follow the last member: a client could send them without end.
const MAX_PADDING: u64 = 64 << 20;
/// Longest sign that another member begins.
const MAX_MAGIC: usize = 6;

/// Whether a frame of zstd begins that holds no data.
pub(super) fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A reader whose next bytes can be peeked at, although they arrive in small pieces.
struct Ahead<R> {
    reader: R,
    /// Bytes that were peeked at. Those from `at` on were not read yet.
    seen: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Ahead<R> {
    /// The next bytes; fewer only at the end.
    fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        self.seen.drain(..self.at);
        self.at = 0;
        while self.seen.len() < length {
            let piece = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                piece => piece?,
            };
            if piece.is_empty() {
                break;
            }
            let wanted = piece.len().min(length - self.seen.len());
            self.seen.extend(piece.iter().take(wanted));
            self.reader.consume(wanted);
        }
        Ok(&self.seen)
    }
}

impl<R: BufRead> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.seen.len() {
            return Ok(self.seen.get(self.at..).unwrap_or_default());
        }
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.seen.len() {
            self.at = (self.at + count).min(self.seen.len());
        } else {
            self.reader.consume(count);
        }
    }
}

impl<R: BufRead> Read for Ahead<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        let (to, from) = (buffer.get_mut(..count), available.get(..count));
        if let (Some(to), Some(from)) = (to, from) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

/// The decoder of one member.
enum Member<R: BufRead> {
    Gzip(Box<flate2::bufread::GzDecoder<Ahead<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Ahead<R>>>),
    Bzip2(bzip2::bufread::BzDecoder<Ahead<R>>),
    Xz(Box<lzma_rust2::XzReader<Ahead<R>>>),
}

impl<R: BufRead> Member<R> {
    fn start(compression: Compression, input: Ahead<R>) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                // Frames with a larger window would need that much memory each; 128 MiB is what
                // `zstd --long` makes and what other engines accept.
                decoder.window_log_max(27)?;
                Self::Zstd(Box::new(decoder))
            }
            Compression::Bzip2 => Self::Bzip2(bzip2::bufread::BzDecoder::new(input)),
            Compression::Xz => {
                let reader = lzma_rust2::XzReader::new_mem_limit(input, false, XZ_MEMORY);
                Self::Xz(Box::new(reader))
            }
            Compression::Gzip | Compression::Plain => {
                Self::Gzip(Box::new(flate2::bufread::GzDecoder::new(input)))
            }
        })
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
        }
    }

    fn end(self) -> Ahead<R> {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
            Self::Bzip2(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
        }
    }
}

/// Decodes member after member, and skips the bytes after the last.
pub(super) struct Members<R: BufRead> {
    compression: Compression,
    /// `None` when all was read, or after an error.
    member: Option<Member<R>>,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(compression: Compression, reader: R) -> io::Result<Self> {
        let input = Ahead {
            reader,
            seen: Vec::new(),
            at: 0,
        };
        Ok(Self {
            compression,
            member: Some(Member::start(compression, input)?),
        })
    }

    /// After a member: begins the next, or reads the rest.
    fn go_on(&mut self, mut input: Ahead<R>) -> io::Result<()> {
        let start = input.peek(MAX_MAGIC)?;
        let another = match self.compression {
            Compression::Gzip => start.starts_with(b"\x1f\x8b"),
            Compression::Zstd => start.starts_with(b"\x28\xb5\x2f\xfd") || is_skippable(start),
            Compression::Bzip2 => start.starts_with(b"BZh"),
            Compression::Xz => start.starts_with(b"\xfd7zXZ\0"),
            Compression::Plain => false,
        };
        if another {
            self.member = Some(Member::start(self.compression, input)?);
            return Ok(());
        }
        // The zeros between two streams of xz: a multiple of four.
        if self.compression == Compression::Xz && start.starts_with(&[0; 4]) {
            input.consume(4);
            return self.skip_stream_padding(input);
        }
        pass_over(input, 0)
    }

    fn skip_stream_padding(&mut self, mut input: Ahead<R>) -> io::Result<()> {
        let mut skipped = 4;
        while input.peek(4)? == [0; 4] && skipped < MAX_PADDING {
            input.consume(4);
            skipped += 4;
        }
        match input.peek(MAX_MAGIC)?.starts_with(b"\xfd7zXZ\0") {
            true => {
                self.member = Some(Member::start(self.compression, input)?);
                Ok(())
            }
            false => pass_over(input, skipped),
        }
    }
}

/// Reads the rest.
fn pass_over<R: BufRead>(mut input: Ahead<R>, mut passed: u64) -> io::Result<()> {
    loop {
        let length = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            piece => piece?.len(),
        };
        if length == 0 {
            return Ok(());
        }
        passed += length as u64;
        if passed > MAX_PADDING {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("more than {MAX_PADDING} bytes follow the end of the compressed data"),
            ));
        }
        input.consume(length);
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            match member.read(buffer)? {
                0 => {
                    if let Some(ended) = self.member.take() {
                        self.go_on(ended.end())?;
                    }
                }
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

//! Gzip by several threads. The output depends on the input alone, not on the number of threads:
//! blocks of a fixed size are compressed each by itself, primed with the end of the one before,
//! and make one deflate stream.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use keelson_oci::digest::{Digest, Digester};

use crate::error::ImageError;

/// Level of compression: as small as what Podman pushes. Level 6 takes 44 % longer and saves 2.6 %.
/// Another one would change digests.
const LEVEL: u32 = 3;
/// Bytes of one block. Another size would change digests.
const BLOCK: usize = 1 << 20;
/// How far back deflate looks.
const WINDOW: usize = 32 << 10;
/// Blocks that wait for one thread.
const DEPTH: usize = 2;
/// Threads; each holds some blocks in memory.
const MAX_THREADS: usize = 4;
/// RFC 1952: deflate, no flags, no time, no operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A block with what comes before it.
struct Block {
    primer: Vec<u8>,
    bytes: Vec<u8>,
    last: bool,
}

/// What became of a block.
struct Squeezed {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Compresses a file; gives the digest and the size of the result. Blocks.
pub(crate) fn compress(from: &Path, to: &Path) -> Result<(Digest, u64), ImageError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
    compress_with(from, to, threads)
}

fn compress_with(from: &Path, to: &Path, threads: usize) -> Result<(Digest, u64), ImageError> {
    let source = File::open(from).map_err(ImageError::io("open", from))?;
    let target = File::create(to).map_err(ImageError::io("create", to))?;
    let mut sink = Sink {
        to: BufWriter::new(target),
        digester: Digester::new(),
        size: 0,
    };
    std::thread::scope(|scope| squeeze(scope, source, &mut sink, threads))
        .and_then(|()| sink.to.flush())
        .map_err(ImageError::io("compress", from))?;
    Ok((sink.digester.finish(), sink.size))
}

/// Hands blocks to the threads in turn and takes the results in the same order.
fn squeeze<'scope>(
    scope: &'scope Scope<'scope, '_>,
    source: File,
    sink: &mut Sink,
    threads: usize,
) -> io::Result<()> {
    let mut workers: Vec<Worker<'_>> = (0..threads.max(1))
        .map(|_| Worker::start(scope))
        .collect::<io::Result<_>>()?;
    let count = workers.len();
    sink.put(&HEADER)?;
    let mut crc = Crc::new();
    let mut take = |worker: &mut Worker<'_>, sink: &mut Sink| -> io::Result<()> {
        let done = worker.results.recv().map_err(|_| died())??;
        crc.combine(&done.crc);
        sink.put(&done.bytes)
    };
    let (mut given, mut taken) = (0, 0);
    let mut primer = Vec::new();
    let mut next = read_block(&source)?;
    loop {
        let bytes = std::mem::take(&mut next);
        next = read_block(&source)?;
        let last = next.is_empty();
        let tail = bytes.len().saturating_sub(WINDOW);
        let block = Block {
            primer: std::mem::replace(&mut primer, bytes.get(tail..).unwrap_or_default().to_vec()),
            bytes,
            last,
        };
        if given - taken == count * DEPTH {
            take(at(&mut workers, taken)?, sink)?;
            taken += 1;
        }
        let worker = at(&mut workers, given)?;
        worker.blocks.send(block).map_err(|_| died())?;
        given += 1;
        if last {
            break;
        }
    }
    while taken < given {
        take(at(&mut workers, taken)?, sink)?;
        taken += 1;
    }
    sink.put(&crc.sum().to_le_bytes())?;
    // The length modulo 2^32, which is what the counter of the checksum holds.
    sink.put(&crc.amount().to_le_bytes())
}

fn at<'a, 'scope>(
    workers: &'a mut [Worker<'scope>],
    number: usize,
) -> io::Result<&'a mut Worker<'scope>> {
    let count = workers.len().max(1);
    workers.get_mut(number % count).ok_or_else(died)
}

fn died() -> io::Error {
    io::Error::other("a compressing thread died")
}

fn read_block(source: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    source.take(BLOCK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

struct Worker<'scope> {
    blocks: SyncSender<Block>,
    results: Receiver<io::Result<Squeezed>>,
    /// The scope waits for it.
    _thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Worker<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>) -> io::Result<Self> {
        let (blocks, inbox) = sync_channel::<Block>(DEPTH);
        let (outbox, results) = sync_channel(DEPTH);
        let thread = std::thread::Builder::new()
            .name("gzip".to_owned())
            .spawn_scoped(scope, move || {
                for block in inbox {
                    if outbox.send(deflate(&block)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            blocks,
            results,
            _thread: thread,
        })
    }
}

fn deflate(block: &Block) -> io::Result<Squeezed> {
    // A state that is used again remembers enough of its earlier input to choose other matches.
    let mut state = Compress::new(Compression::new(LEVEL), false);
    if !block.primer.is_empty() {
        state
            .set_dictionary(&block.primer)
            .map_err(io::Error::other)?;
    }
    let mut crc = Crc::new();
    crc.update(&block.bytes);
    // The end of the last block ends the stream; others end at a byte.
    let flush = match block.last {
        true => FlushCompress::Finish,
        false => FlushCompress::Sync,
    };
    let mut bytes = Vec::with_capacity(block.bytes.len() + 1024);
    loop {
        let done = usize::try_from(state.total_in()).unwrap_or(usize::MAX);
        let rest = block.bytes.get(done..).unwrap_or_default();
        let status = state
            .compress_vec(rest, &mut bytes, flush)
            .map_err(io::Error::other)?;
        let ended = match block.last {
            true => status == Status::StreamEnd,
            // Room that is left means that all of the flush is out.
            false => bytes.len() < bytes.capacity(),
        };
        if ended {
            return Ok(Squeezed { bytes, crc });
        }
        bytes.reserve(64 << 10);
    }
}

/// Hashes and counts what it writes.
struct Sink {
    to: BufWriter<File>,
    digester: Digester,
    size: u64,
}

impl Sink {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// Compresses with one, two and three threads, and reads it back.
    fn check(bytes: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("tar"), folder.path().join("gz"));
        std::fs::write(&from, bytes).unwrap();
        let mut results = (1..=3).map(|threads| {
            let (digest, size) = compress_with(&from, &to, threads).unwrap();
            let squeezed = std::fs::read(&to).unwrap();
            assert_eq!(digest, Digest::of(&squeezed));
            assert_eq!(size, squeezed.len() as u64);
            squeezed
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first));
        // One member, with a right checksum and length.
        let mut back = Vec::new();
        let mut rest = &first[..];
        GzDecoder::new(&mut rest).read_to_end(&mut back).unwrap();
        assert!(rest.is_empty());
        assert!(back == bytes);
        first
    }

    #[test]
    fn the_result_does_not_depend_on_threads() {
        let text: Vec<u8> = (0..600_000_u32)
            .flat_map(|n| {
                (n.wrapping_mul(2_654_435_761) >> 18)
                    .to_string()
                    .into_bytes()
            })
            .collect();
        let squeezed = check(&text);
        assert!(squeezed.len() < text.len() / 2);
        // Neither time nor name.
        assert_eq!(squeezed.get(3..8), Some(&[0; 5][..]));
        for edge in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK] {
            check(&text[..edge]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn everything_comes_back(seed in proptest::collection::vec(any::<u8>(), 0..3000), times in 0_usize..900) {
            check(&seed.repeat(times));
        }
    }
}

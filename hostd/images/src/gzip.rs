//! Gzip with several threads. The output depends only on the input, not on the number of threads:
//! every block of a fixed size becomes a separate member (RFC 1952, section 2.2). eStargz layers
//! have the same form, and all engines read them.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use keelson_oci::digest::{Digest, Digester};
use libdeflater::{CompressionLvl, Compressor};

use crate::error::ImageError;

/// libdeflate's fastest: 3 % larger than level 3 of zlib, and 1.8 times as fast. Another level
/// would change digests.
const LEVEL: i32 = 1;
/// Bytes of one block. Another size would change digests.
const BLOCK: usize = 1 << 20;
/// How many blocks may wait for one thread.
const DEPTH: usize = 2;
/// How many threads there are. Each holds some blocks in memory.
const MAX_THREADS: usize = 4;

/// Compresses a file, and returns the digest and the size of the result. Blocks.
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
    std::thread::scope(|scope| squeeze(scope, &source, &mut sink, threads))
        .and_then(|()| sink.to.flush())
        .map_err(ImageError::io("compress", from))?;
    Ok((sink.digester.finish(), sink.size))
}

/// Sends blocks to the threads in turn, and receives the results in the same order.
fn squeeze<'scope>(
    scope: &'scope Scope<'scope, '_>,
    source: &File,
    sink: &mut Sink,
    threads: usize,
) -> io::Result<()> {
    let mut workers: Vec<Worker<'_>> = (0..threads.max(1))
        .map(|_| Worker::start(scope))
        .collect::<io::Result<_>>()?;
    let count = workers.len();
    let (mut given, mut taken) = (0, 0);
    let mut spare = Block::default();
    loop {
        let mut block = std::mem::take(&mut spare);
        read_block(source, &mut block.bytes)?;
        // An empty archive has one member, too.
        if block.bytes.is_empty() && given > 0 {
            break;
        }
        if given - taken == count * DEPTH {
            spare = take(at(&mut workers, taken)?, sink)?;
            taken += 1;
        }
        let worker = at(&mut workers, given)?;
        worker.blocks.send(block).map_err(|_| died())?;
        given += 1;
    }
    while taken < given {
        take(at(&mut workers, taken)?, sink)?;
        taken += 1;
    }
    Ok(())
}

/// Writes a worker's next result, and reuses its memory.
fn take(worker: &mut Worker<'_>, sink: &mut Sink) -> io::Result<Block> {
    let done = worker.results.recv().map_err(|_| died())??;
    sink.put(done.member.get(..done.length).unwrap_or_default())?;
    Ok(done)
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

fn read_block(source: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    bytes.reserve_exact(BLOCK);
    source.take(BLOCK as u64).read_to_end(bytes)?;
    Ok(())
}

/// A block and its result.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    /// The compressed member is at its beginning.
    member: Vec<u8>,
    length: usize,
}

struct Worker<'scope> {
    blocks: SyncSender<Block>,
    results: Receiver<io::Result<Block>>,
    /// The scope waits for this thread.
    _thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Worker<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>) -> io::Result<Self> {
        let (blocks, inbox) = sync_channel::<Block>(DEPTH);
        let (outbox, results) = sync_channel(DEPTH);
        let level =
            CompressionLvl::new(LEVEL).map_err(|_| io::Error::other("no such level of deflate"))?;
        let thread = std::thread::Builder::new()
            .name("gzip".to_owned())
            .spawn_scoped(scope, move || {
                let mut compressor = Compressor::new(level);
                for block in inbox {
                    if outbox.send(deflate(&mut compressor, block)).is_err() {
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

fn deflate(compressor: &mut Compressor, mut block: Block) -> io::Result<Block> {
    let bound = compressor.gzip_compress_bound(block.bytes.len());
    if block.member.len() < bound {
        block.member.resize(bound, 0);
    }
    block.length = compressor
        .gzip_compress(&block.bytes, &mut block.member)
        .map_err(io::Error::other)?;
    Ok(block)
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
    use flate2::bufread::MultiGzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// Compresses with one, two and three threads, and reads it back.
    fn check(bytes: &[u8]) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("tar"), directory.path().join("gz"));
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
        // The members have correct checksums and lengths, and nothing follows them.
        let mut back = Vec::new();
        let mut rest = &first[..];
        MultiGzDecoder::new(&mut rest)
            .read_to_end(&mut back)
            .unwrap();
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
        // The header has neither time nor name.
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

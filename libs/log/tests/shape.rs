//! Lines as clients get them.

use std::path::Path;

use keelson_log::shape::{Batch, BatchEnd, Selection, Shaper};
use keelson_log::{Reader, Rotation, Stream, Writer};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn writer(path: &Path) -> Writer {
    let limits = Rotation {
        max_size: 1 << 30,
        max_files: 1,
    };
    Writer::open(path, limits).unwrap()
}

fn both() -> Selection {
    Selection {
        stdout: true,
        stderr: true,
        ..Selection::default()
    }
}

fn batches(path: &Path, selection: Selection) -> Vec<Batch> {
    let mut reader = Reader::open(path).unwrap();
    let mut shaper = Shaper::new(selection);
    let mut found = Vec::new();
    loop {
        let (batch, progress) = shaper.batch(&mut reader).unwrap();
        found.push(batch);
        if progress != BatchEnd::More {
            return found;
        }
    }
}

fn pieces(path: &Path, selection: Selection) -> Vec<(Stream, Vec<u8>)> {
    let batches = batches(path, selection);
    let pieces = batches.iter().flat_map(|batch| {
        batch
            .pieces
            .iter()
            .map(|piece| (piece.stream, batch.bytes[piece.range.clone()].to_vec()))
    });
    pieces.collect()
}

fn header(stream: Stream, length: usize) -> [u8; 8] {
    let [a, b, c, d] = u32::try_from(length).unwrap().to_be_bytes();
    [stream as u8, 0, 0, 0, a, b, c, d]
}

/// The contents of headers.
fn framed(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at(8);
        let length = u32::from_be_bytes(head[4..].try_into().unwrap()) as usize;
        found.push((head[0], tail[..length].to_vec()));
        rest = &tail[length..];
    }
    found
}

#[test]
fn times_and_prefixes_stand_before_lines_and_not_in_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = writer(&path);
    writer
        .append(Stream::Stdout, b"one\ntw", SECOND + 7)
        .unwrap();
    writer.append(Stream::Stdout, b"o\n", 3 * SECOND).unwrap();
    writer
        .append(Stream::Stderr, b"bad\n", 3 * SECOND + 123_456_789)
        .unwrap();
    let selection = Selection {
        times: Some(|seconds| format!("T{seconds}")),
        prefix: "a=b ".to_owned(),
        ..both()
    };
    let found = pieces(&path, selection.clone());
    let text = |text: &str| text.as_bytes().to_vec();
    let expected = [
        (Stream::Stdout, text("T1.000000007Z a=b one\n")),
        (Stream::Stdout, text("T1.000000007Z a=b two\n")),
        (Stream::Stderr, text("T3.123456789Z a=b bad\n")),
    ];
    assert_eq!(found, expected);
    let headed = Selection {
        header: Some(header),
        ..selection
    };
    let batches = batches(&path, headed);
    assert!(batches.iter().all(|batch| batch.pieces.is_empty()));
    let expected = expected.map(|(stream, text)| (stream as u8, text));
    assert_eq!(framed(&batches[0].bytes), expected);
}

#[test]
fn many_unwanted_records_do_not_block_the_caller() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut writer = writer(&path);
    let line = [b'x'; 4 << 10];
    for time in 0..3_000 {
        writer.append(Stream::Stderr, &line, time).unwrap();
    }
    let nothing = Selection {
        stderr: false,
        ..both()
    };
    let found = batches(&path, nothing);
    assert!(found.len() > 2 && found.len() < 6, "{}", found.len());
    assert!(found.iter().all(|batch| batch.bytes.is_empty()));
    // An endless line comes in pieces, and batches are limited.
    let found = batches(&path, both());
    assert!(found.iter().all(|batch| batch.bytes.len() < 300 << 10));
    let pieces = found.iter().flat_map(|batch| &batch.pieces);
    let lengths: Vec<_> = pieces.map(|piece| piece.range.len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 3_000 * line.len());
    assert!(lengths.iter().all(|length| *length <= 20 << 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn streams_come_back_as_lines(
        writes in proptest::collection::vec((any::<bool>(), "[a-z\n]{0,40}"), 0..60),
        since in proptest::option::of(0u64..60),
        until in proptest::option::of(0u64..60),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = writer(&path);
        let mut expected = [Vec::new(), Vec::new()];
        for (time, (error, text)) in writes.iter().enumerate() {
            let time = time as u64;
            let stream = if *error { Stream::Stderr } else { Stream::Stdout };
            writer.append(stream, text.as_bytes(), time).unwrap();
            if since.is_none_or(|at| time >= at) && until.is_none_or(|at| time <= at) {
                expected[usize::from(*error)].extend_from_slice(text.as_bytes());
            }
        }
        let selection = Selection { since, until, ..both() };
        let mut found = [Vec::new(), Vec::new()];
        for (stream, piece) in pieces(&path, selection.clone()) {
            let newlines = piece.iter().filter(|byte| **byte == b'\n').count();
            prop_assert!(newlines == 0 || newlines == 1 && piece.ends_with(b"\n"));
            found[usize::from(stream == Stream::Stderr)].extend(piece);
        }
        prop_assert_eq!(&found, &expected);
        for joined in [false, true] {
            let headed = Selection { header: Some(header), joined, ..selection.clone() };
            let mut found = [Vec::new(), Vec::new()];
            let mut last = 0;
            for batch in batches(&path, headed) {
                for (stream, piece) in framed(&batch.bytes) {
                    prop_assert!(!joined || stream != last, "not joined");
                    last = stream;
                    found[usize::from(stream == 2)].extend(piece);
                }
            }
            prop_assert_eq!(&found, &expected);
        }
    }
}

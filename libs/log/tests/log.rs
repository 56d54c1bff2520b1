//! Writing, reading, rotation and recovery on real files.

use std::path::{Path, PathBuf};

use keelson_log::{Next, Reader, Rotation, Stream, Writer};
use proptest::prelude::*;

const LARGE: Rotation = Rotation {
    max_size: 1 << 30,
    max_files: 1,
};

fn log(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("log")
}

fn drain(reader: &mut Reader) -> (Vec<String>, bool) {
    let mut found = Vec::new();
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => {
                found.push(String::from_utf8_lossy(record.payload).into_owned());
            }
            Next::CaughtUp { ended } => return (found, ended),
        }
    }
}

fn append_lines(writer: &mut Writer, range: std::ops::Range<u64>) {
    for number in range {
        writer
            .append(
                Stream::Stdout,
                format!("line {number}\n").as_bytes(),
                number,
            )
            .unwrap();
    }
}

fn tail(path: &Path, lines: u64) -> Vec<String> {
    let mut reader = Reader::open(path).unwrap();
    reader.seek_tail(lines).unwrap();
    drain(&mut reader).0
}

#[test]
fn a_reader_follows_and_learns_of_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(drain(&mut reader), (vec![], false));
    let mut writer = Writer::open(&path, LARGE).unwrap();
    writer.append(Stream::Stdout, b"a\nb", 1).unwrap();
    assert_eq!(drain(&mut reader).0, ["a\n", "b"]);
    writer.append(Stream::Stdout, b"c\n", 2).unwrap();
    writer.finish(3).unwrap();
    assert_eq!(drain(&mut reader), (vec!["c\n".to_owned()], true));
    writer.append(Stream::Stderr, b"again\n", 4).unwrap();
    assert_eq!(drain(&mut reader), (vec!["again\n".to_owned()], false));
}

#[test]
fn tail_and_since_find_their_place_in_a_large_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let mut writer = Writer::open(&path, LARGE).unwrap();
    append_lines(&mut writer, 0..50_000);
    for lines in [0, 1, 2, 100, 4_999, 49_999, 50_000, 60_000] {
        let found = tail(&path, lines);
        assert_eq!(found.len() as u64, lines.min(50_000), "tail {lines}");
        if let Some(first) = found.first() {
            assert_eq!(*first, format!("line {}\n", 50_000 - found.len()));
        }
    }
    let mut reader = Reader::open(&path).unwrap();
    for time in [0, 1, 77, 1_500, 33_333, 49_999] {
        reader.seek_since(time).unwrap();
        let found = drain(&mut reader).0;
        assert_eq!(found.first(), Some(&format!("line {time}\n")));
        assert_eq!(found.len() as u64, 50_000 - time);
    }
    reader.seek_since(50_000).unwrap();
    assert!(drain(&mut reader).0.is_empty());
}

#[test]
fn rotation_keeps_the_newest_files_and_readers_follow_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let limits = Rotation {
        max_size: 4_000,
        max_files: 3,
    };
    let mut writer = Writer::open(&path, limits).unwrap();
    let mut follower = Reader::open(&path).unwrap();
    let mut followed = Vec::new();
    for start in (0..2_000).step_by(100) {
        append_lines(&mut writer, start..start + 100);
        followed.extend(drain(&mut follower).0);
    }
    let all: Vec<String> = (0..2_000)
        .map(|number| format!("line {number}\n"))
        .collect();
    assert_eq!(followed, all);
    let kept = drain(&mut Reader::open(&path).unwrap()).0;
    assert!(kept.len() > 200 && kept.len() < 500, "{}", kept.len());
    assert_eq!(kept, all[2_000 - kept.len()..]);
    assert_eq!(tail(&path, 250), all[1_750..]);
    assert!(!directory.path().join("log.3").exists());
    let mut reader = Reader::open(&path).unwrap();
    reader.seek_since(1_800).unwrap();
    assert_eq!(drain(&mut reader).0, all[1_800..]);
    keelson_log::remove(&path).unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// While a rotation renames many files, one number after the other is missing.
#[test]
fn nothing_is_missed_in_the_middle_of_a_rotation() {
    const LINES: u64 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let limits = Rotation {
        max_size: 1_000,
        max_files: 1_000,
    };
    let mut writer = Writer::open(&path, limits).unwrap();
    append_lines(&mut writer, 0..1);
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || append_lines(&mut writer, 1..LINES));
        while !writing.is_finished() {
            let found = drain(&mut Reader::open(&path).unwrap()).0;
            for (number, line) in found.iter().enumerate() {
                assert_eq!(*line, format!("line {number}\n"));
            }
        }
    });
    assert_eq!(
        drain(&mut Reader::open(&path).unwrap()).0.len() as u64,
        LINES
    );
}

#[test]
fn a_slow_reader_continues_with_the_remaining_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let limits = Rotation {
        max_size: 1_000,
        max_files: 1,
    };
    let mut writer = Writer::open(&path, limits).unwrap();
    append_lines(&mut writer, 0..5);
    let mut reader = Reader::open(&path).unwrap();
    append_lines(&mut writer, 5..1_000);
    let found = drain(&mut reader).0;
    assert_eq!(found.first().unwrap(), "line 0\n");
    assert_eq!(found.last().unwrap(), "line 999\n");
}

#[test]
fn a_torn_tail_is_cut_off_when_the_log_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 0..10_000);
    let whole = std::fs::read(&path).unwrap();
    for cut in [1, 5, 19, 20, 29] {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_eq!(drain(&mut Reader::open(&path).unwrap()).0.len(), 9_999);
        let mut writer = Writer::open(&path, LARGE).unwrap();
        append_lines(&mut writer, 9_999..10_001);
        assert_eq!(tail(&path, 2), ["line 9999\n", "line 10000\n"]);
        assert_eq!(drain(&mut Reader::open(&path).unwrap()).0.len(), 10_001);
    }
    // What a file system may leave after a power cut: the length without the data.
    let mut zeroed = whole.clone();
    zeroed.extend([0; 300]);
    std::fs::write(&path, &zeroed).unwrap();
    drop(Writer::open(&path, LARGE).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), whole);
}

#[test]
fn damage_in_the_middle_loses_only_records_near_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 0..50_000);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[500_000..500_100].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let found = drain(&mut Reader::open(&path).unwrap()).0;
    assert!(found.len() > 46_000, "{}", found.len());
    assert_eq!(found.last().unwrap(), "line 49999\n");
}

#[test]
fn without_its_index_a_log_is_scanned() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 0..20_000);
    std::fs::write(directory.path().join("log.idx"), b"rubbish").unwrap();
    assert_eq!(tail(&path, 1), ["line 19999\n"]);
    let mut reader = Reader::open(&path).unwrap();
    reader.seek_since(19_000).unwrap();
    assert_eq!(drain(&mut reader).0.len(), 1_000);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 20_000..20_010);
    assert_eq!(tail(&path, 11)[0], "line 19999\n");
}

#[test]
fn a_foreign_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    std::fs::write(&path, "this is a text file and no container log").unwrap();
    assert!(Reader::open(&path).is_err());
    assert!(Writer::open(&path, LARGE).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn streams_come_back_byte_for_byte_over_rotations_and_restarts(
        writes in proptest::collection::vec((any::<bool>(), "[a-z\n]{0,400}", any::<bool>()), 1..60),
        max_size in 100u64..3_000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = log(&directory);
        let limits = Rotation { max_size, max_files: 1_000 };
        let mut writer = Writer::open(&path, limits).unwrap();
        let mut expected = [String::new(), String::new()];
        for (time, (error, text, reopen)) in writes.iter().enumerate() {
            if *reopen {
                writer = Writer::open(&path, limits).unwrap();
            }
            let stream = if *error { Stream::Stderr } else { Stream::Stdout };
            writer.append(stream, text.as_bytes(), time as u64).unwrap();
            expected[usize::from(*error)].push_str(text);
        }
        let mut found = [String::new(), String::new()];
        let mut reader = Reader::open(&path).unwrap();
        let mut count = 0;
        while let Next::Record(record) = reader.next().unwrap() {
            let text = std::str::from_utf8(record.payload).unwrap();
            found[usize::from(record.stream == Stream::Stderr)].push_str(text);
            count += u64::from(!record.partial);
        }
        prop_assert_eq!(&found, &expected);
        let mut reader = Reader::open(&path).unwrap();
        reader.seek_tail(count / 2).unwrap();
        let mut seen = 0;
        while let Next::Record(record) = reader.next().unwrap() {
            seen += u64::from(!record.partial);
        }
        prop_assert!(seen == count / 2 || seen + 1 == count / 2, "{} of {}", seen, count);
    }
}

#[test]
fn a_reader_continues_at_the_position_of_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let limits = Rotation {
        max_size: 300,
        max_files: 3,
    };
    let mut writer = Writer::open(&path, limits).unwrap();
    let mut line = |number: u64| {
        let text = format!("line {number}\n");
        writer
            .append(Stream::Stdout, text.as_bytes(), number)
            .unwrap();
    };
    (0..4).for_each(&mut line);
    let next = |reader: &mut Reader| match reader.next().unwrap() {
        Next::Record(record) => Some(record.time),
        Next::CaughtUp { .. } => None,
    };
    let mut first = Reader::open(&path).unwrap();
    assert_eq!((next(&mut first), next(&mut first)), (Some(0), Some(1)));
    let position = first.position().unwrap();
    // The file is rotated, and is still there.
    (4..14).for_each(&mut line);
    let mut second = Reader::open(&path).unwrap();
    second.seek_position(position).unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| next(&mut second)).collect();
    assert_eq!(rest, (2..14).collect::<Vec<_>>());
    // Records written since then are read from that position on.
    let end = second.position().unwrap();
    line(14);
    second.seek_position(end).unwrap();
    assert_eq!((next(&mut second), next(&mut second)), (Some(14), None));
    // It is gone: reading begins at the oldest record.
    (15..60).for_each(&mut line);
    second.seek_position(position).unwrap();
    assert!(next(&mut second).unwrap() > 14);
}

#[test]
fn damage_loses_only_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    let mut writer = Writer::open(&path, LARGE).unwrap();
    append_lines(&mut writer, 0..1_000);
    let whole = std::fs::read(&path).unwrap();
    let follower = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let found = drain(&mut reader).0.len();
        (reader, found)
    };
    let find = |text: &str| {
        let place = whole.windows(text.len());
        place
            .into_iter()
            .position(|found| found == text.as_bytes())
            .unwrap()
    };
    // A byte of a line, and a length that points past the end.
    for (at, byte) in [(find("line 500\n"), b'L'), (find("line 990\n") - 11, 0x3f)] {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        let (mut reader, found) = follower(&bytes);
        assert_eq!(found, 999);
        assert_eq!(
            tail(&path, 5),
            (995..1_000)
                .map(|n| format!("line {n}\n"))
                .collect::<Vec<_>>()
        );
        // The reader continues, and so does the next writer.
        let mut writer = Writer::open(&path, LARGE).unwrap();
        append_lines(&mut writer, 1_000..1_002);
        assert_eq!(drain(&mut reader).0, ["line 1000\n", "line 1001\n"]);
        assert_eq!(tail(&path, 3)[0], "line 999\n");
    }
}

#[test]
fn a_follower_sees_the_record_that_replaces_a_torn_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 0..10);
    let whole = std::fs::read(&path).unwrap();
    // Torn, and with zeros instead of data.
    let mut zeros = whole.clone();
    zeros[whole.len() - 3..].fill(0);
    zeros.extend([0; 5000]);
    for bytes in [&whole[..whole.len() - 3], &zeros] {
        std::fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(drain(&mut reader).0.len(), 9);
        assert!(drain(&mut reader).0.is_empty());
        append_lines(&mut Writer::open(&path, LARGE).unwrap(), 100..102);
        assert_eq!(drain(&mut reader).0, ["line 100\n", "line 101\n"]);
    }
}

#[test]
fn a_record_that_was_read_half_written_is_complete_after_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let path = log(&directory);
    append_lines(&mut Writer::open(&path, LARGE).unwrap(), 0..10);
    let whole = std::fs::read(&path).unwrap();
    // A reader may see the file like this in the middle of a write.
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!(drain(&mut reader).0.len(), 9);
    std::fs::write(&path, &whole).unwrap();
    let limits = Rotation {
        max_size: 1,
        max_files: 3,
    };
    append_lines(&mut Writer::open(&path, limits).unwrap(), 10..11);
    assert_eq!(drain(&mut reader).0, ["line 9\n", "line 10\n"]);
}

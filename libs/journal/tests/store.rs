//! The store on a file system: what is written comes back in order, whatever was wanted, after
//! restarts, crashes, damage and beyond its bounds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keelson_journal::format::{RECORD_HEADER, SEGMENT_HEADER, scan};
use keelson_journal::{
    BootId, Journal, JournalEntry, JournalFilter, JournalLimits, JournalOrigin, JournalReader,
    JournalWriter, StoredEntry,
};
use keelson_model::logs::LogPriority;
use proptest::prelude::*;

const BOOT: BootId = BootId([1; 16]);
const LARGE: JournalLimits = JournalLimits {
    size: 64 << 20,
    age: None,
};

fn entry(unit: &str, time: u64, text: &str) -> JournalEntry {
    JournalEntry {
        time,
        uptime: time,
        boot: BOOT,
        unit: unit.to_owned(),
        priority: LogPriority::Info,
        continues: false,
        origin: None,
        text: text.to_owned(),
    }
}

fn open(directory: &Path, limits: JournalLimits) -> JournalWriter {
    JournalWriter::open(directory, limits, BOOT).unwrap()
}

fn write(writer: &mut JournalWriter, lines: impl IntoIterator<Item = JournalEntry>) {
    let mut lines: Vec<_> = lines.into_iter().collect();
    writer.append(&mut lines).unwrap();
    assert!(lines.is_empty());
}

fn read(journal: &Journal, filter: JournalFilter, bytes: usize) -> Vec<StoredEntry> {
    let mut reader = JournalReader::new(journal.clone(), filter);
    let mut found = Vec::new();
    loop {
        let lines = reader.next(bytes).unwrap();
        if lines.is_empty() {
            assert_eq!(reader.position(), journal.last());
            return found;
        }
        found.extend(lines);
    }
}

fn texts(journal: &Journal) -> Vec<String> {
    let lines = read(journal, JournalFilter::default(), 1000);
    lines.into_iter().map(|line| line.entry.text).collect()
}

/// The segments of a unit, oldest first.
fn segments(directory: &Path, unit: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join(unit)).unwrap();
    let mut files: Vec<PathBuf> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "kj"))
        .collect();
    files.sort();
    files
}

#[test]
fn a_torn_end_at_any_byte_costs_one_line_and_no_byte() {
    let directory = tempfile::tempdir().unwrap();
    let origin = |offset| {
        Some(JournalOrigin {
            source: 9,
            generation: 1,
            offset,
        })
    };
    let line = |number: u64| JournalEntry {
        origin: origin(number),
        ..entry("time", number, &format!("line {number}"))
    };
    let mut writer = open(directory.path(), LARGE);
    write(&mut writer, (1..=3).map(line));
    drop(writer);
    let file = segments(directory.path(), "time").remove(0);
    let whole = fs::read(&file).unwrap();
    let length = RECORD_HEADER + "line 1".len();
    for cut in SEGMENT_HEADER..=whole.len() {
        let crashed = tempfile::tempdir().unwrap();
        let unit = crashed.path().join("time");
        fs::create_dir(&unit).unwrap();
        let name = unit.join(file.file_name().unwrap());
        fs::write(&name, &whole[..cut]).unwrap();
        let kept = (cut - SEGMENT_HEADER) / length;
        let mut writer = open(crashed.path(), LARGE);
        let stored = writer
            .origin("time", 9)
            .map(|(boot, origin)| (boot, origin.offset));
        let expected = (kept > 0).then_some((BOOT, kept as u64));
        assert_eq!(stored, expected, "cut at {cut}");
        write(&mut writer, [entry("time", 9, "new")]);
        let mut expected: Vec<String> = (1..=kept).map(|n| format!("line {n}")).collect();
        expected.push("new".to_owned());
        assert_eq!(texts(writer.journal()), expected, "cut at {cut}");
        // What can't be read stays where it is.
        assert!(fs::read(&name).unwrap().starts_with(&whole[..cut]));
        drop(writer);
        let again = open(crashed.path(), LARGE);
        assert_eq!(texts(again.journal()), expected, "cut at {cut}");
        assert_eq!(
            again.origin("time", 9).map(|found| found.1.offset),
            (kept > 0).then_some(kept as u64)
        );
    }
}

#[test]
fn files_that_are_no_segments_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = open(directory.path(), LARGE);
    write(&mut writer, [entry("kernel", 1, "one")]);
    drop(writer);
    let file = segments(directory.path(), "kernel").remove(0);
    fs::write(&file, b"something else").unwrap();
    fs::write(directory.path().join("kernel/notes.txt"), b"mine").unwrap();
    fs::write(directory.path().join("file"), b"mine").unwrap();
    let mut writer = open(directory.path(), LARGE);
    let unreadable = writer.journal().unreadable();
    assert_eq!(unreadable, [file.with_extension("unreadable")]);
    assert_eq!(fs::read(&unreadable[0]).unwrap(), b"something else");
    write(&mut writer, [entry("kernel", 2, "two")]);
    assert_eq!(texts(writer.journal()), ["two"]);
    drop(writer);
    let again = open(directory.path(), LARGE);
    assert_eq!(again.journal().unreadable(), unreadable);
    assert!(directory.path().join("kernel/notes.txt").exists());
}

#[test]
fn a_unit_that_floods_pushes_out_only_its_own_lines() {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits {
        size: 1 << 20,
        age: None,
    };
    let mut writer = open(directory.path(), limits);
    write(
        &mut writer,
        (0..100).map(|n| entry("kernel", n, "a line of the kernel")),
    );
    let flood = "x".repeat(1000);
    for round in 0..40 {
        write(
            &mut writer,
            (0..100).map(|n| entry("noisy", 1000 + round * 100 + n, &flood)),
        );
        writer.trim(0).unwrap();
        assert!(writer.journal().bytes() <= limits.size + (200 << 10));
    }
    let of = |unit: &str| JournalFilter {
        units: vec![unit.to_owned()],
        ..JournalFilter::default()
    };
    assert_eq!(read(writer.journal(), of("kernel"), 4096).len(), 100);
    let noisy = read(writer.journal(), of("noisy"), 4096);
    assert!(noisy.len() < 2000 && noisy.last().unwrap().entry.time == 4999);
    assert!(writer.journal().removed() >= noisy[0].sequence - 1);
    // A lower bound counts from the next start on.
    drop(writer);
    let mut writer = open(
        directory.path(),
        JournalLimits {
            size: 300 << 10,
            age: None,
        },
    );
    writer.trim(0).unwrap();
    assert!(writer.journal().bytes() <= 300 << 10);
    assert_eq!(read(writer.journal(), of("kernel"), 4096).len(), 100);
}

#[test]
fn old_lines_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let day = Duration::from_secs(86_400);
    let nanos = day.as_nanos() as u64;
    let limits = JournalLimits {
        size: 64 << 20,
        age: Some(day * 4),
    };
    let mut writer = open(directory.path(), limits);
    for today in 0..30 {
        write(
            &mut writer,
            [entry("kernel", today * nanos, &today.to_string())],
        );
        writer.trim(today * nanos).unwrap();
    }
    let left = texts(writer.journal());
    assert_eq!(left.last().map(String::as_str), Some("29"));
    assert!((5..=7).contains(&left.len()), "{left:?}");
}

#[test]
fn numbers_go_on_and_jump_at_a_boot() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = open(directory.path(), LARGE);
    write(
        &mut writer,
        [entry("kernel", 1, "one"), entry("init", 2, "two")],
    );
    drop(writer);
    let mut writer = open(directory.path(), LARGE);
    write(&mut writer, [entry("hostd", 3, "three")]);
    assert_eq!(writer.journal().last(), 3);
    drop(writer);
    let boot = BootId([2; 16]);
    let mut writer = JournalWriter::open(directory.path(), LARGE, boot).unwrap();
    let line = JournalEntry {
        boot,
        ..entry("kernel", 4, "four")
    };
    write(&mut writer, [line]);
    assert!(writer.journal().last() > 1 << 20);
    let boots = writer.journal().boots();
    assert_eq!(boots.len(), 2);
    assert_eq!((boots[0].boot, boots[0].first, boots[0].last), (BOOT, 1, 3));
    assert_eq!((boots[1].earliest, boots[1].latest), (4, 4));
    let filter = JournalFilter {
        boot: Some(BOOT),
        ..JournalFilter::default()
    };
    assert_eq!(read(writer.journal(), filter, 1).len(), 3);
}

#[test]
fn a_reader_follows_new_units_and_new_segments() {
    let directory = tempfile::tempdir().unwrap();
    let limits = JournalLimits {
        size: 1 << 20,
        age: None,
    };
    let mut writer = open(directory.path(), limits);
    write(&mut writer, (0..10).map(|n| entry("kernel", n, "before")));
    let mut reader = JournalReader::new(writer.journal().clone(), JournalFilter::default());
    assert_eq!(reader.tail(3).unwrap().len(), 3);
    assert!(reader.next(1000).unwrap().is_empty());
    let mut seen = Vec::new();
    for round in 0..200_u64 {
        let unit = ["kernel", "new"][(round % 2) as usize];
        write(&mut writer, [entry(unit, round, &"y".repeat(4000))]);
        if round % 3 == 0 {
            writer.trim(0).unwrap();
            seen.extend(reader.next(usize::MAX).unwrap());
        }
    }
    seen.extend(reader.next(usize::MAX).unwrap());
    let times: Vec<u64> = seen.iter().map(|line| line.entry.time).collect();
    assert_eq!(times, Vec::from_iter(0..200));
}

#[test]
fn names_that_are_none_and_too_many_units_share_one_chain() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = open(directory.path(), LARGE);
    write(&mut writer, [entry("../escape", 0, "x")]);
    write(
        &mut writer,
        (0..100).map(|n| entry(&format!("unit-{n}"), n, "x")),
    );
    let units = writer.journal().units();
    assert!(units.len() <= 65, "{}", units.len());
    assert_eq!(
        read(writer.journal(), JournalFilter::default(), 100).len(),
        101
    );
    assert!(!directory.path().parent().unwrap().join("escape").exists());
}

/// Reads all files without the store's indexes.
fn by_scan(directory: &Path, filter: &JournalFilter) -> Vec<u64> {
    let mut found = Vec::new();
    for unit in fs::read_dir(directory).unwrap() {
        let name = unit.unwrap().file_name().into_string().unwrap();
        if !filter.units.is_empty() && !filter.units.contains(&name) {
            continue;
        }
        for file in segments(directory, &name) {
            let bytes = fs::read(file).unwrap();
            scan(&bytes[SEGMENT_HEADER..], |_, record| {
                let wanted = !record.only_origin
                    && record.sequence > filter.after
                    && filter.boot.is_none_or(|boot| record.boot == boot)
                    && filter.since.is_none_or(|since| record.time >= since)
                    && filter.until.is_none_or(|until| record.time <= until)
                    && filter
                        .priority
                        .is_none_or(|priority| record.priority <= priority);
                if wanted {
                    found.push(record.sequence);
                }
            });
        }
    }
    found.sort_unstable();
    found
}

fn filters() -> impl Strategy<Value = JournalFilter> {
    let units = prop::sample::subsequence(vec!["a", "b", "c", "none"], 0..=2);
    let time = prop::option::of(0_u64..2000);
    let priority = prop::option::of(0_u8..8);
    (
        units,
        time.clone(),
        time,
        priority,
        prop::option::of(1_u8..4),
        0_u64..1500,
    )
        .prop_map(
            |(units, since, until, priority, boot, after)| JournalFilter {
                units: units.into_iter().map(str::to_owned).collect(),
                boot: boot.map(|boot| BootId([boot; 16])),
                since,
                until,
                priority: priority.map(LogPriority::from_number),
                after: if after < 500 { 0 } else { after },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_index_finds_what_a_scan_finds(
        batches in prop::collection::vec((0_usize..3, 1_usize..60, 0_u64..1000, 0_u8..8, 0_usize..3000), 1..30),
        wanted in prop::collection::vec(filters(), 8),
        tail in 0_usize..200,
        restart in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let limits = JournalLimits { size: 2 << 20, age: None };
        let mut writer = open(directory.path(), limits);
        let count = batches.len();
        for (number, (unit, lines, time, priority, length)) in batches.into_iter().enumerate() {
            let boot = BootId([(number * 3 / count + 1) as u8; 16]);
            write(&mut writer, (0..lines).map(|n| JournalEntry {
                boot,
                // The clock may be set back.
                time: time + n as u64 * 7 % 50,
                priority: LogPriority::from_number((priority + (n % 2) as u8) % 8),
                ..entry(["a", "b", "c"][unit], 0, &"z".repeat(length))
            }));
            writer.trim(0).unwrap();
        }
        if restart {
            drop(writer);
            writer = open(directory.path(), limits);
        }
        for filter in wanted {
            let expected = by_scan(directory.path(), &filter);
            let found = read(writer.journal(), filter.clone(), 20_000);
            let numbers: Vec<u64> = found.iter().map(|line| line.sequence).collect();
            prop_assert_eq!(&numbers, &expected);
            let mut reader = JournalReader::new(writer.journal().clone(), filter);
            let last: Vec<u64> = reader.tail(tail).unwrap().iter().map(|line| line.sequence).collect();
            prop_assert_eq!(&last[..], &expected[expected.len().saturating_sub(tail)..]);
            prop_assert!(reader.next(1000).unwrap().is_empty());
        }
    }
}

/// How fast a long log is read, and how fast a few lines of it are found. The bounds only catch what
/// is wrong by an order of magnitude; `--nocapture` prints the figures.
#[test]
fn reading_is_fast() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = open(directory.path(), LARGE);
    let text = "a usual line of a service, with about one hundred and twenty characters, as most programs write them to their logs";
    let lines = 200_000_u64;
    let mut by_unit: BTreeMap<u64, usize> = BTreeMap::new();
    let start = Instant::now();
    for batch in 0..lines / 500 {
        write(
            &mut writer,
            (0..500).map(|n| {
                let unit = (batch + n) % 4;
                *by_unit.entry(unit).or_default() += 1;
                entry(
                    ["kernel", "hostd", "time", "bus"][unit as usize],
                    batch * 500 + n,
                    text,
                )
            }),
        );
    }
    let written = start.elapsed();
    let start = Instant::now();
    assert_eq!(
        read(writer.journal(), JournalFilter::default(), 256 << 10).len(),
        lines as usize
    );
    let all = start.elapsed();
    let start = Instant::now();
    let since = JournalFilter {
        since: Some(lines - 100),
        ..JournalFilter::default()
    };
    assert_eq!(read(writer.journal(), since, 256 << 10).len(), 100);
    let few = start.elapsed();
    let megabytes = writer.journal().bytes() as f64 / 1e6;
    println!(
        "{lines} lines, {megabytes:.0} MB: written in {written:.2?}, read in {all:.2?} ({:.0} MB/s), the last 100 by time in {few:.2?}",
        megabytes / all.as_secs_f64()
    );
    assert!(few < Duration::from_millis(500), "{few:?}");
    assert!(all < Duration::from_secs(30), "{all:?}");
}

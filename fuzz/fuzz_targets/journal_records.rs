//! A segment of the logs with any content: the scan ends, and its records are inside the segment, in
//! order and complete. The kernel's log with any content: each record has a unit that may be stored.
#![cfg_attr(fuzzing, no_main)]

use keelson_journal::entry::is_unit;
use keelson_journal::format::{RecordFound, SegmentHeader, decode, scan};
use keelson_journal::kmsg::KmsgRecords;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let _ = SegmentHeader::decode(bytes);
    let mut last = 0;
    let (end, damaged) = scan(bytes, |at, record| {
        assert!(at >= last);
        let RecordFound::Record(again, length) = decode(&bytes[at..]) else {
            panic!("a record that is none");
        };
        assert_eq!(again, record);
        last = at + length;
    });
    assert_eq!(end, last);
    assert!(damaged || end == bytes.len());

    let mut whole = KmsgRecords::default();
    let records = whole.push(bytes);
    for record in &records {
        let (unit, _, text) = record.meaning();
        assert!(is_unit(&unit));
        assert!(text.len() <= record.text.len());
    }
    // The pieces in which they arrive make no difference.
    let mut pieces = KmsgRecords::default();
    let found: Vec<_> = bytes
        .chunks(3)
        .flat_map(|piece| pieces.push(piece))
        .collect();
    assert_eq!(found, records);
});

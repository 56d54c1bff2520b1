//! The kernel's figures, from files that a container can influence: device numbers, names of
//! interfaces. The result never has more entries than the text has lines or words.
#![cfg_attr(fuzzing, no_main)]

use keelson_cgroup::figures::{self, CpuFigures, DeviceFigures, MemoryDetails, ProcessorFigures};
use keelson_linux::net_dev;

keelson_fuzz::fuzz_target!(|bytes: &[u8]| {
    let _ = CpuFigures::parse(bytes);
    let _ = figures::limit(bytes);
    let _ = figures::value(bytes, "oom");
    let processors = ProcessorFigures::parse(bytes, bytes.len() as u64);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(processors.online as usize <= lines);
    assert!(DeviceFigures::parse_all(bytes).len() <= bytes.len());
    assert!(net_dev::parse(bytes).len() <= lines);
    let details = MemoryDetails::parse(bytes);
    for (name, figure) in details.iter() {
        assert_eq!(details.get(name), figure);
    }
});

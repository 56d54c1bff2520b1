use proptest::prelude::*;

use super::*;

/// From a container with limits on Linux 6.12.
const CPU: &[u8] = b"usage_usec 2412873\nuser_usec 2301512\nsystem_usec 111361\nnice_usec 0\n\
    core_sched.force_idle_usec 0\nnr_periods 48\nnr_throttled 41\nthrottled_usec 1930447\n\
    nr_bursts 0\nburst_usec 0\n";

const MEMORY: &[u8] = b"anon 8458240\nfile 4096000\nkernel 1409024\nkernel_stack 65536\n\
    pagetables 147456\nsec_pagetables 0\npercpu 4608\nsock 4096\nvmalloc 0\nshmem 12288\n\
    zswap 0\nzswapped 0\nfile_mapped 2162688\nfile_dirty 8192\nfile_writeback 0\nswapcached 0\n\
    anon_thp 0\nfile_thp 0\nshmem_thp 0\ninactive_anon 8470528\nactive_anon 20480\n\
    inactive_file 2703360\nactive_file 1380352\nunevictable 0\nslab_reclaimable 581480\n\
    slab_unreclaimable 417160\nslab 998640\nworkingset_refault_anon 3\nworkingset_refault_file 4\n\
    workingset_activate_anon 0\nworkingset_activate_file 0\nworkingset_nodereclaim 0\n\
    pgscan 0\npgsteal 0\npgfault 7432\npgmajfault 24\npgrefill 0\npgactivate 337\n";

#[test]
fn processor_time() {
    let figures = CpuFigures::parse(CPU);
    assert_eq!(figures.usage, Duration::from_micros(2_412_873));
    assert_eq!(figures.user + figures.system, figures.usage);
    assert_eq!((figures.periods, figures.throttled_periods), (48, 41));
    assert_eq!(figures.throttled, Duration::from_micros(1_930_447));
    // Without the controller.
    let figures = CpuFigures::parse(b"usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    assert_eq!(figures.usage, Duration::from_micros(5));
    assert_eq!(figures.periods, 0);
}

#[test]
fn memory() {
    let details = MemoryDetails::parse(MEMORY);
    assert_eq!(details.get("inactive_file"), 2_703_360);
    assert_eq!(details.get("slab"), 998_640);
    assert_eq!(details.get("workingset_refault_file"), 4);
    // A figure that this kernel lacks, and one that is not stored.
    assert_eq!(details.get("pglazyfree"), 0);
    assert_eq!(details.get("zswap"), 0);
    assert_eq!(details.get("total_inactive_file"), 0);
    assert!(details.iter().any(|figure| figure == ("anon", 8_458_240)));
    let events = b"low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
    assert_eq!(value(events, "oom"), 3);
    assert_eq!(value(b"", "oom"), 0);
}

#[test]
fn limits() {
    assert_eq!(limit(b"max\n"), Some(Limit::Unlimited));
    assert_eq!(limit(b"67108864\n"), Some(Limit::Of(67_108_864)));
    assert_eq!(limit(b"most\n"), None);
    assert_eq!(number(b"17\n"), Some(17));
    assert_eq!(number(b"-1\n"), None);
}

#[test]
fn devices() {
    let device = |major, minor, read, written| DeviceFigures {
        major,
        minor,
        read,
        written,
    };
    let text = b"254:0 rbytes=7593984 wbytes=100 rios=301 wios=1 dbytes=0 dios=0\n7:1 \n\
        8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n";
    assert_eq!(
        DeviceFigures::parse_all(text),
        [device(254, 0, 7_593_984, 100), device(8, 0, 4096, 0)]
    );
    // Lines that ran together.
    let text = b"8:16 8:0 rbytes=1 wbytes=2 7:0 rbytes=3 wbytes=4\n";
    assert_eq!(
        DeviceFigures::parse_all(text),
        [device(8, 0, 1, 2), device(7, 0, 3, 4)]
    );
    assert_eq!(DeviceFigures::parse_all(b"rbytes=1\n"), []);
}

#[test]
fn processors() {
    let text = b"cpu  100 1 20 3000 4 5 6 700 8 9\ncpu0 50 1 10 1500 2 2 3 350 4 4\n\
        cpu1 50 0 10 1500 2 3 3 350 4 5\nintr 1 2 3\nctxt 5\nbtime 1700000000\n";
    let figures = ProcessorFigures::parse(text, 100);
    // Time of guests is not counted twice.
    assert_eq!(figures.time, Duration::from_millis(31_360));
    assert_eq!(figures.online, 2);
    assert_eq!(
        ProcessorFigures::parse(b"", 100),
        ProcessorFigures::default()
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read(text in proptest::collection::vec(any::<u8>(), 0..300), ticks in any::<u64>()) {
        let _ = CpuFigures::parse(&text);
        let _ = MemoryDetails::parse(&text);
        let _ = ProcessorFigures::parse(&text, ticks);
        let _ = (number(&text), limit(&text), value(&text, "oom"));
        prop_assert!(DeviceFigures::parse_all(&text).len() <= text.len());
    }

    #[test]
    fn devices_come_back(list in proptest::collection::btree_map(
        (any::<u32>(), any::<u32>()), (any::<u64>(), any::<u64>()), 0..20)) {
        let text: String = list.iter().map(|((major, minor), (read, written))| {
            format!("{major}:{minor} rbytes={read} wbytes={written} rios=9 wios=9\n")
        }).collect();
        let expected: Vec<_> = list.into_iter().map(|((major, minor), (read, written))| {
            DeviceFigures { major, minor, read, written }
        }).collect();
        prop_assert_eq!(DeviceFigures::parse_all(text.as_bytes()), expected);
    }

    #[test]
    fn processor_time_comes_back(usage in 0u64..u64::MAX / 2000, periods in any::<u64>()) {
        let text = format!("usage_usec {usage}\nnr_periods {periods}\n");
        let figures = CpuFigures::parse(text.as_bytes());
        prop_assert_eq!(figures.usage, Duration::from_micros(usage));
        prop_assert_eq!(figures.periods, periods);
    }
}

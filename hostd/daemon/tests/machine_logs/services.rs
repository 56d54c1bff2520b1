//! The output of services.

use super::common::{Host, wait_until};
use super::{configure, lines, texts, wait_for_store};

#[test]
fn lines_of_services_come_once_however_often_hostd_ends() {
    let Some(mut host) = Host::with_busybox() else {
        return;
    };
    let script = "i=0; echo '<3>it begins' >&2; while :; do echo tick $i; i=$((i+1)); \
        sleep 0.05; done";
    let service = "[services.ticker]\nimage = 'busybox'\n";
    configure(
        &mut host,
        &format!("{service}command = ['sh', '-c', \"\"\"{script}\"\"\"]\n"),
    );
    let ticks = |host: &Host| -> Vec<u64> {
        let texts = texts(host, "unit=ticker").into_iter();
        texts
            .filter_map(|text| text.strip_prefix("tick ")?.parse().ok())
            .collect()
    };
    for round in 1..4 {
        wait_until("it ticks", || ticks(&host).len() > 10 * round);
        host.kill_daemon();
        host.start_daemon();
        wait_for_store(&host);
    }
    wait_until("it ticks", || ticks(&host).len() > 40);
    let seen = ticks(&host);
    assert_eq!(seen, Vec::from_iter(0..seen.len() as u64));
    let first = &lines(&host, "unit=ticker&priority=error")[0];
    assert_eq!(first["text"], "it begins");
    assert_eq!(first["priority"], "error");
}

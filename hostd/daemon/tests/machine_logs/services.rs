//! The output of services.

use std::fs;
use std::process::Command;

use super::common::{Host, is_root, wait_until};
use super::{lines, texts, wait_for_store};

#[test]
fn lines_of_services_come_once_however_often_hostd_ends() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    host.kill_daemon();
    let directory = host.path().join("no-services/ticker");
    let tree = host.path().join("tree");
    for part in ["bin", "proc", "sys", "dev", "etc", "run", "tmp"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    keelson_testing::busybox::install(&tree.join("bin/busybox")).unwrap();
    fs::create_dir_all(&directory).unwrap();
    let image = directory.join("rootfs.erofs");
    match Command::new("mkfs.erofs").arg(&image).arg(&tree).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => {
            keelson_testing::skip("mkfs.erofs", error);
            host.start_daemon();
            return;
        }
    }
    let script = "i=0; echo '<3>it begins' >&2; while :; do echo tick $i; i=$((i+1)); \
        /bin/busybox sleep 0.05; done";
    let text = format!(
        "version = 1\ndescription = \"test\"\ncommand = [\"/bin/busybox\", \"sh\", \"-c\", '''{script}''']\n"
    );
    fs::write(directory.join("service.toml"), text).unwrap();
    let ticks = |host: &Host| -> Vec<u64> {
        let texts = texts(host, "unit=ticker").into_iter();
        texts
            .filter_map(|text| text.strip_prefix("tick ")?.parse().ok())
            .collect()
    };
    host.start_daemon();
    wait_for_store(&host);
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

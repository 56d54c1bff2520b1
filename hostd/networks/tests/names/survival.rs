//! hostd comes and goes, the resolver dies, and names are answered all the time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hostd_networks::names::{ContainerNames, Reopen};
use keelson_netlink::Namespace;
use rustix::process::{Signal, kill_process};

use crate::world::{
    ELSEWHERE, NameServer, Place, Run, beside, block_on, container, is_alive, link, never, on_host,
    ports_of, program,
};

fn records() -> [ContainerNames; 2] {
    let one: &[(&str, &[&str], &[&str])] = &[("net", &["one"], &["10.3.0.1"])];
    let two: &[(&str, &[&str], &[&str])] = &[("net", &["two"], &["10.3.0.2"])];
    let mut records = [container("one", one), container("two", two)];
    records[0].wishes.servers = vec!["10.99.1.1".parse().unwrap()];
    records
}

/// Asks all the time, until it is told to stop; returns how often.
fn keep_asking(
    place: &Place,
    stop: &Arc<AtomicUsize>,
) -> std::thread::JoinHandle<(usize, Duration)> {
    let (client, stop) = (place.client(), stop.clone());
    std::thread::spawn(move || {
        let (mut count, mut slowest) = (0, Duration::ZERO);
        while stop.load(Ordering::Relaxed) == 0 {
            let begin = Instant::now();
            assert_eq!(client.ask("two.").unwrap(), ["10.3.0.2"]);
            assert_eq!(
                client.ask(&format!("n{count}.example.")).unwrap(),
                [ELSEWHERE.to_string()]
            );
            slowest = slowest.max(begin.elapsed());
            count += 1;
        }
        (count, slowest)
    })
}

/// Opens sockets in known namespaces, and counts.
fn reopen(places: &[(&str, &Arc<Place>)], count: &Arc<AtomicUsize>) -> Reopen {
    let places: BTreeMap<String, Arc<Place>> = places
        .iter()
        .map(|(id, place)| ((*id).to_owned(), (*place).clone()))
        .collect();
    let count = count.clone();
    Arc::new(move |id, ports| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(places[id].sockets(ports))
    })
}

#[test]
fn hostd_comes_and_goes_and_a_newer_one_brings_its_own_resolver() {
    if !keelson_testing::is_root() {
        return;
    }
    let host = Place::new();
    host.run(|| {
        let run = Run::new("");
        let (one, two, outside) = (Place::new(), Place::new(), Place::new());
        let server = block_on(async {
            link(&outside.namespace, &one.namespace, 1).await;
            NameServer::start(&outside)
        });
        let stop = Arc::<AtomicUsize>::default();
        let asking = block_on(async {
            let names = run.names(never());
            names.settle();
            let [first, second] = records();
            names.set(first, Some(one.sockets(None))).await.unwrap();
            names.set(second, Some(two.sockets(None))).await.unwrap();
            keep_asking(&one, &stop)
        });
        let process = run.process();
        // hostd is gone.
        std::thread::sleep(Duration::from_millis(700));
        assert!(is_alive(process));
        // Others come, and change nothing or something.
        for life in 0..5 {
            block_on(async {
                let names = run.names(never());
                let [first, mut second] = records();
                second.networks[0].names.push(format!("life-{life}"));
                names.set(first, None).await.unwrap();
                if life % 2 == 0 {
                    names.set(second.clone(), None).await.unwrap();
                    names.settle();
                } else {
                    // One that knows the second only later would forget it.
                    names.set(second.clone(), None).await.unwrap();
                    names.settle();
                    names.set(second, None).await.unwrap();
                }
                let client = one.client();
                let asked = beside(move || {
                    // Told within a moment.
                    for _ in 0..100 {
                        if client
                            .ask(&format!("life-{life}."))
                            .is_ok_and(|found| found == ["10.3.0.2"])
                        {
                            return true;
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    false
                });
                assert!(asked.await, "{life}");
            });
            assert_eq!(run.process(), process);
        }
        // A newer release has another file.
        let newer = run.path().join("keelson-resolver");
        std::fs::copy(program(), &newer).unwrap();
        block_on(async {
            let names = run.names_by(newer, never());
            for record in records() {
                names.set(record, None).await.unwrap();
            }
            names.settle();
            let begin = Instant::now();
            while run.process_now().is_none_or(|found| found == process) {
                assert!(begin.elapsed() < Duration::from_secs(10));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let [first, _] = records();
            names.set(first, None).await.unwrap();
            // The sockets are the same: it was not asked for others.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!is_alive(process));
        });
        stop.store(1, Ordering::Relaxed);
        let (count, slowest) = asking.join().unwrap();
        assert!(count > 100, "{count}");
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        drop(server);
        // Who knows no container makes it forget all; then it ends with the connection.
        let process = run.process();
        block_on(async {
            let names = run.names(never());
            names.settle();
            tokio::time::sleep(Duration::from_millis(500)).await;
            names.close().await;
        });
        let begin = Instant::now();
        while is_alive(process) {
            assert!(begin.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn a_resolver_that_dies_or_hangs_is_replaced_with_sockets_for_all() {
    on_host(|_| async {
        let run = Run::new("");
        let (one, two) = (Place::new(), Place::new());
        let opened = Arc::<AtomicUsize>::default();
        let names = run.names(reopen(&[("one", &one), ("two", &two)], &opened));
        names.settle();
        let [mut first, second] = records();
        let sockets = one.sockets(None);
        let before = ports_of(&sockets);
        names.set(first.clone(), Some(sockets)).await.unwrap();
        names.set(second, Some(two.sockets(None))).await.unwrap();
        for (round, signal) in [Signal::KILL, Signal::STOP].into_iter().enumerate() {
            let process = run.process();
            kill_process(process, signal).unwrap();
            if signal == Signal::STOP {
                // That it hangs is noticed when it is told something.
                first.networks[0].names.push("noticed".to_owned());
                let _ = names.set(first.clone(), None).await;
            }
            let begin = Instant::now();
            let client = one.client();
            let asked = beside(move || {
                for _ in 0..500 {
                    // Nobody listens for a moment.
                    if client.try_ask("two.") {
                        return true;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                false
            });
            assert!(asked.await);
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{:?}",
                begin.elapsed()
            );
            assert_ne!(run.process(), process);
            assert_eq!(opened.load(Ordering::Relaxed), 2 * (round + 1));
        }
        let [first, _] = records();
        names.set(first, None).await.unwrap();
        // At the same ports as long as nobody else has them.
        let taken = one.run(|| hostd_networks::names::open_sockets(Some(before)).unwrap());
        assert_ne!(ports_of(&taken), before);
    });
}

#[test]
fn a_container_that_ends_while_hostd_is_gone_leaves_at_once() {
    if !keelson_testing::is_root() {
        return;
    }
    let host = Place::new();
    host.run(|| {
        let run = Run::new("");
        let (one, two) = (Place::new(), Place::new());
        let mut life = Command::new("sleep").arg("60").spawn().unwrap();
        block_on(async {
            let names = run.names(never());
            names.settle();
            let [first, second] = records();
            names.set(first, Some(one.sockets(None))).await.unwrap();
            let mut sockets = two.sockets(None);
            let pid = rustix::process::Pid::from_child(&life);
            let flags = rustix::process::PidfdFlags::empty();
            sockets.life = Some(rustix::process::pidfd_open(pid, flags).unwrap());
            names.set(second, Some(sockets)).await.unwrap();
        });
        let client = one.client();
        assert_eq!(client.ask("two.").unwrap(), ["10.3.0.2"]);
        life.kill().unwrap();
        life.wait().unwrap();
        let begin = Instant::now();
        // There is no name server behind.
        while client.ask("two.").is_ok() {
            assert!(begin.elapsed() < Duration::from_secs(2));
        }
        // Its directory is gone: no hostd will come back.
        let process = run.process();
        drop(run);
        let begin = Instant::now();
        while is_alive(process) {
            assert!(begin.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// What a stand-in for hostd is told by.
const STAND_IN: &str = "KEELSON_TEST_STAND_IN";

/// Not a test: the process that stands in for hostd in the next one.
#[test]
fn stand_in() {
    let Ok(arguments) = std::env::var(STAND_IN) else {
        return;
    };
    let (parent, rest) = arguments.split_once(' ').unwrap();
    let (descriptor, directory) = rest.split_once(' ').unwrap();
    let path = format!("/proc/{parent}/fd/{descriptor}");
    let namespace = Namespace::open(path.as_ref()).unwrap();
    block_on(async {
        let names = hostd_networks::names::Names::open(hostd_networks::names::NamesOptions {
            program: program(),
            run: directory.into(),
            cgroup: None,
            resolv_conf: std::path::Path::new(directory).join("resolv.conf"),
            reopen: never(),
        });
        names.settle();
        let sockets = namespace.run(|| hostd_networks::names::serve_here(None));
        let [first, _] = records();
        names
            .set(first, Some(sockets.unwrap().unwrap()))
            .await
            .unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_hostd_leaves_its_resolver() {
    if !keelson_testing::is_root() {
        return;
    }
    use std::os::fd::{AsFd, AsRawFd};
    let (host, place) = (Place::new(), Place::new());
    let run = Run::new("");
    let descriptor = place.namespace.as_fd().as_raw_fd();
    let arguments = format!(
        "{} {descriptor} {}",
        std::process::id(),
        run.path().display()
    );
    let mut child = host.run(|| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "survival::stand_in", "--nocapture"])
            .env(STAND_IN, arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("ready"))
    );
    let client = place.client();
    assert_eq!(client.ask("one.").unwrap(), ["10.3.0.1"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let process = run.process();
    let session =
        std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap();
    let session = session
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(session, process.as_raw_nonzero().to_string());
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < Duration::from_secs(1) {
        assert_eq!(client.ask("one.").unwrap(), ["10.3.0.1"]);
        count += 1;
    }
    assert!(count > 100, "{count}");

    // It has no rights.
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = |name: &str| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("Uid:"), ["65053"; 4]);
    assert_eq!(line("Gid:"), ["65053"; 4]);
    assert!(line("Groups:").is_empty());
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(
        (line("NoNewPrivs:"), line("Seccomp:")),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
    kill_process(process, Signal::KILL).unwrap();
}

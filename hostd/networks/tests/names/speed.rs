//! How fast names are answered, beside other name servers of containers. Needs `dnsperf`:
//! `KEELSON_RESOLVER=target/…/release/keelson-resolver cargo test -p hostd-networks --test names speed -- --ignored --nocapture`

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::world::{NameServer, Place, Run, beside, container, link, never, on_host};

/// Names that are known.
const NAMES: usize = 200;

fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Runs dnsperf in a namespace, and prints its figures: with many questions under way, then one by one.
fn measure(place: &Place, what: &str, server: &str, queries: &Path) {
    for clients in ["20", "1"] {
        let output = place.run(|| {
            Command::new("dnsperf")
                .args(["-s", server, "-d", queries.to_str().unwrap(), "-l", "3"])
                .args(["-q", clients, "-c", clients, "-T", "1"])
                .output()
                .unwrap()
        });
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |label: &str| {
            let line = text.lines().find(|line| line.contains(label));
            let value = line.and_then(|line| line.split(':').nth(1));
            value.unwrap_or("?").trim().to_owned()
        };
        eprintln!(
            "{what:<28} {clients:>2} at once: {:>14}/s, latency {}; lost {}",
            value("Queries per second"),
            value("Average Latency"),
            value("Queries lost"),
        );
    }
}

/// Kilobytes of memory that belong to a process.
fn memory(pid: i32) -> String {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.unwrap_or("?").to_owned()
}

fn ended(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
#[ignore = "a benchmark"]
fn names_per_second() {
    if !has("dnsperf") {
        return keelson_testing::skip("dnsperf", "nothing to measure with");
    }
    on_host(|_| async {
        let run = Run::new("");
        let names = run.names(never());
        names.settle();
        let mut places = Vec::new();
        for number in 0..NAMES {
            let id = format!("name{number}");
            let address = format!("10.3.0.{number}");
            let networks: &[(&str, &[&str], &[&str])] = &[("net", &[&id], &[&address])];
            let mut container = container(&id, networks);
            container.wishes.servers = vec!["10.99.1.1".parse().unwrap()];
            let place = Place::new();
            names
                .set(container, Some(place.sockets(None)))
                .await
                .unwrap();
            places.push(place);
            if number == 0 {
                tokio::time::sleep(Duration::from_secs(3)).await;
                eprintln!(
                    "resolver with 1 container:    {}",
                    memory(run.process().as_raw_nonzero().get())
                );
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        eprintln!(
            "resolver with {NAMES} containers: {}",
            memory(run.process().as_raw_nonzero().get())
        );
        let process = run.process().as_raw_nonzero().get();
        let outside = Place::new();
        link(&outside.namespace, &places[0].namespace, 1).await;
        beside(move || {
            let directory = tempfile::tempdir().unwrap();
            let (known, unknown) = (
                directory.path().join("known"),
                directory.path().join("unknown"),
            );
            let list: String = (0..NAMES).fold(String::new(), |mut list, number| {
                writeln!(list, "name{number} A").unwrap();
                list
            });
            std::fs::write(&known, list).unwrap();
            std::fs::write(&unknown, "a.example A\nb.example A\n").unwrap();
            measure(&places[0], "keelson-resolver, known", "127.0.0.11", &known);
            let server = NameServer::start(&outside);
            measure(
                &places[0],
                "keelson-resolver, forwarded",
                "127.0.0.11",
                &unknown,
            );
            measure(
                &places[0],
                "the test's server itself",
                "10.99.1.1",
                &unknown,
            );
            drop(server);
            eprintln!("resolver after that:          {}", memory(process));
            others(directory.path(), &known);
        })
        .await;
    });
}

fn others(directory: &Path, known: &Path) {
    if has("dnsmasq") {
        let place = Place::new();
        let hosts = directory.join("hosts");
        let list: String = (0..NAMES).fold(String::new(), |mut list, number| {
            writeln!(list, "10.3.0.{number} name{number}").unwrap();
            list
        });
        std::fs::write(&hosts, list).unwrap();
        let child = place.run(|| {
            Command::new("dnsmasq")
                .args([
                    "-k",
                    "-C",
                    "/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                    "-a",
                    "127.0.0.1",
                ])
                .args([
                    "--bind-interfaces",
                    "-u",
                    "root",
                    "-h",
                    "-H",
                    hosts.to_str().unwrap(),
                ])
                .spawn()
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(500));
        measure(&place, "dnsmasq, known", "127.0.0.1", known);
        eprintln!("dnsmasq: {}", memory(child.id().try_into().unwrap()));
        ended(child);
    }
    let aardvark = "/usr/lib/podman/aardvark-dns";
    if Path::new(aardvark).exists() {
        let place = Place::new();
        let config = directory.join("aardvark");
        std::fs::create_dir(&config).unwrap();
        let list = (0..NAMES).fold("127.0.0.1\n".to_owned(), |mut list, number| {
            writeln!(list, "{number:064} 10.3.0.{number}  name{number}").unwrap();
            list
        });
        std::fs::write(config.join("net"), list).unwrap();
        let child = place.run(|| {
            Command::new(aardvark)
                .args(["--config", config.to_str().unwrap(), "--port", "53", "run"])
                .spawn()
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(800));
        let served = std::fs::read_to_string(config.join("aardvark.pid")).unwrap_or_default();
        measure(&place, "aardvark-dns, known", "127.0.0.1", known);
        if let Ok(pid) = served.trim().parse::<i32>() {
            eprintln!("aardvark-dns: {}", memory(pid));
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        ended(child);
    }
}

//! Creates, starts and commits against removals and prunes, with kills of the daemon in between: a
//! container keeps its image, and unused images are removed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Host, PATIENCE, image, is_root, wait_until};

/// Rounds of all workers together, for longer runs.
const ROUNDS: &str = "KEELSON_LEASE_ROUNDS";
const USUAL_ROUNDS: usize = 2000;
const WORKERS: usize = 4;
/// Fewer than workers, so that they meet.
const IMAGES: usize = 2;

/// A request; `None` when the daemon was killed under it.
pub(crate) fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    kind: &str,
) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    // Send everything at once: a body that comes after the answer is never read, and the connection
    // is then reset instead of closed.
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let json = body.find(['{', '[']).and_then(|start| {
        let mut values = serde_json::Deserializer::from_str(&body[start..]).into_iter();
        values.next()?.ok()
    });
    Some((status, json.unwrap_or_default()))
}

/// What all threads share.
struct Race {
    socket: PathBuf,
    archives: Vec<Vec<u8>>,
    /// Held for writing while the daemon is away.
    alive: RwLock<()>,
    rounds: AtomicUsize,
    created: AtomicUsize,
    started: AtomicUsize,
    committed: AtomicUsize,
    removed: AtomicUsize,
    ended: AtomicBool,
}

impl Race {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        drop(self.alive.read().unwrap());
        let body = body.to_string();
        ask(
            &self.socket,
            method,
            path,
            body.as_bytes(),
            "application/json",
        )
    }

    fn is_over(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// One container from its image's coming to its own end; `None` when a kill came between.
    fn round(&self, number: usize) -> Option<()> {
        let which = number % IMAGES;
        let name = format!("raced-{which}");
        let create = json!({"Image": name, "Cmd": ["true"]});
        let (status, made) = self.ask("POST", "/containers/create", &create)?;
        if status == 404 {
            drop(self.alive.read().unwrap());
            let archive = &self.archives[which];
            let load = "/images/load?quiet=1";
            let (status, told) = ask(&self.socket, "POST", load, archive, "application/x-tar")?;
            assert_eq!(status, 200, "{told}");
            return Some(());
        }
        assert_eq!(status, 201, "{made}");
        self.created.fetch_add(1, Ordering::SeqCst);
        let id = made["Id"].as_str().unwrap();
        let container = format!("/containers/{id}");
        match number % 4 {
            0 => {
                let commit = format!("/commit?container={id}&repo=made-{which}&pause=0");
                let (status, told) = self.ask("POST", &commit, &json!({}))?;
                assert_eq!(status, 201, "a container's image was missing: {told}");
                self.committed.fetch_add(1, Ordering::SeqCst);
            }
            1 | 2 => self.start(&container)?,
            // Left for after the next kill.
            _ => return Some(()),
        }
        let (status, told) = self.ask("DELETE", &format!("{container}?force=1"), &json!({}))?;
        assert!(status == 204 || status == 404, "{told}");
        Some(())
    }

    fn start(&self, container: &str) -> Option<()> {
        let (status, told) = self.ask("POST", &format!("{container}/start"), &json!({}))?;
        assert!(
            status == 204 || status == 304,
            "a container's image was missing: {told}"
        );
        self.started.fetch_add(1, Ordering::SeqCst);
        Some(())
    }

    /// All containers that are left start, and go.
    fn finish_containers(&self) {
        let (_, list) = self
            .ask("GET", "/containers/json?all=1", &json!({}))
            .unwrap();
        for container in list.as_array().unwrap() {
            let path = format!("/containers/{}", container["Id"].as_str().unwrap());
            self.start(&path).unwrap();
            let (status, told) = self
                .ask("DELETE", &format!("{path}?force=1"), &json!({}))
                .unwrap();
            assert_eq!(status, 204, "{told}");
        }
    }

    fn work(&self, wanted: usize) {
        while !self.is_over() {
            let number = self.rounds.fetch_add(1, Ordering::SeqCst);
            if number >= wanted {
                break;
            }
            let _ = self.round(number);
        }
    }

    /// Removes the objects of the workers, in every way.
    fn attack(&self) {
        let mut number = 0_usize;
        while !self.is_over() {
            number += 1;
            let which = number % IMAGES;
            let (method, path) = match number % 6 {
                0 | 1 => ("DELETE", format!("/images/raced-{which}?force=1")),
                2 => ("DELETE", format!("/images/raced-{which}")),
                3 => ("DELETE", format!("/images/made-{which}?force=1")),
                4 => ("POST", "/images/prune".to_owned()),
                _ => (
                    "POST",
                    "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D".to_owned(),
                ),
            };
            if let Some((status, told)) = self.ask(method, &path, &json!({})) {
                assert!(matches!(status, 200 | 404 | 409), "{method} {path}: {told}");
                if status == 200 && method == "DELETE" {
                    self.removed.fetch_add(1, Ordering::SeqCst);
                }
            }
            // The others shall get somewhere, too.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A small image whose layer nobody else has.
fn archive(which: usize) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let busybox = keelson_testing::busybox::bytes().unwrap();
    for (name, bytes) in [
        ("bin/true", &busybox[..]),
        ("which", which.to_string().as_bytes()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        layer.append_data(&mut header, name, bytes).unwrap();
    }
    image::archive(
        &format!("raced-{which}"),
        &layer.into_inner().unwrap(),
        None,
    )
}

fn images_left(host: &Host) -> Vec<PathBuf> {
    let engine = host.path().join("root/engine");
    ["images", "layers", "blobs"]
        .iter()
        .flat_map(|name| std::fs::read_dir(engine.join(name)).unwrap().flatten())
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn what_is_in_use_keeps_its_image_and_nothing_else_is_left() {
    if !is_root() {
        return;
    }
    let wanted = std::env::var(ROUNDS).map_or(USUAL_ROUNDS, |text| text.parse().unwrap());
    let mut host = Host::start();
    let race = Arc::new(Race {
        socket: host.socket(),
        archives: (0..IMAGES).map(archive).collect(),
        alive: RwLock::new(()),
        rounds: AtomicUsize::new(0),
        created: AtomicUsize::new(0),
        started: AtomicUsize::new(0),
        committed: AtomicUsize::new(0),
        removed: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
    });
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // A failure of one ends the test for all.
        struct End<'a>(&'a Race);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.ended.store(true, Ordering::SeqCst);
                }
            }
        }
        let race = &*race;
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                scope.spawn(move || {
                    let _end = End(race);
                    race.work(wanted);
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(move || {
                let _end = End(race);
                race.attack();
            });
        }
        // Kills at thirds of the way, or every few hundred rounds of a long one.
        let _end = End(race);
        let step = (wanted / 3).clamp(1, 400);
        let mut next = step;
        let mut kills = 0;
        while !race.is_over() && workers.iter().any(|worker| !worker.is_finished()) {
            if race.rounds.load(Ordering::SeqCst) >= next && next < wanted {
                next += step;
                kills += 1;
                let _away = race.alive.write().unwrap();
                host.kill_daemon();
                host.start_daemon();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        race.ended.store(true, Ordering::SeqCst);
        println!("{kills} kills");
    });
    race.finish_containers();
    let all = "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D";
    assert_eq!(race.ask("POST", all, &json!({})).unwrap().0, 200);
    wait_until("no image is left", || images_left(&host).is_empty());
    let count = |number: &AtomicUsize| number.load(Ordering::SeqCst);
    println!(
        "{wanted} rounds in {:.1} s: {} created, {} started, {} committed, {} removals",
        begun.elapsed().as_secs_f64(),
        count(&race.created),
        count(&race.started),
        count(&race.committed),
        count(&race.removed),
    );
    assert!(count(&race.created) > 0 && count(&race.removed) > 0);
}

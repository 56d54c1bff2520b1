//! The machine's logs: collected from a kernel log and from services, read over the API and by
//! `hostctl logs`, and forwarded to Debian's rsyslog and over HTTP.

mod common;

#[path = "machine_logs/forward.rs"]
mod forward;
#[path = "machine_logs/http.rs"]
mod http;
#[path = "machine_logs/reading.rs"]
mod reading;
#[path = "machine_logs/services.rs"]
mod services;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Host, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// A kernel log: a pipe that hostd reads like `/dev/kmsg`.
struct KernelLog {
    directory: TempDir,
    /// Kept open for reading, too, so that it never ends.
    pipe: File,
    records: Vec<String>,
}

impl KernelLog {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kmsg");
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        let pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        Self {
            directory,
            pipe,
            records: Vec::new(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("kmsg")
    }

    /// Writes a record as the kernel shows it, with the next number.
    fn write(&mut self, priority: u32, text: &str) {
        let number = self.records.len();
        let record = format!("{priority},{number},{},-;{text}\n", 1000 * number);
        self.pipe.write_all(record.as_bytes()).unwrap();
        self.records.push(record);
    }

    /// A new reader of the kernel's log begins with its oldest record.
    fn begin_again(&mut self) {
        // What the former reader has left.
        let left = rustix::fs::fcntl_getfl(&self.pipe).unwrap();
        rustix::fs::fcntl_setfl(&self.pipe, left | rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut sink = [0; 4096];
        while std::io::Read::read(&mut self.pipe, &mut sink).is_ok_and(|length| length > 0) {}
        rustix::fs::fcntl_setfl(&self.pipe, left).unwrap();
        for record in &self.records {
            self.pipe.write_all(record.as_bytes()).unwrap();
        }
    }
}

fn argument(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The lines that a query returns.
#[track_caller]
fn lines(host: &Host, query: &str) -> Vec<Value> {
    let (status, text) = host.get(&format!("/host/v1/logs?{query}"));
    assert_eq!(status, 200, "{text}");
    // Between them stand the lengths of chunks, which may be numbers, too.
    let values = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    values.filter(Value::is_object).collect()
}

#[track_caller]
fn texts(host: &Host, query: &str) -> Vec<String> {
    let lines = lines(host, query).into_iter();
    lines
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn status(host: &Host) -> Value {
    let (status, text) = host.get("/host/v1/logs/status");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits until the store is open and has hostd's own line about its start.
fn wait_for_store(host: &Host) {
    wait_until("the store is open", || {
        host.get("/host/v1/logs?unit=hostd&tail=1").0 == 200
    });
}

/// Writes the operator's configuration, and starts hostd again with it.
fn configure(host: &mut Host, text: &str) {
    host.stop_daemon();
    let directory = host.path().join("config/etc/keelson");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("host.toml"), text).unwrap();
    host.start_daemon();
    wait_for_store(host);
}

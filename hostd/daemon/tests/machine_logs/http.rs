//! Forwarding over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::common::{Host, is_root, wait_until};
use super::{KernelLog, argument, configure, status, texts};
use serde_json::Value;

/// A server that takes lines, and refuses the first requests.
struct Sink {
    address: String,
    lines: Arc<Mutex<Vec<Value>>>,
    refusals: Arc<Mutex<usize>>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap().to_string(),
            lines: Arc::default(),
            refusals: Arc::new(Mutex::new(2)),
        };
        let (lines, refusals) = (Arc::clone(&sink.lines), Arc::clone(&sink.refusals));
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (lines, refusals) = (Arc::clone(&lines), Arc::clone(&refusals));
                std::thread::spawn(move || serve(stream, &lines, &refusals));
            }
        });
        sink
    }
}

fn serve(mut stream: TcpStream, lines: &Mutex<Vec<Value>>, refusals: &Mutex<usize>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            (reader.read_line(&mut head).ok()? > 0).then_some(())?;
        }
        assert!(
            head.starts_with("POST /ingest?from=test HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("application/x-ndjson"), "{head}");
        let lower = head.to_ascii_lowercase();
        let length = lower
            .split("content-length: ")
            .nth(1)?
            .lines()
            .next()?
            .parse()
            .ok()?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut refusals = refusals.lock().unwrap();
        let answer = if *refusals > 0 {
            *refusals -= 1;
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nnot today"
        } else {
            let body = String::from_utf8(body).unwrap();
            let values = body.lines().map(|line| serde_json::from_str(line).unwrap());
            lines.lock().unwrap().extend(values);
            "HTTP/1.1 204 No Content\r\n\r\n"
        };
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

#[test]
fn documents_arrive_after_refusals_and_restarts() {
    if !is_root() {
        return;
    }
    let sink = Sink::start();
    let mut kernel = KernelLog::new();
    let path = kernel.path();
    let mut host = Host::start_with(&["--kernel-log", argument(&path)]);
    let target = format!(
        "[[logs.forward]]\nname = 'sink'\ntarget = 'http://{}/ingest?from=test'\nunits = ['kernel']\n",
        sink.address
    );
    configure(&mut host, &target);
    for number in 0..500 {
        kernel.write(6, &format!("line {number}"));
    }
    kernel.write(7, "for finding errors");
    let arrived = || -> Vec<String> {
        let lines = sink.lines.lock().unwrap();
        lines
            .iter()
            .map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    };
    wait_until("all lines arrived", || {
        arrived().contains(&"line 499".to_owned())
    });
    let wanted: Vec<String> = (0..500).map(|number| format!("line {number}")).collect();
    assert_eq!(arrived(), wanted);
    let log = host.log();
    assert!(
        log.contains("answered 503 Service Unavailable: not today"),
        "{log}"
    );
    {
        let lines = sink.lines.lock().unwrap();
        assert_eq!(lines[0]["unit"], "kernel");
        assert_eq!(lines[0]["priority"], "info");
    }
    wait_until("it is up to date", || {
        let target = status(&host)["forward"][0].clone();
        target["state"] == "connected" && target["caught_up"] == true && target["error"].is_null()
    });

    // The position is kept: nothing comes twice.
    host.stop_daemon();
    kernel.write(6, "after the restart");
    kernel.begin_again();
    host.start_daemon();
    wait_until("the new line arrived", || arrived().len() > 500);
    assert_eq!(arrived()[500..], ["after the restart"]);
    assert_eq!(texts(&host, "unit=kernel").len(), 502);
}

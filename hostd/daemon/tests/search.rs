//! `docker search` against a small index of the test's own.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use common::{Host, is_root};

const RESULTS: &str = r#"{"num_results":3,"query":"box","results":[
    {"name":"box","description":"The box","star_count":30,"is_official":true,"is_automated":true},
    {"name":"team/box","description":null,"star_count":7,"is_official":false},
    {"name":"other/box","description":"x","star_count":0,"is_official":false}]}"#;

/// Answers searches, and sends the requests to the channel.
fn index() -> (u16, Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asked, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &asked);
        }
    });
    (port, heads)
}

fn answer(mut stream: TcpStream, asked: &Sender<Vec<String>>) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    // A client that speaks TLS sends no lines.
    let Some(request) = head.first() else {
        return;
    };
    let (status, body) = match request {
        line if line.starts_with("GET /v1/search?q=box&") => ("200 OK", RESULTS),
        line if line.starts_with("GET /v1/search?q=bad&") => ("200 OK", "<html>"),
        _ => ("404 Not Found", ""),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = asked.send(head);
}

#[test]
fn repositories_are_found() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let (port, heads) = index();
    let term = format!("localhost:{port}/box");
    let search = |arguments: &[&str]| {
        let format = [
            "search",
            "--format={{.Name}} {{.StarCount}} {{.IsOfficial}}",
        ];
        host.docker(&[&format, arguments, &[&term]].concat()).ok()
    };
    assert_eq!(
        search(&["--limit=9"]),
        "box 30 [OK]\nteam/box 7 \nother/box 0"
    );
    let head = heads.recv().unwrap();
    assert_eq!(head[0], "GET /v1/search?q=box&n=9 HTTP/1.1");
    assert!(
        !head
            .iter()
            .any(|line| line.to_lowercase().starts_with("authorization"))
    );
    assert_eq!(
        search(&["--filter=stars=7", "--filter=is-official=false"]),
        "team/box 7"
    );
    assert_eq!(search(&["--filter=is-official=true"]), "box 30 [OK]");
    assert_eq!(search(&["--filter=is-automated=true"]), "");

    // Credentials for the registry go with it.
    let login = "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==";
    while heads.try_recv().is_ok() {}
    let (status, _) = host.http(&format!(
        "GET /images/search?term=localhost:{port}%2Fbox HTTP/1.1\r\nHost: x\r\n\
         X-Registry-Auth: {login}\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(status, 200);
    let head = heads.recv().unwrap();
    assert!(
        head.iter()
            .any(|line| line.to_lowercase() == "authorization: basic dtpw"),
        "{head:?}"
    );

    // An invalid login counts as none, as in Docker.
    while heads.try_recv().is_ok() {}
    let (status, _) = host.http(&format!(
        "GET /images/search?term=localhost:{port}%2Fbox HTTP/1.1\r\nHost: x\r\n\
         X-Registry-Auth: garbage\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(status, 200);
    let head = heads.recv().unwrap();
    let login = |line: &String| line.to_lowercase().starts_with("authorization");
    assert!(!head.iter().any(login), "{head:?}");
}

#[test]
fn bad_searches_are_refused() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let (port, _heads) = index();
    for (query, status, text) in [
        ("term=", 400, "term"),
        (
            "term=x&limit=101",
            400,
            "limit 101 is outside the range of [1, 100]",
        ),
        (
            "term=x&filters=%7B%22a%22:[%22b%22]%7D",
            400,
            "invalid filter 'a'",
        ),
        (
            "term=x&filters=%7B%22stars%22:[%22b%22]%7D",
            400,
            "invalid filter 'stars=b'",
        ),
        ("term=https://x/y", 400, "should not have a scheme"),
    ] {
        let (found, body) = host.get(&format!("/images/search?{query}"));
        assert_eq!(found, status, "{query}: {body}");
        assert!(body.contains(text), "{query}: {body}");
    }
    for term in ["bad", "none"] {
        let (status, body) = host.get(&format!("/images/search?term=localhost:{port}/{term}"));
        assert!(status >= 500, "{term}: {status} {body}");
        assert!(body.contains(&format!("localhost:{port}")), "{body}");
    }
}

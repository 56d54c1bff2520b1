//! Files of containers: `docker cp`, and the requests behind it.

mod common;
#[path = "copy/swap.rs"]
mod swap;

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use common::{Host, is_root, wait_until};
use serde_json::Value;

/// A request with a body; the status and the body of the answer.
fn put(host: &Host, path: &str, body: &[u8]) -> (u16, String) {
    use std::io::Write;
    let mut stream = std::os::unix::net::UnixStream::connect(host.socket()).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The body of an early refused request may not be read.
    let _ = stream.write_all(body);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}

fn message(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}"));
    value["message"].as_str().unwrap().to_owned()
}

/// The header that describes the file at a path.
fn stat(host: &Host, container: &str, path: &str) -> Value {
    let (head, _) = host.exchange(&format!(
        "HEAD /v1.51/containers/{container}/archive?path={path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    ));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let header = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("X-Docker-Container-Path-Stat")
                .then_some(value)
        })
        .unwrap();
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(header.trim())
        .unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// An archive of one file.
pub fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o4751);
    header.set_uid(1234);
    header.set_gid(4321);
    header.set_mtime(1_000_000_000);
    builder.append_data(&mut header, name, content).unwrap();
    builder.into_inner().unwrap()
}

/// Owner and group of each file of a copy, from the archive: the command makes its caller the owner
/// of unpacked files.
fn owners(host: &Host, source: &str) -> Vec<(PathBuf, u64, u64)> {
    let copied = host.docker_command(&["cp", source, "-"]).output().unwrap();
    let mut copied = tar::Archive::new(&copied.stdout[..]);
    let entries = copied.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let path = entry.path().unwrap().into_owned();
        (path, header.uid().unwrap(), header.gid().unwrap())
    });
    entries.collect()
}

const MAKE: &str = "mkdir -p /made/sub /var/there; echo text > /made/file; ln /made/file /made/link; \
     ln -s /made/file /absolute; ln -s made /relative; ln -s /nowhere/x /dangling; \
     chown 12:34 /made/file; chmod 4750 /made/file; touch -d '2001-02-03 04:05:06' /made/file; \
     mkfifo /made/pipe; mknod /made/null c 1 3; echo in > /tmp/memory; echo vol > /vol/file";

fn make(host: &Host, name: &str, arguments: &[&str], end: &str) {
    let start = [
        "run",
        "-d",
        "--network=none",
        "--tmpfs=/tmp",
        "--name",
        name,
    ];
    let script = format!("{MAKE}; echo ready; {end}");
    let command = ["busybox", "sh", "-c", &script];
    host.docker(&[&start, arguments, &command].concat()).ok();
    wait_until("the files are made", || {
        host.docker(&["logs", name]).ok().contains("ready")
    });
}

#[test]
fn files_go_out_and_in_of_running_and_stopped_containers() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let bind = format!("-v={}:/vol", shared.display());
    make(&host, "runs", &[&bind], "exec sleep 1000");
    make(&host, "ended", &[&bind], "true");
    host.docker(&["wait", "ended"]).ok();
    for name in ["runs", "ended"] {
        let file = stat(&host, name, "/made/file");
        assert_eq!(file["name"], "file");
        assert_eq!(file["size"], 5);
        assert_eq!(file["mode"], 1 << 23 | 0o750);
        assert_eq!(file["mtime"], "2001-02-03T04:05:06Z");
        assert_eq!(file["linkTarget"], "");
        let link = stat(&host, name, "/absolute");
        assert_eq!(link["mode"], 1 << 27 | 0o777);
        assert_eq!(link["linkTarget"], "/made/file");
        assert_eq!(stat(&host, name, "/dangling")["linkTarget"], "/nowhere/x");
        assert_eq!(
            stat(&host, name, "/relative/")["mode"],
            (1u32 << 31) | 0o755
        );
        assert_eq!(stat(&host, name, "/")["name"], "/");

        // Out.
        let out = host.path().join(format!("out-{name}"));
        fs::create_dir(&out).unwrap();
        let to = out.to_str().unwrap();
        host.docker(&["cp", "-a", &format!("{name}:/made"), to])
            .ok();
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let file = fs::metadata(out.join("made/file")).unwrap();
        assert!(owners(&host, &format!("{name}:/made")).contains(&("made/file".into(), 12, 34)));
        assert_eq!(file.mode() & 0o7777, 0o4750);
        assert_eq!(file.mtime(), 981_173_106);
        assert_eq!(
            file.ino(),
            fs::metadata(out.join("made/link")).unwrap().ino()
        );
        let pipe = fs::metadata(out.join("made/pipe")).unwrap();
        assert!(pipe.file_type().is_fifo());
        let null = fs::metadata(out.join("made/null")).unwrap();
        assert_eq!(null.rdev(), rustix::fs::makedev(1, 3));
        host.docker(&["cp", "-L", &format!("{name}:/absolute"), to])
            .ok();
        assert_eq!(fs::read_to_string(out.join("absolute")).unwrap(), "text\n");
        host.docker(&["cp", &format!("{name}:/vol/file"), to]).ok();
        assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "vol\n");
        let tar = host.docker(&["cp", &format!("{name}:/made/sub/."), "-"]);
        assert!(tar.stdout.starts_with("./"), "{:?}", tar.stdout);
        let (_, text) = host.get(&format!("/containers/{name}/archive?path=/"));
        assert!(text.contains("/made/file") && !text.contains("/proc/1/"));

        // In: into a directory behind an absolute link, into a bind mount, and with a new name.
        let local = host.path().join("local");
        fs::write(&local, name).unwrap();
        let from = local.to_str().unwrap();
        host.docker(&["cp", from, &format!("{name}:/relative/sub/new")])
            .ok();
        host.docker(&["cp", from, &format!("{name}:/vol/of-{name}")])
            .ok();
        assert_eq!(
            fs::read_to_string(shared.join(format!("of-{name}"))).unwrap(),
            name
        );
        host.docker(&["cp", &format!("{name}:/made/sub/new"), to])
            .ok();
        assert_eq!(fs::read_to_string(out.join("new")).unwrap(), name);
        host.docker_with(
            &["cp", "-", &format!("{name}:/made")],
            &archive("deep/er/set", b"uid"),
        )
        .ok();
        host.docker(&["cp", "-a", &format!("{name}:/made/deep"), to])
            .ok();
        let set = fs::metadata(out.join("deep/er/set")).unwrap();
        assert!(owners(&host, &format!("{name}:/made/deep")).contains(&(
            "deep/er/set".into(),
            1234,
            4321
        )));
        assert_eq!((set.mode() & 0o7777, set.mtime()), (0o4751, 1_000_000_000));
    }
    // Only a running container has files in memory.
    let out = host.docker(&["cp", "runs:/tmp/memory", "-"]).ok();
    assert!(out.contains("memory"));
    host.docker(&["cp", "ended:/tmp/memory", "-"])
        .fails_with("Could not find the file /tmp/memory in container ended");
    // A stopped container runs again with the copied files.
    host.docker(&["start", "ended"]).ok();
    host.docker(&["wait", "ended"]).ok();
    host.docker(&["cp", "ended:/made/sub/new", "-"]).ok();
    let actions: Vec<String> = host
        .events_of("container")
        .iter()
        .map(|event| event["Action"].as_str().unwrap().to_owned())
        .collect();
    assert!(actions.iter().any(|action| action == "archive-path"));
    assert!(actions.iter().any(|action| action == "extract-to-dir"));
    host.docker(&["rm", "-f", "runs", "ended"]).ok();
}

#[test]
fn refusals_have_dockers_words() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let bind = format!("-v={}:/vol:ro", shared.display());
    for name in ["runs", "ended"] {
        let script = if name == "runs" {
            "exec sleep 1000"
        } else {
            "true"
        };
        host.docker(&[
            "run",
            "-d",
            "--network=none",
            "--read-only",
            &bind,
            "--name",
            name,
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
        if name == "ended" {
            host.docker(&["wait", name]).ok();
        }
        let file = archive("x", b"x");
        for (query, status, words) in [
            (
                "path=/etc",
                400,
                "container rootfs is marked read-only".to_owned(),
            ),
            (
                "path=/vol",
                400,
                "mounted volume is marked read-only".to_owned(),
            ),
            (
                "path=/etc/passwd",
                400,
                "extraction point is not a directory".to_owned(),
            ),
            (
                "path=/no",
                404,
                format!("Could not find the file /no in container {name}"),
            ),
            ("", 400, "bad parameter: path cannot be empty".to_owned()),
        ] {
            let path = format!("/v1.51/containers/{name}/archive?{query}");
            let (found, body) = put(&host, &path, &file);
            assert_eq!((found, message(&body)), (status, words), "{query}");
        }
        let (status, body) = host.get(&format!("/containers/{name}/archive?path=/no/x"));
        assert_eq!(status, 404);
        assert_eq!(
            message(&body),
            format!("Could not find the file /no/x in container {name}")
        );
    }
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    host.docker(&["rm", "-f", "runs", "ended"]).ok();
    host.docker(&["create", "--network=none", "--name=it", "busybox", "true"])
        .ok();
    let path = "/v1.51/containers/it/archive?path=/tmp";
    for (body, words) in [
        (&b"no archive at all, but long enough"[..], "can't be read"),
        (&archive("x", &[7; 400])[..700], "can't be read"),
        (&b"\x04\x22\x4d\x18\x64\x40\xa7"[..], "lz4"),
    ] {
        let (status, answer) = put(&host, path, body);
        assert_eq!(status, 400, "{answer}");
        assert!(message(&answer).contains(words), "{answer}");
    }
    let mut outside = archive("aa/aa/x", b"x");
    outside[..7].copy_from_slice(b"../../x");
    let sum: u32 = outside[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    outside[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let (status, answer) = put(&host, path, &outside);
    assert_eq!(
        (status, message(&answer).contains("outside")),
        (400, true),
        "{answer}"
    );
    // A directory and a file never replace each other when the client says so.
    let keep = "/v1.51/containers/it/archive?path=/&noOverwriteDirNonDir=1";
    let (status, answer) = put(&host, keep, &archive("etc", b"x"));
    assert_eq!(status, 400);
    assert!(
        message(&answer).starts_with("cannot overwrite directory"),
        "{answer}"
    );
    host.docker(&["rm", "it"]).ok();
}

#[test]
fn slow_clients_hold_nobody_up() {
    if !is_root() {
        return;
    }
    use std::io::Write;
    let mut host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "--network=none",
        "--name=it",
        "busybox",
        "sh",
        "-c",
        "head -c 50000000 /dev/zero | tr '\\0' x > /big",
    ])
    .ok();
    let connect = || std::os::unix::net::UnixStream::connect(host.socket()).unwrap();
    // One client reads nothing, one sends only the beginning.
    let mut reads = connect();
    reads
        .write_all(b"GET /containers/it/archive?path=/ HTTP/1.1\r\nHost: d\r\n\r\n")
        .unwrap();
    let mut writes = connect();
    let body = archive("half", &[7; 2000]);
    writes
        .write_all(b"PUT /containers/it/archive?path=/ HTTP/1.1\r\nHost: d\r\nContent-Length: 4000\r\n\r\n")
        .unwrap();
    writes.write_all(&body[..1500]).unwrap();
    host.docker(&["inspect", "it"]).ok();
    // The start has priority, and the writing client gets the reason.
    host.docker(&["start", "it"]).ok();
    let mut answer = [0; 12];
    writes.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 409");
    host.docker(&["stop", "-t0", "it"]).ok();
    // A hostd that was started later finds the container's files.
    host.docker(&[
        "run",
        "-d",
        "--network=none",
        "--name=lives",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host.kill_daemon();
    host.start_daemon();
    host.docker(&["cp", "lives:/etc/passwd", "-"]).ok();
    host.docker_with(&["cp", "-", "lives:/tmp"], &archive("x", b"x"))
        .ok();
    host.docker(&["exec", "lives", "cat", "/tmp/x"]).ok();
    host.docker(&["rm", "-f", "it", "lives"]).ok();
}

/// An archive of a file with a hole, extended attributes and an owner.
fn detailed() -> Vec<u8> {
    let mut records = Vec::new();
    let mut record = |name: &str, value: &[u8]| {
        let rest = [format!(" {name}=").as_bytes(), value, b"\n"].concat();
        let digits = (1..9).find(|digits| (rest.len() + digits).to_string().len() == *digits);
        records.extend((rest.len() + digits.unwrap()).to_string().into_bytes());
        records.extend(rest);
    };
    record("SCHILY.xattr.user.note", b"kept");
    record("SCHILY.xattr.trusted.other", b"too");
    // Eight bytes at the beginning and at the end, and nothing in between.
    record("GNU.sparse.major", b"1");
    record("GNU.sparse.minor", b"0");
    record("GNU.sparse.name", b"file");
    record("GNU.sparse.realsize", b"4194304");
    let mut map = b"2\n0\n8\n4194296\n8\n".to_vec();
    map.resize(512, 0);
    let content = [&map[..], b"beginnin", b"the end."].concat();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(records.len() as u64);
    builder
        .append_data(&mut header, "pax", &records[..])
        .unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    header.set_uid(3);
    header.set_gid(4);
    builder
        .append_data(&mut header, "file", &content[..])
        .unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn attributes_holes_and_owners_are_kept() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let host = Host::start();
    host.load_busybox();
    host.docker(&[
        "run",
        "-d",
        "--network=none",
        "--user=9:8",
        "--name=it",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    let id = host.docker(&["inspect", "-f", "{{.Id}}", "it"]).ok();
    let upper = host
        .path()
        .join("root/engine/containers")
        .join(&id)
        .join("upper");
    for (number, (state, more, owner)) in [
        ("running", "", (3, 4)),
        ("running", "&copyUIDGID=1", (9, 8)),
        ("stopped", "", (3, 4)),
        ("stopped", "&copyUIDGID=true", (9, 8)),
    ]
    .into_iter()
    .enumerate()
    {
        if number == 2 {
            host.docker(&["stop", "-t=0", "it"]).ok();
        }
        let (status, body) = put(
            &host,
            &format!("/containers/it/archive?path=/{more}"),
            &detailed(),
        );
        assert_eq!(status, 200, "{state} {more}: {body}");
        let file = upper.join("file");
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.gid()), owner, "{state} {more}");
        assert_eq!((found.len(), found.mode() & 0o7777), (4_194_304, 0o640));
        assert!(found.blocks() < 64, "{state}: {} blocks", found.blocks());
        let content = fs::read(&file).unwrap();
        assert!(content.starts_with(b"beginnin\0") && content.ends_with(b"\0the end."));
        for (name, value) in [("user.note", &b"kept"[..]), ("trusted.other", b"too")] {
            let mut buffer = [0; 16];
            let length = rustix::fs::getxattr(&file, name, &mut buffer[..]).unwrap();
            assert_eq!(&buffer[..length], value, "{state} {name}");
        }
        // Out again: the same, and no longer than what is in it.
        let out = host
            .docker_command(&["cp", "it:/file", "-"])
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        assert!(out.stdout.len() < 65_536, "{}", out.stdout.len());
        let text = String::from_utf8_lossy(&out.stdout);
        for word in [
            "SCHILY.xattr.user.note=kept",
            "SCHILY.xattr.trusted.other=too",
            "GNU.sparse.realsize=4194304",
        ] {
            assert!(text.contains(word), "{state} {word}");
        }
        fs::remove_file(host.path().join("out")).ok();
        let to = host.path().join("out");
        host.docker(&["cp", "it:/file", to.to_str().unwrap()]).ok();
        assert_eq!(fs::read(&to).unwrap(), content, "{state}");
    }
}

/// The image has neither file, or a link that leads nowhere.
#[test]
fn files_of_runs_are_there_before_the_first_start() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["create", "--name=new", "--network=none", "busybox", "true"])
        .ok();
    for name in ["hosts", "hostname", "resolv.conf"] {
        let file = stat(&host, "new", &format!("/etc/{name}"));
        assert_eq!((&file["name"], &file["size"]), (&name.into(), &0.into()));
    }
    assert_eq!(host.docker(&["diff", "new"]).ok(), "");

    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    link.append_link(&mut header, "resolv.conf", "../run/nowhere")
        .unwrap();
    host.docker_with(&["cp", "-", "new:/etc"], &link.into_inner().unwrap())
        .ok();
    for _ in 0..2 {
        let shown = stat(&host, "new", "/etc/resolv.conf");
        assert_eq!(shown["linkTarget"], "/run/nowhere");
        host.docker(&["cp", "new:/etc/passwd", "-"]).ok();
        host.docker(&["start", "-a", "new"]).ok();
    }
    host.docker(&["rm", "new"]).ok();
}

//! Archives as clients send and fetch them: compressed in every way, from a server, refused early.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use common::{Host, image, is_root, run};

/// The compressed form of bytes.
fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A server that answers each request with the same file.
fn serve(file: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = match head.starts_with(b"GET /file ") {
                true => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len()),
                false => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            };
            // A client may go away.
            let _ = stream.write_all(head.as_bytes());
            if head.starts_with("HTTP/1.1 200") {
                let _ = stream.write_all(&file);
            }
        }
    });
    address
}

#[test]
fn archives_may_be_compressed() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    for program in ["gzip", "xz", "bzip2", "zstd"] {
        let archive = compressed(program, &image::busybox("packed:1"));
        let loaded = host.docker_with(&["load"], &archive).ok();
        assert_eq!(loaded, "Loaded image: packed:1", "{program}");
        let rootfs = compressed(program, &image::rootfs());
        host.docker_with(&["import", "-", "imported"], &rootfs).ok();
        let said = host.docker(&["run", "--rm", "--network=none", "imported", "echo", program]);
        assert_eq!(said.ok(), program);
        host.docker(&["rmi", "packed:1", "imported"]).ok();
    }
}

#[test]
fn an_archive_is_imported_from_its_address() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let address = serve(compressed("gzip", &image::rootfs()));
    let url = format!("http://{address}/file");
    let said = host.docker(&["import", "-m=by the net", "-c=CMD echo came", &url, "got:1"]);
    let said = said.ok();
    assert!(said.contains(&format!("Downloading from {url}")), "{said}");
    let id = said.lines().last().unwrap();
    assert_eq!(
        host.docker(&["images", "-q", "--no-trunc", "got:1"]).ok(),
        id
    );
    assert_eq!(
        host.docker(&["run", "--rm", "--network=none", "got:1"])
            .ok(),
        "came"
    );
    host.docker(&["import", &url, "named"]).ok();
    let comment = host.docker(&["inspect", "-f={{.Comment}}", "named"]).ok();
    assert_eq!(comment, format!("Imported from {url}"));
    for (source, words) in [
        (format!("http://{address}/other"), "with status 404"),
        ("https://127.0.0.1:1/x".to_owned(), "connection refused"),
    ] {
        host.docker(&["import", &source, "none"]).fails_with(words);
    }
    // Nothing is fetched when the rest of the request is wrong.
    host.docker(&["import", "-c=RUN true", &url, "none"])
        .fails_with("run is not a valid change command");
    let list = host.docker(&["images", "-q", "none"]).ok();
    assert_eq!(list, "");
}

#[test]
fn refusals_arrive_although_the_client_still_sends() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    // Much more than fits into a socket.
    let mut seed = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    })
    .take(24 << 20)
    .collect();
    for (arguments, words) in [
        (
            &["import", "-c=RUN true", "-"][..],
            "run is not a valid change command",
        ),
        (
            &["import", "--platform=bogus", "-"],
            "unknown operating system or architecture",
        ),
        (&["import", "-", "Upper"], "must be lowercase"),
        (&["import", "-"], "tar header"),
        (&["load"], "tar header"),
        (&["load", "--platform=linux/s390x"], "tar header"),
    ] {
        host.docker_with(arguments, &noise).fails_with(words);
    }
    assert_eq!(host.docker(&["images", "-aq"]).ok(), "");
}

#[test]
fn platforms_of_imports_are_read_as_elsewhere() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    for (asked, wanted) in [
        ("arm64", "linux/arm64/"),
        ("linux/aarch64", "linux/arm64/"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
    ] {
        let platform = format!("--platform={asked}");
        host.docker_with(&["import", &platform, "-", "other"], &image::rootfs())
            .ok();
        let format = "-f={{.Os}}/{{.Architecture}}/{{.Variant}}";
        let shown = host.docker(&["image", "inspect", format, "other"]);
        assert_eq!(shown.ok(), wanted, "{asked}");
    }
    host.docker_with(&["import", "--platform=windows", "-"], &image::rootfs())
        .fails_with("only linux is");
}

#[test]
fn a_load_takes_only_the_platform_that_is_asked_for() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    host.docker_with(
        &["import", "--platform=linux/arm64", "-", "arm:1"],
        &image::rootfs(),
    )
    .ok();
    host.load_busybox();
    let own = host.docker(&[
        "image",
        "inspect",
        "-f={{.Os}}/{{.Architecture}}",
        "busybox",
    ]);
    let own = own.ok();
    let file = host.path().join("both.tar");
    let file = file.to_str().unwrap();
    host.docker(&["save", "-o", file, "arm:1", "busybox"]).ok();
    let load = |platform: &str| {
        host.docker(&["image", "prune", "-af"]).ok();
        host.docker(&["load", &format!("--platform={platform}"), "-i", file])
    };
    assert_eq!(load("linux/arm64").ok(), "Loaded image: arm:1");
    assert_eq!(load(&own).ok(), "Loaded image: busybox:latest");
    load("linux/s390x").fails_with("no image for the specified platform (linux/s390x)");
    assert_eq!(host.docker(&["images", "-q"]).ok(), "");
}

#[test]
fn saved_archives_list_their_repositories() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["tag", "busybox", "team/app:1"]).ok();
    let file = host.path().join("saved.tar");
    let file = file.to_str().unwrap();
    host.docker(&["save", "-o", file, "busybox", "team/app"])
        .ok();
    let text = run(Command::new("tar").args(["xOf", file, "repositories"]), b"").ok();
    let repositories: serde_json::Value = serde_json::from_str(&text).unwrap();
    let top = &repositories["busybox"]["latest"];
    assert_eq!(top.as_str().map(str::len), Some(64), "{text}");
    assert_eq!(&repositories["team/app"]["1"], top);
}

#[test]
fn a_load_keeps_what_is_known_and_says_what_it_takes() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let id = |name: &str| host.docker(&["image", "inspect", "-f={{.Id}}", name]).ok();
    let parent = |name: &str| {
        host.docker(&["image", "inspect", "-f={{.Parent}}", name])
            .ok()
    };
    host.docker(&["create", "--name=one", "busybox"]).ok();
    host.docker(&["commit", "one", "father"]).ok();
    host.docker(&["create", "--name=two", "father"]).ok();
    host.docker(&["commit", "two", "son"]).ok();
    host.docker(&["rm", "one", "two"]).ok();
    let file = host.path().join("family.tar");
    let file = file.to_str().unwrap();
    host.docker(&["save", "-o", file, "father", "son"]).ok();
    let (old, father) = (id("busybox"), id("father"));
    host.docker(&["rmi", "son"]).ok();
    host.docker(&["tag", "busybox", "son"]).ok();
    let said = host.docker(&["load", "-i", file]).ok();
    let words = format!(
        "The image son:latest already exists, renaming the old one with ID {old} to empty string"
    );
    assert!(said.contains(&words), "{said}");
    assert_eq!((parent("son"), parent("father")), (father.clone(), old));
    // Where nothing of them is known, one is the other's parent still.
    host.docker(&["rmi", "-f", "son", "father", "busybox"]).ok();
    host.docker(&["load", "-i", file]).ok();
    assert_eq!((parent("son"), parent("father")), (father, String::new()));
}

#[test]
fn a_layer_may_be_a_file_without_content() {
    if !is_root() {
        return;
    }
    let host = Host::start();
    let said = host.docker_with(&["load"], &image::archive("nothing:1", b"", None));
    assert_eq!(said.ok(), "Loaded image: nothing:1");
    let layers = host.docker(&["image", "inspect", "-f={{len .RootFS.Layers}}", "nothing:1"]);
    assert_eq!(layers.ok(), "1");
    host.docker(&["rmi", " "])
        .fails_with("image name cannot be blank");
}

#[test]
fn names_that_cannot_be_kept_are_refused() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    host.docker(&["tag", "busybox", "sha256:1"])
        .fails_with("refusing to create an ambiguous tag using digest algorithm as name");
    host.docker(&["pull", "scratch"])
        .fails_with("'scratch' is a reserved name");
    host.docker(&["push", "busybox:none"])
        .fails_with("tag does not exist: busybox:none");
    host.docker(&["push", "nothing:1"])
        .fails_with("An image does not exist locally with the tag: nothing");
    host.docker(&["images", "--filter=reference=["])
        .fails_with("syntax error in pattern");
    assert_eq!(
        host.docker(&["images", "-q", "--filter=reference=[a-c]usy*"])
            .ok()
            .lines()
            .count(),
        1
    );
    host.docker(&["images", "--filter=dangling=perhaps"])
        .fails_with("invalid filter 'dangling=[perhaps]'");
}

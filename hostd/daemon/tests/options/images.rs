//! `--mount type=image`: the files of an image in a container of another image.

use super::common::{Host, is_root};

/// An image of several layers. The last one removes a file.
fn make_images(host: &Host) {
    host.load_busybox();
    let step = |from: &str, script: &str, to: &str| {
        host.docker(&["run", "--name", "step", from, "sh", "-c", script])
            .ok();
        host.docker(&["commit", "step", to]).ok();
        host.docker(&["rm", "step"]).ok();
    };
    let script = "mkdir /data && echo kept >/data/kept && echo gone >/data/gone && \
        ln -s /data/kept /data/link && ln -s ../../etc /data/up";
    step("busybox", script, "below");
    step("below", "rm /data/gone && echo new >/data/new", "files");
    host.docker(&["rmi", "below"]).ok();
}

#[test]
fn an_image_is_mounted_read_only() {
    if !is_root() {
        return;
    }
    let mut host = Host::start();
    make_images(&host);
    let whole = "type=image,source=files,target=/mnt/image";
    let run = |mount: &str, script: &str| {
        host.docker(&[
            "run", "--rm", "--mount", mount, "busybox", "sh", "-c", script,
        ])
    };
    let seen = run(whole, "cd /mnt/image/data && ls && cat kept new").ok();
    assert_eq!(seen.replace('\n', " "), "kept link new up kept new");
    let written = run(whole, "echo x >/mnt/image/data/x");
    assert!(written.stderr.contains("Read-only"), "{}", written.stderr);

    let part = |path: &str| format!("type=image,source=files,target=/part,image-subpath={path}");
    assert_eq!(run(&part("data"), "cat /part/new").ok(), "new");
    assert_eq!(run(&part("data/kept"), "cat /part").ok(), "kept");
    // Links lead to files in the image, never out of it.
    assert_eq!(run(&part("data/link"), "cat /part").ok(), "kept");
    run(&part("data/up"), "test -e /part/passwd").ok();
    let missing = run(&part("data/none"), "true");
    assert!(
        missing.stderr.contains("o such file or directory"),
        "{}",
        missing.stderr
    );

    // It is adopted, and `docker cp` sees its files.
    let args = [
        "run", "-d", "--name", "one", "--mount", whole, "busybox", "sleep", "1000",
    ];
    host.docker(&args).ok();
    host.kill_daemon();
    host.start_daemon();
    let cat = ["exec", "one", "cat", "/mnt/image/data/new"];
    assert_eq!(host.docker(&cat).ok(), "new");
    let format = "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}";
    let shown = host.docker(&["inspect", "-f", format, "one"]).ok();
    assert_eq!(shown, "image files /mnt/image false");
    host.docker(&["rmi", "files"]).fails_with("conflict");
    host.docker(&["stop", "-t", "0", "one"]).ok();
    let copy = ["cp", "one:/mnt/image/data/new", "-"];
    assert!(host.docker(&copy).ok().contains("new"));
    host.docker(&["rmi", "files"]).fails_with("conflict");
    host.docker(&["start", "one"]).ok();
    assert_eq!(host.docker(&cat).ok(), "new");
    host.docker(&["rm", "-f", "one"]).ok();
    host.docker(&["rmi", "files"]).ok();
}

#[test]
fn impossible_mounts_are_refused_at_creation() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let create = |mounts: &str| {
        let body = format!(r#"{{"Image":"busybox","HostConfig":{{"Mounts":[{mounts}]}}}}"#);
        host.send("POST", "/containers/create", &body)
    };
    let mount = |source: &str| format!(r#"{{"Type":"image","Source":"{source}","Target":"/i"}}"#);
    let twice = format!("{0},{0}", mount("busybox"));
    for (mounts, words) in [
        (mount("unheard"), "No such image: unheard"),
        (mount(""), "field Source must not be empty"),
        (twice, "Duplicate mount point: /i"),
    ] {
        let (status, message) = create(&mounts);
        assert_eq!(status, 400, "{message}");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(create(&mount("busybox")).0, 201);
}

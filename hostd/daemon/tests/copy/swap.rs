//! Containers that exchange parts of paths while files are copied: nothing outside is reached.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{Host, wait_until};

/// How long each is tried.
const TIME: Duration = Duration::from_secs(3);

#[test]
fn swapped_paths_lead_nowhere() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    // A file that must not be reached, at a path that exists only on the host.
    let outside = host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "of the host").unwrap();
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let target = outside.to_str().unwrap();
    // A directory becomes a link that leads outside on the host, and comes back.
    let script = format!(
        "mkdir -p /a/real /a/deep/b; ln -s {target} /a/evil; ln -s ../../../../../../../..{target} /a/climb; \
         echo ready; while :; do \
         mv /a/real /a/x; mv /a/evil /a/real; mv /a/real /a/evil; \
         mv /a/climb /a/real; mv /a/real /a/climb; mv /a/x /a/real; \
         mv /a/deep /a/y; ln -s {target} /a/deep; rm /a/deep; mv /a/y /a/deep; done"
    );
    let bind = format!("-v={}:/a/deep/b", shared.display());
    host.docker(&[
        "run",
        "-d",
        "--network=none",
        "--name=it",
        &bind,
        "busybox",
        "sh",
        "-c",
        &script,
    ])
    .ok();
    wait_until("the container swaps", || {
        host.docker(&["logs", "it"]).ok().contains("ready")
    });
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let begun = Instant::now();
    let mut answers = [0, 0];
    let file = super::archive("planted", b"by the client");
    while begun.elapsed() < TIME {
        for path in [
            "/a/real",
            "/a/real/secret",
            "/a/evil/secret",
            "/a/deep",
            "/a/deep/b",
        ] {
            let (status, body) = host.get(&format!("/containers/it/archive?path={path}"));
            assert!(!body.contains("of the host"), "{path}");
            answers[usize::from(status == 200)] += 1;
        }
        for path in ["/a/real", "/a/evil", "/a/climb", "/a/deep", "/a/deep/b"] {
            let path = format!("/containers/it/archive?path={path}");
            let (status, _) = super::put(&host, &path, &file);
            answers[usize::from(status == 200)] += 1;
        }
    }
    assert!(answers[1] > 0, "{answers:?}");
    let names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(
        fs::read_to_string(outside.join("secret")).unwrap(),
        "of the host"
    );
    let own = |text: &str| {
        let of_host = host.path().to_string_lossy().into_owned();
        text.lines().filter(|line| line.contains(&of_host)).count()
    };
    assert_eq!(
        own(&mounts()),
        own(&before),
        "nothing is mounted on the host"
    );
    host.docker(&["rm", "-f", "it"]).ok();
}

/// A stopped container whose mount points were exchanged for links while it ran.
#[test]
fn mount_points_that_are_links_stay_inside() {
    let Some(host) = Host::with_busybox() else {
        return;
    };
    let outside = host.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let shared = host.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "shared").unwrap();
    let target = outside.to_str().unwrap();
    let bind = format!("-v={}:/a/deep/b", shared.display());
    let script = format!("mv /a/deep /a/away; ln -s {target} /a/deep");
    host.docker(&[
        "run",
        "--network=none",
        "--name=it",
        &bind,
        "busybox",
        "sh",
        "-c",
        &script,
    ])
    .ok();
    let (status, body) = host.get("/containers/it/archive?path=/a/deep/b/file");
    assert!(status == 200 || status >= 400, "{status} {body}");
    let file = super::archive("planted", b"by the client");
    super::put(&host, "/containers/it/archive?path=/a/deep", &file);
    super::put(&host, "/containers/it/archive?path=/", &file);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    host.docker(&["rm", "it"]).ok();
}

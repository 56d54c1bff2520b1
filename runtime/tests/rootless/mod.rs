//! Podman, called by an ordinary user: the same steps with our runtime and with crun must have the
//! same results.
//!
//! The user exists only in a mount namespace, where the test has its own /etc/passwd and similar
//! files.

use std::path::Path;
use std::process::{Command, Output};

use crate::common;
use crate::common::consumer::installed;

/// A number that no user of the machine has, and the first of the other ids that it may map.
const USER: u32 = 54_321;
const FURTHER: u32 = 700_000;

/// Makes the namespace and becomes the user. `$HIDE` is a mount that crun can't handle, and that is
/// unmounted for it.
const ENTER: &str = r#"
set -e
mount --make-rprivate /
if [ -n "$HIDE" ]; then umount "$HIDE"; fi
for file in passwd group subuid subgid; do
    [ -e /etc/$file ] || touch /etc/$file
    mount --bind "$HOME/etc/$file" /etc/$file
done
cd "$HOME"
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups sh "$HOME/steps"
"#;

/// The user's steps. Each prints its name, its output and its exit code.
const STEPS: &str = r#"
podman() {
    command podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
        --runtime "$RUNTIME" "$@" 2>>"$HOME/errors"
}
step() { echo "== $1"; shift; "$@"; echo "-> $?"; }
run="run --network none"
root="--rootfs $HOME/rootfs"
step plain podman $run --rm $root sh -c 'id -u; id -g; cat /proc/self/uid_map | wc -l; exit 3'
step user podman $run --rm -u 1000:1000 $root sh -c 'id -u; id -g; echo again > /dev/stdout'
step keep-id podman $run --rm --userns=keep-id $root sh -c 'id -u; echo > /tmp/kept; stat -c %u /tmp/kept'
step tmpfs podman $run --rm --tmpfs /made:mode=700 $root sh -c 'stat -c %a /made; echo > /made/file'
step read-only podman $run --rm --read-only $root sh -c 'echo > /file 2>/dev/null || echo refused'
step device podman $run --rm --device /dev/zero:/dev/other $root sh -c 'head -c 4 /dev/other | wc -c'
step volume podman $run --rm -v "$HOME/etc:/mnt:ro" $root sh -c 'cat /mnt/subuid; echo > /mnt/new 2>/dev/null || echo refused'
step host-network podman run --network host --rm $root sh -c 'test -d /sys/class/net && echo seen'
step host-pid podman $run --pid host --rm $root sh -c 'readlink /proc/self/ns/pid | cut -c1-4'
step init podman $run --rm --hostname named $root hostname
step background podman $run -d --name one $root sh -c 'trap "exit 7" TERM; while :; do sleep 0.05; done' >/dev/null
step running podman inspect --format '{{.Name}} {{.State.Status}}' one
step exec podman exec one sh -c 'id -u; exit 4'
step exec-user podman exec -u 1000:1000 one sh -c 'id -u; echo again > /dev/stdout'
step exec-missing podman exec -w /missing one true
step stop podman stop -t 5 one
step stopped podman inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' one
step start podman start one
step kill podman kill one
step wait podman wait one
step rm podman rm one
step none podman ps -a -q
podman system migrate
"#;

fn prepare(directory: &Path) {
    std::fs::create_dir_all(directory.join("etc")).unwrap();
    std::fs::create_dir_all(directory.join("run")).unwrap();
    common::make_root(&directory.join("rootfs"));
    for (file, line) in [
        (
            "passwd",
            format!("tester:x:{USER}:{USER}::{}:/bin/sh\n", directory.display()),
        ),
        ("group", format!("tester:x:{USER}:\n")),
        ("subuid", format!("tester:{FURTHER}:65536\n")),
        ("subgid", format!("tester:{FURTHER}:65536\n")),
    ] {
        let own = std::fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
        // Only the first line of a number counts.
        std::fs::write(directory.join("etc").join(file), line + &own).unwrap();
    }
    std::fs::write(directory.join("steps"), STEPS).unwrap();
    // Locks in shared memory would outlive the test.
    let locks = "[engine]\nlock_type = \"file\"\n";
    std::fs::write(directory.join("containers.conf"), locks).unwrap();
    common::give(directory, USER);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(directory.join("run"), mode).unwrap();
}

fn steps(runtime: &Path, hide: &str) -> (Output, String) {
    // Sockets are below it, and their paths must be short.
    let directory = tempfile::Builder::new().prefix("pm").tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    let home = directory.path().join("u");
    prepare(&home);
    let output = Command::new("unshare")
        // Podman leaves processes behind that end a little later: they end with the first process.
        .args(["--mount", "--pid", "--fork", "--mount-proc"])
        .args(["timeout", "--kill-after=5", "240", "sh", "-c", ENTER])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", &home)
        .env("USER", "tester")
        .env("USER_ID", USER.to_string())
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("CONTAINERS_CONF", home.join("containers.conf"))
        .env("RUNTIME", runtime)
        .env("HIDE", hide)
        .output()
        .unwrap();
    let errors = std::fs::read_to_string(home.join("errors")).unwrap_or_default();
    (output, errors)
}

#[test]
fn podman_of_an_ordinary_user_does_the_same_with_ours_and_with_crun() {
    if !common::can_run() {
        return;
    }
    let programs = ["podman", "newuidmap", "setpriv", "unshare", "crun"].map(installed);
    if programs.iter().any(Option::is_none) {
        return;
    }
    // Not in the build directory, which the user may not be able to enter.
    let directory = tempfile::tempdir().unwrap();
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    let ours = directory.path().join("keelson-runtime");
    std::fs::copy(&*common::RUNTIME, &ours).unwrap();

    let (output, errors) = steps(&ours, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let context = String::from_utf8_lossy(&output.stderr).into_owned() + &errors;
    for wanted in [
        "== plain\n0\n0\n2\n-> 3\n",
        "== user\n1000\n1000\nagain\n-> 0\n",
        "== keep-id\n54321\n54321\n-> 0\n",
        "== tmpfs\n700\n-> 0\n",
        "== read-only\nrefused\n-> 0\n",
        "== device\n4\n-> 0\n",
        "refused\n-> 0\n== host-network\nseen\n-> 0\n== host-pid\npid:\n-> 0\n== init\nnamed\n-> 0\n",
        "== running\none running\n-> 0\n== exec\n0\n-> 4\n",
        "== exec-user\n1000\nagain\n-> 0\n",
        "== stopped\none exited 7\n-> 0\n",
        "== rm\n",
        "== none\n-> 0\n",
    ] {
        assert!(said.contains(wanted), "{wanted:?}\n{said}\n{context}");
    }
    // crun refuses a machine with both versions of cgroups.
    let both = "/sys/fs/cgroup/unified";
    let hide = if Path::new(both).exists() { both } else { "" };
    let (output, errors) = steps(Path::new("/usr/bin/crun"), hide);
    let crun = String::from_utf8_lossy(&output.stdout).into_owned();
    let without_ids = |text: &str| {
        let is_id = |line: &str| line.len() >= 12 && line.bytes().all(|b| b.is_ascii_hexdigit());
        let lines: Vec<&str> = text.lines().filter(|line| !is_id(line)).collect();
        lines.join("\n")
    };
    assert_eq!(without_ids(&said), without_ids(&crun), "{errors}");
}

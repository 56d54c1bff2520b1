//! The mounts of config.json and their options.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::bundle::Bundle;
use common::consumer::installed;
use common::{RUNTIME, Setup, can_run, eventually};
use serde_json::{Value, json};

/// A container with additional mounts that runs a script.
fn setup(script: &str, mounts: &[Value]) -> Setup {
    let mut setup = Setup::new(&["sh", "-c", script]);
    let list = setup.config["mounts"].as_array_mut().unwrap();
    list.extend(mounts.iter().cloned());
    setup
}

/// The output of a script in such a container.
fn output(script: &str, mounts: &[Value]) -> String {
    let (output, exit) = setup(script, mounts).run();
    assert_eq!(exit.code, 0, "{output}");
    output
}

/// The options that /proc/self/mountinfo shows of a mount: its own, then its file system's.
fn options_of(destination: &str, mounts: &[Value]) -> String {
    let script = format!("grep ' {destination} ' /proc/self/mountinfo");
    let line = output(&script, mounts);
    let words: Vec<&str> = line.lines().last().unwrap().split(' ').collect();
    format!("{},{}", words[5], words.last().unwrap())
}

fn tmpfs(options: &[&str]) -> Value {
    json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options})
}

#[test]
fn attributes_are_those_asked_for() {
    if !can_run() {
        return;
    }
    for (option, shown) in [
        ("ro", "ro,"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("relatime", "relatime"),
        ("nosymfollow", "nosymfollow"),
        ("sync", "sync"),
        ("dirsync", "dirsync"),
        ("lazytime", "lazytime"),
        ("size=64k", "size=64k"),
        ("mode=711", "mode=711"),
    ] {
        let found = options_of("/mnt", &[tmpfs(&["rw", option])]);
        assert!(found.contains(shown), "{option}: {found}");
    }
    let strict = options_of("/mnt", &[tmpfs(&["noatime", "strictatime"])]);
    assert!(!strict.contains("atime"), "{strict}");
    // Without meaning for the kernel, but often given.
    let usual = [
        "defaults", "async", "auto", "loud", "nomand", "exec", "dev", "suid",
    ];
    assert!(options_of("/mnt", &[tmpfs(&usual)]).starts_with("rw,"));
}

#[test]
fn options_that_a_file_system_does_not_know_name_the_mount() {
    if !can_run() {
        return;
    }
    let message = setup("true", &[tmpfs(&["nonsense=1"])]).fails();
    assert!(
        message.contains("/mnt") && message.contains("nonsense"),
        "{message}"
    );
    let bind =
        json!({"destination": "/mnt", "type": "bind", "source": "/etc", "options": ["sync"]});
    let message = setup("true", &[bind]).fails();
    assert!(message.contains("mounts[7].options: \"sync\""), "{message}");
    let message = setup("true", &[json!({"destination": "/mnt", "type": "nofs"})]).fails();
    assert!(message.contains("mount nofs on /mnt"), "{message}");
}

#[test]
fn recursive_attributes_reach_the_mounts_below() {
    if !can_run() {
        return;
    }
    let below = |option: &str| {
        let mut list = vec![tmpfs(&["rw"])];
        list.push(json!({"destination": "/mnt/below", "type": "tmpfs", "source": "tmpfs"}));
        list.push(json!({"destination": "/mnt", "options": ["remount", "bind", option]}));
        options_of("/mnt/below", &list)
    };
    assert!(below("ro").starts_with("rw,"));
    assert!(below("rro").starts_with("ro,"));
    for (option, shown) in [
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        assert!(below(option).contains(shown), "{option}");
    }
}

#[test]
fn a_mount_that_is_there_can_be_changed() {
    if !can_run() {
        return;
    }
    let change = |options: &[&str]| {
        let second = json!({"destination": "/mnt", "type": "tmpfs", "options": options});
        options_of("/mnt", &[tmpfs(&["nosuid", "size=64k"]), second])
    };
    assert!(change(&["remount", "ro"]).starts_with("ro,nosuid"));
    assert!(change(&["remount", "size=128k"]).contains("size=128k"));
    let nothing = json!({"destination": "/bin", "options": ["remount", "ro"]});
    let message = setup("true", &[nothing]).fails();
    assert!(message.contains("remount /bin"), "{message}");
}

#[test]
fn a_tmpfs_can_begin_with_what_it_covers() {
    if !can_run() {
        return;
    }
    let mount = json!({"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "nodev"]});
    let script = "cd /data; cat file sub/inner; readlink link; stat -c '%a %u' . file sub; \
                  test -p fifo && rm file && ls";
    let setup = setup(script, &[mount]);
    let data = setup.directory.path().join("lower/data");
    std::fs::create_dir_all(data.join("sub")).unwrap();
    std::fs::write(data.join("file"), "one\n").unwrap();
    std::fs::write(data.join("sub/inner"), "two\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", data.join("link")).unwrap();
    nix::unistd::mkfifo(&data.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let set = |name: &str, mode: u32| {
        let path = data.join(name);
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).unwrap();
    };
    std::os::unix::fs::chown(data.join("file"), Some(1000), None).unwrap();
    set("file", 0o4750);
    set("sub", 0o2711);
    set(".", 0o1777);
    let shim = setup.create();
    shim.start();
    assert_eq!(shim.wait().code, 0, "{}", shim.output());
    assert_eq!(
        shim.output(),
        "one\ntwo\n/etc/passwd\n1777 0\n4750 1000\n2711 0\nfifo\nlink\nsub\n"
    );
    assert!(data.join("file").exists(), "only the copy was removed");
    let other = json!({"destination": "/data", "type": "mqueue", "options": ["tmpcopyup"]});
    let message = self::setup("true", &[other]).fails();
    assert!(message.contains("mounts[7].options"), "{message}");
}

#[test]
fn relative_destinations_begin_at_the_root() {
    if !can_run() {
        return;
    }
    let mut mount = tmpfs(&["size=64k"]);
    mount["destination"] = json!("some/where");
    assert!(options_of("/some/where", &[mount]).contains("size=64k"));
}

#[test]
fn figures_of_procfs_can_be_replaced_and_nothing_else_of_it() {
    if !can_run() {
        return;
    }
    let bind = |destination: &str| json!({"destination": destination, "type": "bind", "source": "/etc/passwd", "options": ["bind", "ro"]});
    let text = output("head -n 1 /proc/meminfo", &[bind("/proc/meminfo")]);
    assert!(text.starts_with("root:"), "{text}");
    for destination in [
        "/proc/self/attr/exec",
        "/proc/sys/kernel/hostname",
        "/proc/1/status",
    ] {
        let message = setup("true", &[bind(destination)]).fails();
        assert!(message.contains(destination), "{message}");
    }
}

/// A shared mount of the host in a directory of its own.
struct Shared(PathBuf);

impl Shared {
    fn new(directory: &std::path::Path) -> Self {
        use nix::mount::{MsFlags, mount};
        let place = directory.join("shared");
        std::fs::create_dir(&place).unwrap();
        let none: Option<&str> = None;
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        mount(none, &place, none, MsFlags::MS_SHARED, none).unwrap();
        std::fs::create_dir(place.join("sub")).unwrap();
        Self(place)
    }

    fn mount_below(&self) {
        let place = self.0.join("sub");
        let none: Option<&str> = None;
        nix::mount::mount(
            Some("later"),
            &place,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            none,
        )
        .unwrap();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0.join("sub"), nix::mount::MntFlags::MNT_DETACH);
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Whether a later mount of the host shows in the container, and the other way round.
fn propagates(bind: &str, root: Option<&str>) -> (bool, bool) {
    let script = "until test -e /flag/go; do sleep 0.01; done; \
                  grep -c ' /mnt/sub ' /proc/self/mountinfo; \
                  mount -t tmpfs inside /mnt/sub; exec sleep 1000";
    let mut setup = setup(script, &[]);
    let shared = Shared::new(setup.directory.path());
    setup.config["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/mnt", "type": "bind", "source": shared.0, "options": ["rbind", bind]}
    ));
    let flag = setup.directory.path().join("flag");
    std::fs::create_dir(&flag).unwrap();
    setup.config["mounts"].as_array_mut().unwrap().push(json!(
        {"destination": "/flag", "type": "bind", "source": flag, "options": ["bind"]}
    ));
    if let Some(root) = root {
        setup.config["linux"]["rootfsPropagation"] = json!(root);
    }
    setup.config["annotations"] = json!({});
    for set in ["bounding", "effective", "permitted"] {
        let set = &mut setup.config["process"]["capabilities"][set];
        set.as_array_mut().unwrap().push(json!("CAP_SYS_ADMIN"));
    }
    let shim = setup.create();
    shim.start();
    shared.mount_below();
    std::fs::write(flag.join("go"), "go").unwrap();
    let place = "mount by the container";
    eventually(place, || {
        let own = std::fs::read_to_string(format!("/proc/{}/mounts", shim.pid));
        own.is_ok_and(|text| text.contains("inside /mnt/sub"))
    });
    eventually("output", || shim.output().ends_with('\n'));
    let inward = shim.output().starts_with('1');
    let host = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let sub = shared.0.join("sub").to_string_lossy().into_owned();
    let outward = host
        .lines()
        .any(|line| line.starts_with(&format!("inside {sub} ")));
    if outward {
        nix::mount::umount2(&shared.0.join("sub"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
    (inward, outward)
}

#[test]
fn mounts_propagate_as_asked_for() {
    if !can_run() {
        return;
    }
    assert_eq!(propagates("rprivate", None), (false, false));
    assert_eq!(propagates("rslave", None), (true, false));
    assert_eq!(propagates("rslave", Some("rslave")), (true, false));
    assert_eq!(propagates("rshared", Some("shared")), (true, true));
    assert_eq!(propagates("rprivate", Some("shared")), (false, false));
    // No mount reaches the host unless the root is shared as well.
    assert_eq!(propagates("rshared", None), (true, false));
}

#[test]
fn the_roots_propagation_is_the_one_asked_for() {
    if !can_run() {
        return;
    }
    let fields = |root: Option<&str>| {
        let mut setup = setup(
            "grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo",
            &[],
        );
        if let Some(root) = root {
            setup.config["linux"]["rootfsPropagation"] = json!(root);
        }
        let (output, exit) = setup.run();
        assert_eq!(exit.code, 0, "{output}");
        let line = output.lines().next().unwrap();
        line.split(' ')
            .skip(6)
            .take_while(|word| *word != "-")
            .map(|word| word.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(fields(None), Vec::<String>::new());
    assert_eq!(fields(Some("private")), Vec::<String>::new());
    assert_eq!(fields(Some("shared")), ["shared"]);
    assert_eq!(fields(Some("unbindable")), ["unbindable"]);
    let mut wrong = setup("true", &[]);
    wrong.config["linux"]["rootfsPropagation"] = json!("sideways");
    let message = wrong.fails();
    assert!(message.contains("linux.rootfsPropagation"), "{message}");
}

#[test]
fn the_hosts_root_can_be_bound_with_hooks_that_look_for_the_containers() {
    if !can_run() {
        return;
    }
    for hook in [None, Some("true")] {
        let bind = json!({"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "ro"]});
        let mut setup = setup("test -e /host/proc/self && ls /host", &[bind]);
        setup.shows_host = true;
        let root = setup.directory.path().join("lower");
        setup.spec.rootfs = keelson_shim_protocol::Rootfs::Directory { path: root };
        if let Some(command) = hook {
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", command]});
            setup.config["hooks"]["createContainer"] = json!([hook]);
        }
        let (output, exit) = setup.run();
        assert_eq!(exit.code, 0, "{hook:?}: {output}");
        assert!(output.contains("usr"), "{hook:?}: {output}");
    }
}

/// Runs a container in a mount namespace that a script has prepared, and returns its output. In the
/// script, `$rest` is the bundle's directory.
fn run_in(prepare: &str, bundle: &Bundle) -> (bool, String) {
    run_with(&RUNTIME, prepare, bundle)
}

/// The same with any runtime.
fn run_with(runtime: &str, prepare: &str, bundle: &Bundle) -> (bool, String) {
    let script = format!(
        "set -e; mount --make-rprivate /; {prepare}; exec {runtime} --root {0}/state run \
         --bundle {0} {1}",
        bundle.directory.path().display(),
        bundle.id,
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("rest", bundle.directory.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.success(), text)
}

fn push(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn share_cgroups(config: &mut Value) {
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
}

/// A new mount of cgroup2 takes flags away from the host's, and a wait for the kernel with it. Here
/// the host has mounted only a part of the hierarchy; a new mount would show all of it.
#[test]
fn the_machines_cgroups_are_shown_and_not_mounted_again() {
    if !can_run() {
        return;
    }
    let root = common::cgroup_root();
    let part = format!("keelson-test-part-{}", std::process::id());
    std::fs::create_dir(root.join(&part)).unwrap();
    let script = "grep ' /sys/fs/cgroup ' /proc/self/mountinfo; ls /sys/fs/cgroup";
    let bundle = Bundle::new(&["sh", "-c", script], share_cgroups);
    let mount = format!("mount --bind {0}/{part} {0}", root.display());
    let (done, text) = run_in(&mount, &bundle);
    let _ = std::fs::remove_dir(root.join(&part));
    assert!(done, "{text}");
    let fields: Vec<&str> = text.split(' ').collect();
    assert_eq!(fields[3], format!("/{part}"), "{text}");
    assert!(fields[5].starts_with("ro,nosuid,nodev,noexec"), "{text}");
    assert!(text.contains("cgroup.procs"), "{text}");

    for (kind, option, own) in [
        ("cgroup", "nsdelegate", false),
        ("cgroup2", "memory_recursiveprot", false),
        ("debugfs", "mode=777", true),
        ("devtmpfs", "size=1k", true),
        ("tracefs", "gid=5", true),
    ] {
        let mount = json!({"destination": "/mnt", "type": kind, "options": [option]});
        let mut setup = setup("true", &[mount]);
        if !own {
            share_cgroups(&mut setup.config);
        }
        let message = setup.fails();
        assert!(
            message.contains("for the whole machine"),
            "{kind}: {message}"
        );
    }
}

/// Options of a file system, unlike those of a mount, apply to all its mounts.
#[test]
fn a_file_system_of_the_hosts_is_not_changed() {
    if !can_run() {
        return;
    }
    let mut bundle = Bundle::new(&["true"], |_| {});
    let shared = bundle.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    bundle.change(|config| {
        let bind = json!({"destination": "/mnt", "type": "bind", "source": shared,
            "options": ["bind"]});
        push(config, bind);
        let options = ["remount", "size=128k"];
        push(config, json!({"destination": "/mnt", "options": options}));
    });
    let (done, text) = run_in("mount -t tmpfs -o size=64k tmpfs $rest/shared", &bundle);
    assert!(!done && text.contains("for the whole machine"), "{text}");
}

/// The attributes of binds as runc 1.3 sets them.
#[test]
fn a_bind_has_the_attributes_that_are_asked_for_and_no_others() {
    if !can_run() {
        return;
    }
    for (source, options, shown, in_user_namespace) in [
        (
            "nosuid,nodev",
            &["bind"][..],
            "rw,nosuid,nodev",
            "rw,nosuid,nodev",
        ),
        (
            "ro,noexec",
            &["rbind", "rprivate"],
            "ro,noexec",
            "ro,noexec",
        ),
        (
            "nosuid,nodev,noexec",
            &["rbind", "ro"],
            "ro",
            "ro,nosuid,nodev,noexec",
        ),
        ("ro,nosuid", &["bind", "rw"], "rw", "rw,nosuid"),
        ("nosuid", &["bind", "nodev"], "rw,nodev", "rw,nosuid,nodev"),
        ("nosuid", &["bind", "suid"], "rw", "rw"),
        (
            "noatime,nodev",
            &["bind", "nosuid"],
            "rw,nosuid,noatime",
            "rw,nosuid,nodev,noatime",
        ),
    ] {
        for users in [false, true] {
            let script = "grep ' /mnt ' /proc/self/mountinfo";
            let mut bundle = Bundle::new(&["sh", "-c", script], |_| {});
            let path = bundle.directory.path().join("shared");
            std::fs::create_dir(&path).unwrap();
            bundle.change(|config| {
                let mount = json!({"destination": "/mnt", "type": "bind", "source": path,
                    "options": options});
                push(config, mount);
                if users {
                    let linux = &mut config["linux"];
                    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                    (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
                    let namespaces = linux["namespaces"].as_array_mut().unwrap();
                    namespaces.push(json!({"type": "user"}));
                }
            });
            let mount = format!(
                "mount -t tmpfs tmpfs $rest/shared; mount -o remount,bind,{source} $rest/shared"
            );
            let (done, text) = run_in(&mount, &bundle);
            assert!(done, "{source} {options:?}: {text}");
            let found = text.split(' ').nth(5).unwrap().replace(",relatime", "");
            let expected = if users { in_user_namespace } else { shown };
            assert_eq!(
                found, expected,
                "{source} {options:?}, user namespace: {users}"
            );
        }
    }
}

/// The attributes of every bind of a container, by its destination.
fn binds_with(runtime: &str, prepare: &str, bundle: &Bundle) -> BTreeMap<String, String> {
    let (done, text) = run_with(runtime, prepare, bundle);
    assert!(done, "{runtime}: {text}");
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (place, attributes) = (words.get(4)?, words.get(5)?);
            let name = place.strip_prefix("/b/")?;
            Some((name.to_owned(), (*attributes).to_owned()))
        })
        .collect()
}

/// Every usual option over sources of every kind. docs/conformance.md says what is left out: runc
/// before 1.2 (Debian 12 has 1.1.5) doesn't touch a bind whose options only allow something.
#[test]
fn binds_have_the_attributes_that_runc_gives_them() {
    if !can_run() {
        return;
    }
    let Some(runc) = installed("runc") else {
        return;
    };
    let sources = [
        "rw",
        "ro",
        "nosuid,nodev,noexec",
        "noatime",
        "strictatime",
        "nosymfollow",
        "ro,nosuid,nodev,noexec,noatime",
    ];
    let options = [
        "",
        "ro",
        "nosuid",
        "nodev",
        "noexec",
        "noatime",
        "relatime",
        "strictatime",
        "ro,nosuid,nodev,noexec",
        "ro,suid,dev,exec",
        "rw,nosuid,relatime",
        "rro",
        "rnosuid",
        "rro,rnodev,rnoexec",
    ];
    let mut bundle = Bundle::new(&["cat", "/proc/self/mountinfo"], |_| {});
    let mut prepare = "mkdir -p $rest/sources; mount -t tmpfs tmpfs $rest/sources".to_owned();
    for (number, source) in sources.iter().enumerate() {
        // With a mount below it: only recursive options may change that.
        prepare.push_str(&format!(
            "; place=$rest/sources/{number}; mkdir $place; mount -t tmpfs tmpfs $place; \
             mkdir $place/below; mount -t tmpfs -o nodev tmpfs $place/below; \
             mount -o remount,bind,{source} $place"
        ));
    }
    let sources_directory = bundle.directory.path().join("sources");
    bundle.change(|config| {
        for number in 0..sources.len() {
            for bind in ["bind", "rbind"] {
                for option in options {
                    let name = option.replace(',', "-");
                    let words: Vec<&str> = [bind]
                        .into_iter()
                        .chain(option.split(',').filter(|word| !word.is_empty()))
                        .collect();
                    push(
                        config,
                        json!({
                            "destination": format!("/b/{number}-{bind}-{name}"), "type": "bind",
                            "source": sources_directory.join(number.to_string()), "options": words,
                        }),
                    );
                }
            }
        }
    });
    let ours = binds_with(&RUNTIME, &prepare, &bundle);
    let theirs = binds_with(&runc.to_string_lossy(), &prepare, &bundle);
    // Recursive binds include the mounts below.
    assert_eq!(ours.len(), sources.len() * options.len() * 3);
    for (name, attributes) in &ours {
        assert_eq!(Some(attributes), theirs.get(name), "{name}");
    }
}

#[test]
fn an_earlier_mount_can_be_bound_by_its_path_on_the_host() {
    if !can_run() {
        return;
    }
    for users in [false, true] {
        let script = "echo made > /mnt/one; cat /two/one; grep -c ' /two ' /proc/self/mountinfo";
        let mut bundle = Bundle::new(&["sh", "-c", script], |_| {});
        let root = bundle.directory.path().join("rootfs");
        bundle.change(|config| {
            push(config, tmpfs(&["rw"]));
            let source = root.join("mnt");
            let mount = json!({"destination": "/two", "type": "bind", "source": source,
                "options": ["bind"]});
            push(config, mount);
            if users {
                let linux = &mut config["linux"];
                let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
                (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
                let namespaces = linux["namespaces"].as_array_mut().unwrap();
                namespaces.push(json!({"type": "user"}));
            }
        });
        std::fs::create_dir(root.join("mnt")).unwrap();
        assert_eq!(run_in("true", &bundle), (true, "made\n1\n".to_owned()));
    }
}

//! Real cgroups below one of the test's own. No controller is needed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use keelson_cgroup::figures::ProcessorFigures;
use keelson_cgroup::{
    Cgroup, Event, Figures, controllers, mount_point, remove, remove_when_empty, wait,
};

const LIMIT: Duration = Duration::from_secs(10);

/// The path of a cgroup that no other test uses; `None`: the machine can't do it.
fn path(name: &str) -> Option<PathBuf> {
    if !keelson_testing::is_root() {
        return None;
    }
    let Some(mount) = mount_point() else {
        keelson_testing::skip("cgroup2", "it is not mounted");
        return None;
    };
    Some(mount.join(format!("keelson-cgroup-{name}-{}", std::process::id())))
}

fn sleepers(group: &Cgroup, count: usize) -> Vec<Child> {
    let start = |_| {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        group.add(child.id() as i32).unwrap();
        child
    };
    (0..count).map(start).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(30)
}

#[test]
fn a_cgroup_is_removed_with_what_runs_in_it() {
    let Some(path) = path("removal") else { return };
    let group = Cgroup::create(path.join("middle")).unwrap();
    let below = Cgroup::create(path.join("middle/below")).unwrap();
    let mut children = sleepers(&below, 20);
    let mut expected: Vec<_> = children.iter().map(|child| child.id() as i32).collect();
    let mut found = group.processes().unwrap();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
    // SIGKILL ends frozen processes too.
    group.freeze(true, LIMIT).unwrap();
    assert!(group.is_frozen());
    let deadline = soon();
    assert!(!wait(group.path(), Event::Empty, deadline).unwrap());
    assert!(Instant::now() >= deadline);
    remove(&path, LIMIT).unwrap();
    assert!(!path.exists());
    // There is nothing left to remove.
    remove(&path, LIMIT).unwrap();
    for child in &mut children {
        assert!(!child.wait().unwrap().success());
    }
    let error = wait(&path, Event::Empty, soon()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn removal_without_killing_waits_for_the_end() {
    let Some(path) = path("patience") else { return };
    let group = Cgroup::create(path.clone()).unwrap();
    let mut children = sleepers(&group, 1);
    let error = remove_when_empty(&path, Duration::from_millis(30)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(
        error.to_string().contains(&*path.to_string_lossy()),
        "{error}"
    );
    assert!(children[0].try_wait().unwrap().is_none());
    let waiter = std::thread::spawn({
        let path = path.clone();
        move || remove_when_empty(&path, LIMIT)
    });
    children[0].kill().unwrap();
    children[0].wait().unwrap();
    waiter.join().unwrap().unwrap();
    assert!(!path.exists());
}

#[test]
fn freezing_stops_and_thawing_goes_on() {
    let Some(path) = path("freezer") else { return };
    let group = Cgroup::create(path.clone()).unwrap();
    let mut children = sleepers(&group, 3);
    group.freeze(true, LIMIT).unwrap();
    assert!(!wait(&path, Event::Thawed, soon()).unwrap());
    group.freeze(false, LIMIT).unwrap();
    assert!(!group.is_frozen());
    assert_eq!(group.oom_kills(), 0);
    remove(&path, LIMIT).unwrap();
    for child in &mut children {
        child.wait().unwrap();
    }
    assert_eq!(
        group.kill().unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}

#[test]
fn a_delegated_cgroup_belongs_to_the_user_but_not_its_limits() {
    const USER: u32 = 65_533;
    let Some(path) = path("delegation") else {
        return;
    };
    let group = Cgroup::create(path.clone()).unwrap();
    group.delegate(USER).unwrap();
    let owner = |name: &str| fs::metadata(path.join(name)).unwrap().uid();
    assert_eq!([owner("."), owner("cgroup.procs")], [USER, USER]);
    assert_eq!([owner("cgroup.freeze"), owner("cgroup.kill")], [0, 0]);
    remove(&path, LIMIT).unwrap();
}

#[test]
fn a_controller_that_the_machine_does_not_have_is_refused_by_name() {
    let Some(path) = path("controllers") else {
        return;
    };
    let group = Cgroup::create(path.join("inner")).unwrap();
    let mount = mount_point().unwrap();
    let available = controllers::available(&mount).unwrap();
    assert!(!controllers::has(&mount, "nonsense"));
    assert!(!available.contains("nonsense"));
    let error = controllers::enable_for_children(&path, "nonsense").unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    // A cgroup can't have a controller that the root does not pass down.
    let (enabled, refused) = controllers::enable_all_for_children(&path).unwrap();
    assert_eq!(enabled, controllers::available(&path).unwrap());
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(controllers::available(group.path()).unwrap(), enabled);
    for controller in &enabled {
        controllers::enable_from(&mount, group.path(), controller).unwrap();
    }
    remove(&path, LIMIT).unwrap();
}

#[test]
fn figures_are_those_of_the_processes() {
    let Some(path) = path("figures") else { return };
    let group = Cgroup::create(path.join("inner")).unwrap();
    // Figures also count for the cgroups above.
    let mut busy = Command::new("sh")
        .args(["-c", "while :; do :; done"])
        .spawn()
        .unwrap();
    group.add(busy.id() as i32).unwrap();
    let deadline = Instant::now() + LIMIT;
    let figures = loop {
        let figures = Figures::read(&path).unwrap();
        if figures.cpu.usage > Duration::from_millis(50) || Instant::now() > deadline {
            break figures;
        }
    };
    assert!(figures.cpu.usage > Duration::from_millis(50), "{figures:?}");
    for (controller, found) in [
        ("memory", figures.memory.is_some()),
        ("pids", figures.pids.is_some()),
        ("io", figures.devices.is_some()),
    ] {
        assert_eq!(found, controllers::has(&path, controller), "{controller}");
    }
    remove(&path, LIMIT).unwrap();
    busy.wait().unwrap();
    let error = Figures::read(&path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let processors = ProcessorFigures::read().unwrap();
    assert!(processors.online > 0 && !processors.time.is_zero());
}

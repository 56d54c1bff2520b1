use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::removing::Force;
use crate::types::{NewVolume, PrunedVolumes};

fn open(base: &Path) -> VolumeStore {
    VolumeStore::open(StoreOptions {
        base: base.to_owned(),
        uses: base.join(".uses"),
        boot: "boot".to_owned(),
        era: Era::Blessed,
        plugins: Vec::new(),
    })
    .unwrap()
}

fn named(name: &str) -> NewVolume {
    NewVolume {
        name: name.to_owned(),
        ..NewVolume::default()
    }
}

#[test]
fn a_volume_lives_until_it_is_removed() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let mut events = store.subscribe();
    let mut new = named("data");
    new.labels.insert("a".to_owned(), "b".to_owned());
    let volume = store.create(new).unwrap();
    fs::write(volume.mountpoint.join("file"), "12345").unwrap();
    // The old one, with its labels.
    assert_eq!(*store.create(named("data")).unwrap(), *volume);
    let anonymous = store.create(NewVolume::default()).unwrap();
    assert!(anonymous.is_anonymous() && anonymous.name.len() == 64);
    drop(store);

    let store = open(base.path());
    assert_eq!(*store.inspect("data").unwrap(), *volume);
    let pruned = store.prune(Volume::is_anonymous, |_| 5).unwrap();
    assert_eq!(pruned.names, std::slice::from_ref(&anonymous.name));
    store.remove("data", Force::No).unwrap();
    assert!(!volume.mountpoint.exists());
    let error = store.remove("data", Force::No).unwrap_err();
    assert_eq!(error.to_string(), "get data: no such volume");
    assert!(store.list().is_empty());
    let mut actions = Vec::new();
    while let Ok(event) = events.try_recv() {
        actions.push(event.action);
    }
    assert_eq!(actions, [VolumeAction::Create, VolumeAction::Create]);
}

#[test]
fn held_volumes_are_kept() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let (volume, first, made) = store.create_held(named("data"), "c1").unwrap();
    let (_, second, again) = store.create_held(named("data"), "c2").unwrap();
    assert!(made && !again);
    let error = store.remove("data", Force::No).unwrap_err();
    assert_eq!(
        error.to_string(),
        "remove data: volume is in use - [c1, c2]"
    );
    assert_eq!(
        store.prune(|_| true, |_| 0).unwrap(),
        PrunedVolumes::default()
    );
    drop((first, second));
    let unknown = store.hold_all("c3");
    assert!(store.remove("data", Force::No).is_err());
    assert_eq!(store.references("data"), 0);
    drop(unknown);
    store.remove(&volume.name, Force::No).unwrap();
}

#[test]
fn unreadable_volumes_are_kept_and_listed() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let volume = store.create(named("data")).unwrap();
    let path = base.path().join("data").join(VOLUME);
    fs::write(&path, r#"{"version": 99, "readable_from": 99}"#).unwrap();
    fs::write(volume.mountpoint.join("file"), "1").unwrap();
    let store = open(base.path());
    let found = store.inspect("data").unwrap();
    assert!(found.unreadable.is_some());
    assert!(store.create_held(named("data"), "c").is_err());
    assert_eq!(
        store.prune(|_| true, |_| 0).unwrap(),
        PrunedVolumes::default()
    );
    assert!(volume.mountpoint.join("file").exists());
    store.remove("data", Force::No).unwrap();
}

#[test]
fn unfinished_volumes_are_cleaned_up() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    // Like the remains of a process that was killed before it wrote the document.
    let half = store.0.objects.prepare("half").unwrap();
    fs::create_dir(half.join(DATA)).unwrap();
    let store = open(base.path());
    assert!(store.list().is_empty() && !half.exists());
}

#[test]
fn a_filled_volume_shows_all_or_nothing() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let volume = store.create(named("data")).unwrap();
    let used = store.begin_use("data", "c").unwrap();
    let failed = store.fill(&used, |directory| {
        fs::write(directory.join("half"), "").unwrap();
        Err(VolumeError::Pruning)
    });
    assert!(failed.is_err());
    assert_eq!(fs::read_dir(&volume.mountpoint).unwrap().count(), 0);
    let write = |directory: &Path| {
        fs::write(directory.join("all"), "").map_err(VolumeError::io("write", directory))
    };
    store.fill(&used, write).unwrap();
    assert!(volume.mountpoint.join("all").exists());
    let never = |_: &Path| -> Result<(), VolumeError> { panic!("it is not empty") };
    store.fill(&used, never).unwrap();
}

#[test]
fn wrong_requests_change_nothing() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let mut driver = named("data");
    driver.driver = "other".to_owned();
    let mut option = named("data");
    option.options.insert("foo".to_owned(), "1".to_owned());
    for (new, text) in [
        (
            named("a"),
            "create a: volume name is too short, names should be at least two alphanumeric characters",
        ),
        (
            driver,
            "create data: error looking up volume plugin other: plugin \"other\" not found",
        ),
        (option, "create data: invalid option: \"foo\""),
    ] {
        assert_eq!(store.create(new).unwrap_err().to_string(), text);
    }
    assert!(store.list().is_empty());
}

#[test]
fn mounts_last_from_the_first_use_to_the_last() {
    if !keelson_testing::is_root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let mut new = named("data");
    for (name, value) in [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")] {
        new.options.insert(name.to_owned(), value.to_owned());
    }
    let volume = store.create(new).unwrap();
    let first = store.begin_use("data", "c1").unwrap();
    fs::write(volume.mountpoint.join("file"), "1").unwrap();
    let second = store.begin_use("data", "c2").unwrap();
    first.end();
    assert!(volume.mountpoint.join("file").exists());
    // Like the remains of a killed process.
    std::mem::forget(second);
    let store = open(base.path());
    let third = store.continue_use("data", "c2").unwrap();
    store.unmount_unused();
    assert!(volume.mountpoint.join("file").exists());
    third.end();
    assert!(!volume.mountpoint.join("file").exists());
    let mut new = named("bad");
    for (name, value) in [("type", "none"), ("device", "/not/there"), ("o", "bind")] {
        new.options.insert(name.to_owned(), value.to_owned());
    }
    store.create(new).unwrap();
    let error = store.begin_use("bad", "c").unwrap_err().to_string();
    assert!(
        error.contains("failed to mount local volume: mount /not/there:"),
        "{error}"
    );
    store.remove("bad", Force::No).unwrap();
}

/// Hundreds of removals race with the creation of containers: no held volume is removed.
#[test]
fn removals_never_remove_held_volumes() {
    let base = tempfile::tempdir().unwrap();
    let store = open(base.path());
    let (held, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (store, held, removed) = (&store, &held, &removed);
            scope.spawn(move || {
                for _ in 0..100 {
                    if worker % 2 == 0 {
                        let (volume, lease, _) = store.create_held(named("data"), "c").unwrap();
                        assert!(volume.mountpoint.is_dir());
                        assert!(store.inspect("data").is_ok());
                        drop(lease);
                        held.fetch_add(1, Ordering::Relaxed);
                    } else if store.remove("data", Force::No).is_ok() {
                        removed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(held.into_inner(), 200);
}

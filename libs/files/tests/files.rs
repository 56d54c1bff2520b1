//! Written files, as other processes and a machine after a power cut see them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_files::{
    Durability, LONGEST_OVERWRITTEN, flush, flush_directory, overwrite, prepare, remove, sweep,
    sweep_dead, write, write_changed,
};

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_mode_is_the_one_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    for durability in [Durability::Flushed, Durability::Relaxed] {
        // More than any umask lets through, and less than was there before.
        for mode in [0o600, 0o666, 0o444, 0o4711, 0o640] {
            write(&path, b"text", mode, durability).unwrap();
            let found = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(found & 0o7777, mode);
        }
    }
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn a_link_at_the_target_is_replaced_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (link, target) = (
        directory.path().join("link"),
        directory.path().join("target"),
    );
    fs::write(&target, "untouched").unwrap();
    symlink(&target, &link).unwrap();
    write(&link, b"new", 0o644, Durability::Flushed).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_temporary_one() {
    let directory = tempfile::tempdir().unwrap();
    // rename(2) cannot replace a directory that is not empty by a file.
    let path = directory.path().join("a");
    fs::create_dir_all(path.join("inside")).unwrap();
    let error = write(&path, b"new", 0o644, Durability::Flushed).unwrap_err();
    assert!(error.to_string().starts_with("rename "), "{error}");
    assert_eq!(names(directory.path()), ["a"]);
    for nowhere in ["/", "missing/file"] {
        assert!(write(Path::new(nowhere), b"", 0o644, Durability::Relaxed).is_err());
    }
}

#[test]
fn every_state_that_a_crash_leaves_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    write(&path, b"old", 0o644, Durability::Flushed).unwrap();
    // Killed after creating, after half of the data, and after fsync but before the rename.
    for (number, bytes) in ["", "ne", "new"].into_iter().enumerate() {
        fs::write(directory.path().join(format!(".new-a-1-{number}")), bytes).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(sweep(directory.path()).unwrap(), 3);
    assert_eq!(sweep(directory.path()).unwrap(), 0);
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn files_of_a_living_process_stay() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let living = format!(".new-a-{}-0", child.id());
    let own = format!(".new-a-{}-4000000000", std::process::id());
    for name in [&living, &own] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    fs::write(directory.path().join(".hidden-1-1"), "").unwrap();
    assert_eq!(sweep_dead(directory.path()).unwrap(), 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(sweep_dead(directory.path()).unwrap(), 1);
    assert_eq!(names(directory.path()), [".hidden-1-1".to_owned(), own]);
    assert_eq!(sweep_dead(&directory.path().join("absent")).unwrap(), 0);
}

#[test]
fn readers_see_whole_files_of_many_writers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let text = |writer: usize| vec![b'a' + writer as u8; 1 << (10 + writer)];
    write(&path, &text(0), 0o644, Durability::Relaxed).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..200 {
                        write(path, &text(writer), 0o644, Durability::Relaxed).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = fs::read(&path).unwrap();
                let writer = usize::from(seen[0] - b'a');
                assert_eq!(seen, text(writer));
            }
        });
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn unchanged_files_are_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let write = |text: &[u8]| write_changed(&path, text, 0o644, Durability::Relaxed).unwrap();
    assert!(write(b"one"));
    let inode = fs::metadata(&path).unwrap().ino();
    assert!(!write(b"one"));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert!(write(b"two"));
}

#[test]
fn a_prepared_file_replaces_the_old_one_when_placed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    write(&path, b"old", 0o644, Durability::Relaxed).unwrap();
    drop(prepare(&path, b"dropped", 0o600).unwrap());
    assert_eq!(names(directory.path()), ["a"]);
    let prepared = prepare(&path, b"new", 0o600).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    prepared.place().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(directory.path()), ["a"]);
}

#[test]
fn removal_is_idempotent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    write(&path, b"x", 0o644, Durability::Relaxed).unwrap();
    flush(&path).unwrap();
    flush_directory(directory.path()).unwrap();
    remove(&path).unwrap();
    remove(&path).unwrap();
    let error = flush(&path).unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_mounted_file_gets_other_lines_and_stays_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts");
    fs::write(&path, "192.0.2.1 one\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap();
    for text in [
        "192.0.2.1 one\n192.0.2.2 two\n",
        "192.0.2.2 two\n",
        "",
        "x\n",
    ] {
        overwrite(&path, text.as_bytes()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    assert_eq!(names(directory.path()), ["hosts"]);

    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert_eq!(overwrite(&link, b"y\n").unwrap_err().operation, "open");
    assert!(overwrite(&directory.path().join("none"), b"y\n").is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "x\n");

    // Whoever holds the file can make it this long at no cost.
    let huge = LONGEST_OVERWRITTEN as u64 + 1;
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(huge)
        .unwrap();
    assert_eq!(overwrite(&path, b"y\n").unwrap_err().operation, "write");
    assert_eq!(fs::metadata(&path).unwrap().len(), huge);
}

/// While the write itself runs, parts of both texts: the kernel promises no more.
#[test]
fn readers_of_an_overwritten_file_never_see_it_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hosts");
    let lines = |letter: &str, count| format!("{}\n", letter.repeat(39)).repeat(count);
    let texts = [lines("a", 3), lines("b", 90), lines("c", 2), lines("d", 40)];
    fs::write(&path, &texts[0]).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..2000 {
                overwrite(&path, texts[round % texts.len()].as_bytes()).unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.len() >= 80, "{text:?}");
            let is_known = |byte: &u8| b"abcd\n".contains(byte);
            assert!(text.as_bytes().iter().all(is_known), "{text:?}");
        }
    });
}

#[test]
fn a_full_disk_leaves_the_old_lines_of_an_overwritten_file() {
    if !keelson_testing::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path();
    let options = c"size=64k";
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", disk, "tmpfs", flags, options).unwrap();
    let path = disk.join("hosts");
    fs::write(&path, "192.0.2.1 one\n").unwrap();
    let filled = fs::write(disk.join("rest"), vec![0; 1 << 20]).unwrap_err();
    let error = overwrite(&path, "192.0.2.2 two\n".repeat(1000).as_bytes());
    let text = fs::read_to_string(&path);
    rustix::mount::unmount(disk, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(error.unwrap_err().source.kind(), filled.kind());
    assert_eq!(text.unwrap(), "192.0.2.1 one\n");
}

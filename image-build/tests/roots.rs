//! The set-up steps of this tool on fresh machines. Each machine is a directory made by debootstrap
//! from this machine's own mirror; the real program runs in it by chroot.
//!
//! One of them runs with every test; the others install some hundred packages each, and run by
//! `cargo test -p image-build --test roots -- --include-ignored`.

mod root;

use root::Root;

/// Like cloud images and templates: the base only.
#[test]
#[ignore = "installs some hundred packages"]
fn debian_12() {
    if let Some(root) = Root::new("debian-12", "bookworm") {
        root.gets_everything("test");
    }
}

#[test]
#[ignore = "installs some hundred packages"]
fn debian_13() {
    if let Some(root) = Root::new("debian-13", "trixie") {
        root.gets_everything("test");
    }
}

/// Where the mirror has Ubuntu's archive, too.
#[test]
#[ignore = "installs some hundred packages"]
fn ubuntu_24_04() {
    if let Some(root) = Root::new("ubuntu-24.04", "noble") {
        root.gets_everything("test");
    }
}

/// Here `qemu-utils` is from backports and works only with the other parts of QEMU from backports.
/// apt once removed it to install the stable release's `qemu-system-x86`.
#[test]
fn debian_12_with_qemu_utils_of_backports() {
    let Some(root) = Root::new("debian-12-backports", "bookworm") else {
        return;
    };
    root.add_source("bookworm-backports");
    root.apt(&["update"]);
    root.apt(&[
        "install",
        "--no-install-recommends",
        "qemu-utils/bookworm-backports",
    ]);
    root.remove_source("bookworm-backports");
    root.apt(&["update"]);
    let before = root.version("qemu-utils").expect("it was installed");
    assert!(before.contains("bpo12"), "{before}");

    // Without the name of the release the place of its backports is unknown.
    root.forget_codename();
    let refused = root.setup("run");
    assert!(!refused.success, "{}", refused.text);
    for wanted in [&format!("qemu-utils {before}"), "--allow-downgrades"] {
        assert!(refused.text.contains(wanted), "{wanted}: {}", refused.text);
    }
    assert_eq!(root.version("qemu-utils"), Some(before.clone()));
    assert_eq!(root.version("qemu-system-x86"), None);

    root.remember_codename();
    root.gets_everything("run");
    assert_eq!(root.version("qemu-utils"), Some(before.clone()));
    assert_eq!(root.version("qemu-system-x86"), Some(before));
    root.runs(&["qemu-img", "--version"]);
    root.runs(&["qemu-system-x86_64", "--version"]);
}

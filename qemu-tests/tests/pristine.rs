//! The finished image holds nothing that only one machine may have: whoever boots it makes its own
//! identity.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use qemu_tests::harness::disk::partitions;
use qemu_tests::lab::Lab;

/// Names of files with an identity, or with the traces of a machine that ran.
const SUSPECTS: [&str; 12] = [
    "random-seed",
    "random-seed.bin",
    "machine-info",
    "dhcpcd.duid",
    "duid",
    "adjtime",
    "ca-key.pem",
    "identity.json",
    "authorized_keys",
    "known_hosts",
    "wtmp",
    "lastlog",
];
/// Parts of names with the same meaning.
const PARTS: [&str; 5] = ["ssh_host_", ".lease", ".leases", "_rsa", "_ed25519"];

/// All files below a directory, links not followed.
fn files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files(&entry.path(), found)?;
        } else {
            found.push(entry.path());
        }
    }
    Ok(())
}

fn complaint(path: &Path) -> Result<Option<String>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let content = fs::read(path)?;
    if name == "machine-id" {
        let made = content.iter().any(u8::is_ascii_hexdigit) && content != b"uninitialized\n";
        return Ok(made.then(|| "a machine-id was made".to_owned()));
    }
    let program = content.starts_with(b"\x7fELF");
    let suspect = SUSPECTS.contains(&&*name) || PARTS.iter().any(|part| name.contains(part));
    if suspect && !content.is_empty() && !program {
        return Ok(Some("its name is that of a machine's own file".to_owned()));
    }
    // Programs that read keys know these words, too.
    let key = content.windows(12).any(|window| window == b"PRIVATE KEY-");
    let sealed = program || name.ends_with(".erofs") || name.ends_with(".tar");
    Ok((key && !sealed).then(|| "it holds a private key".to_owned()))
}

#[test]
fn the_image_has_no_identity() -> Result<()> {
    let Some(lab) = Lab::open()? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let disk = lab.disk();
    let root = partitions(&disk)?
        .into_iter()
        .max_by_key(|partition| partition.length)
        .context("no partition")?;
    // The repository's objects are the same files as the deployment's.
    for part in ["/ostree/deploy", "/boot"] {
        let output = Command::new("/usr/sbin/debugfs")
            .arg("-R")
            .arg(format!("rdump {part} {}", dir.path().display()))
            .arg(format!("{}?offset={}", disk.display(), root.offset))
            .output()
            .context("start debugfs")?;
        ensure!(output.status.success(), "{output:?}");
    }
    let mut found = Vec::new();
    files(dir.path(), &mut found)?;
    ensure!(found.len() > 1000, "only {} files", found.len());
    let has_init = found.iter().any(|path| path.ends_with("usr/sbin/init"));
    ensure!(has_init, "no deployment in {}", dir.path().display());
    let mut complaints = Vec::new();
    for path in &found {
        if let Some(why) = complaint(path)? {
            complaints.push(format!("{}: {why}", path.display()));
        }
    }
    ensure!(complaints.is_empty(), "{complaints:#?}");
    let var = found
        .iter()
        .filter(|path| path.components().any(|c| c.as_os_str() == "var"));
    let own: Vec<_> = var
        .filter(|path| path.to_string_lossy().contains("/keelson/host"))
        .collect();
    ensure!(own.is_empty(), "state of a machine: {own:?}");
    Ok(())
}

#[test]
fn an_identity_would_be_noticed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let check = |name: &str, content: &[u8]| -> Result<bool> {
        let path = dir.path().join(name);
        fs::write(&path, content)?;
        Ok(complaint(&path)?.is_some())
    };
    ensure!(check("machine-id", b"0123456789abcdef0123456789abcdef\n")?);
    ensure!(!check("machine-id", b"")?);
    ensure!(!check("machine-id", b"uninitialized\n")?);
    ensure!(check("ssh_host_ed25519_key", b"x")?);
    ensure!(check("server.pem", b"-----BEGIN PRIVATE KEY-----\n")?);
    ensure!(!check("ca.pem", b"-----BEGIN CERTIFICATE-----\n")?);
    Ok(())
}

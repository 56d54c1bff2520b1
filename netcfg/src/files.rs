//! Writes files so that a reader, or a machine after a power cut, sees the old or the new text and
//! nothing in between. Makes the texts of resolv.conf and of the list of time servers.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use keelson_files::Durability;
pub use keelson_files::FileError;

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError {
        operation,
        path,
        source,
    }
}

/// Writes a file of /run: atomic for readers, but not made durable.
///
/// # Errors
/// The operation that failed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes, Durability::Relaxed)
}

/// Writes a file that must survive a loss of power.
///
/// # Errors
/// The operation that failed.
pub(crate) fn write_durable(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace(path, bytes, Durability::Flushed)
}

fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), FileError> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    if durability == Durability::Flushed {
        // Left by a run that ended in a power cut.
        keelson_files::sweep_dead(dir)?;
    }
    keelson_files::write_changed(path, bytes, 0o644, durability)?;
    Ok(())
}

/// Removes a file; a missing file is not an error.
///
/// # Errors
/// The system's answer.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    keelson_files::remove(path)
}

/// The text of resolv.conf. The resolvers of the C libraries use three name servers
/// (resolv.conf(5)), so no more are written.
#[must_use]
pub fn resolv_conf(nameservers: &[IpAddr], search: &[String]) -> String {
    let mut text = String::from("# Written by netcfg. Changes are overwritten.\n");
    for server in nameservers.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text
}

/// Changes the content of a file of /run without replacing it. This is for files that services see
/// through a bind mount, which would still show the old file after a replacement. A reader may see
/// it empty; resolvers read it again when its time stamp changes.
///
/// # Errors
/// The operation that failed.
pub(crate) fn write_in_place(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    if !path.exists() {
        return write(path, bytes);
    }
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(failed("write", path))
}

/// One time server a line.
#[must_use]
pub fn ntp_servers(servers: &[String]) -> String {
    servers.iter().map(|server| format!("{server}\n")).collect()
}

/// The time servers as chrony reads them from a `sourcedir` (chrony.conf(5)).
#[must_use]
pub fn chrony_sources(servers: &[String]) -> String {
    servers
        .iter()
        .map(|server| format!("server {server} iburst\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_at_most_three_servers() {
        let servers: Vec<IpAddr> = (1..6).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let text = resolv_conf(&servers, &["a.example".into(), "b.example".into()]);
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            [
                "nameserver 192.0.2.1",
                "nameserver 192.0.2.2",
                "nameserver 192.0.2.3",
                "search a.example b.example",
            ]
        );
    }

    #[test]
    fn a_file_written_in_place_stays_the_same_file() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/file");
        write_in_place(&path, b"one, longer").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_in_place(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        write(&path, b"one").unwrap();
        write_durable(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}

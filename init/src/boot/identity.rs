//! The machine's identity: machine-id and host name.

use std::fs;
use std::io;
use std::path::Path;

/// Host name of a machine without a configured one.
const DEFAULT_HOSTNAME: &str = "keelson";

/// Makes `/etc/machine-id` (machine-id(5)) once: 32 lower case hexadecimal digits and a line feed.
/// An empty file, `uninitialized` or anything else that is not an identifier counts as none.
pub(crate) fn ensure_machine_id(path: &Path) -> Vec<String> {
    if fs::read(path).is_ok_and(|content| is_machine_id(&content)) {
        return Vec::new();
    }
    let result = match new_machine_id() {
        Ok(id) => crate::files::replace(path, id.as_bytes(), 0o444)
            .map(|()| crate::console::say(&format!("new machine-id {}", id.trim())))
            .map_err(|error| error.to_string()),
        Err(error) => Err(format!("write {}: {error}", path.display())),
    };
    result.err().into_iter().collect()
}

fn is_machine_id(content: &[u8]) -> bool {
    let id = content.strip_suffix(b"\n").unwrap_or(content);
    id.len() == 32
        && id.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && id.iter().any(|b| *b != b'0')
}

/// A random UUID (version 4), as the manual page wants it.
fn new_machine_id() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    // Waits until the kernel's generator is seeded, because identifiers must be unique.
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())?;
    let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
    Ok(format!("{}\n", id.simple()))
}

/// Sets the host name: from the configuration, else from /etc/hostname, else a fixed one.
pub(crate) fn set_hostname(configured: Option<&str>) -> Vec<String> {
    let file = crate::files::first_line("/etc/hostname");
    let name = configured
        .or(file.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_HOSTNAME);
    nix::unistd::sethostname(name)
        .err()
        .map(|error| format!("set host name {name:?}: {error}"))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_id_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine-id");
        for first in ["", "uninitialized\n", "00000000000000000000000000000000\n"] {
            fs::remove_file(&path).ok();
            fs::write(&path, first).unwrap();
            assert!(ensure_machine_id(&path).is_empty());
            let id = fs::read(&path).unwrap();
            assert!(is_machine_id(&id), "{first:?}");
            assert_eq!(id[12], b'4');
            assert!(matches!(id[16], b'8' | b'9' | b'a' | b'b'));
            assert!(ensure_machine_id(&path).is_empty());
            assert_eq!(fs::read(&path).unwrap(), id);
        }
    }

    #[test]
    fn a_directory_that_is_missing_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let problems = ensure_machine_id(&directory.path().join("etc/machine-id"));
        assert_eq!(problems.len(), 1);
    }
}

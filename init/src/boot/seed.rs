//! The random seed that is kept from one boot to the next.

use std::fs;
use std::io;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};

/// The file of the seed.
pub(crate) const FILE: &str = "/var/lib/keelson/random-seed";
/// Size in bytes: more than the state of the kernel's input pool.
const LENGTH: usize = 64;

/// Mixes the old seed into the kernel's pool and replaces it at once, so that no two boots use the
/// same one. The seed is not credited as entropy, because copies of an image have the same file on
/// all machines.
pub(crate) fn restore(path: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    match fs::read(path) {
        Ok(seed) => {
            if let Err(error) = fs::write("/dev/urandom", seed) {
                problems.push(format!("write /dev/urandom: {error}"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(format!("read {}: {error}", path.display())),
    }
    problems.extend(save(path));
    problems
}

/// Writes a new seed, if the kernel's generator is seeded. The stop of the machine saves one in any
/// case.
pub(crate) fn save(path: &Path) -> Option<String> {
    let mut seed = [0u8; LENGTH];
    match getrandom(&mut seed[..], GetRandomFlags::NONBLOCK) {
        Ok(_) => crate::files::replace(path, &seed, 0o600)
            .err()
            .map(|error| error.to_string()),
        Err(rustix::io::Errno::AGAIN) => None,
        Err(error) => Some(format!("getrandom: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_save_is_another_seed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("random-seed");
        assert_eq!(save(&path), None);
        let first = fs::read(&path).unwrap();
        assert_eq!(first.len(), LENGTH);
        assert_eq!(save(&path), None);
        assert_ne!(fs::read(&path).unwrap(), first);
    }
}

//! The valid names of volumes.

use crate::unfit::Unfit;

/// The label of anonymous volumes. Its value has no meaning.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Longest name of a file.
const LONGEST: usize = 255;

/// Whether a volume of the driver `local` may have a name.
///
/// # Errors
/// What is wrong with it, in Docker's words.
pub(crate) fn check(name: &str) -> Result<(), Unfit> {
    if name.len() < 2 {
        return Err(
            "volume name is too short, names should be at least two alphanumeric characters".into(),
        );
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !first || !name.bytes().all(fits) {
        return Err(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )
        .into());
    }
    if name.len() > LONGEST {
        return Err(format!("volume name is longer than {LONGEST} bytes").into());
    }
    Ok(())
}

/// Longest name of a plugin's volume that is no plain file name, in bytes. The name of its
/// directory is longer.
const LONGEST_FOREIGN: usize = 120;

/// Prefix of the directory of a volume whose name is no file name.
const FOREIGN: char = '=';

/// Whether a volume of any driver may have a name. Plugins have their own rules: some accept a path
/// on a server.
///
/// # Errors
/// What is wrong with it.
pub fn check_foreign(name: &str) -> Result<(), Unfit> {
    if check(name).is_ok() {
        return Ok(());
    }
    match name.len() {
        1..=LONGEST_FOREIGN if !name.chars().any(char::is_control) => Ok(()),
        1..=LONGEST_FOREIGN => Err("volume name has control characters".into()),
        _ => Err(format!(
            "volume name has not 1 to {LONGEST_FOREIGN} bytes (up to {LONGEST} when all of them are of [a-zA-Z0-9_.-])"
        )
        .into()),
    }
}

/// The name of a volume's directory.
pub(crate) fn directory(name: &str) -> String {
    match check(name) {
        Ok(()) => name.to_owned(),
        Err(_) => format!("{FOREIGN}{}", hex::encode(name)),
    }
}

/// The name of the volume with a directory of this name.
pub(crate) fn of_directory(directory: &str) -> String {
    let foreign = directory.strip_prefix(FOREIGN);
    let foreign = foreign.and_then(|digits| hex::decode(digits).ok());
    let foreign = foreign.and_then(|bytes| String::from_utf8(bytes).ok());
    foreign.unwrap_or_else(|| directory.to_owned())
}

/// A new unique name of 64 hexadecimal digits.
pub fn generate() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_directory() {
        for name in ["ab", "a", "server/path", "ä b", &"a".repeat(255)] {
            assert_eq!(check_foreign(name), Ok(()), "{name}");
            let directory = directory(name);
            assert_eq!(of_directory(&directory), name);
            assert!(directory.len() <= LONGEST && !directory.contains('/'));
        }
        for bad in ["", "a\nb", &"/".repeat(121), &"a".repeat(256)] {
            assert!(check_foreign(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_plain_file_names() {
        for good in ["ab", "a1", "Data_1.x-y", &generate(), &"a".repeat(255)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "a",
            "-a",
            ".a",
            "_a",
            "a/b",
            "../x",
            "a b",
            "ä1",
            "a\0",
            &"a".repeat(256),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        let error = check("./data").unwrap_err().to_string();
        assert!(error.ends_with("If you intended to pass a host directory, use absolute path"));
    }
}

//! Which names volumes may have.

/// The label of volumes to which nobody gave a name. Its value says nothing.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Names of files are not longer.
const LONGEST: usize = 255;

/// Whether a volume of the driver `local` may have a name.
///
/// # Errors
/// What is wrong with it, in Docker's words.
pub fn check(name: &str) -> Result<(), String> {
    if name.len() < 2 {
        return Err(
            "volume name is too short, names should be at least two alphanumeric characters"
                .to_owned(),
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
        ));
    }
    if name.len() > LONGEST {
        return Err(format!("volume name is longer than {LONGEST} bytes"));
    }
    Ok(())
}

/// A name that no other volume has: 64 hexadecimal digits.
pub fn generate() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let error = check("./data").unwrap_err();
        assert!(error.ends_with("If you intended to pass a host directory, use absolute path"));
    }
}

//! Names in a layer's archive.

use crate::archive::MAX_PATH;

pub(super) const MAX_NAME: usize = 255;
/// How many levels of directories are allowed, because code that walks the tree may hold a
/// descriptor for each.
pub(super) const MAX_DEPTH: usize = 256;
/// How the name of a file begins that hides the rest of the name in the layers below.
pub const WHITEOUT: &[u8] = b".wh.";
/// The file that hides everything that the layers below have in its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The names of a path, without `.` and `..`.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.len() > MAX_PATH {
        return Err("its path is too long");
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if names.pop().is_none() {
                    return Err("its path leads out of the root");
                }
            }
            _ if name.len() > MAX_NAME => return Err("a name in its path is too long"),
            _ if name.contains(&0) => return Err("its path has a zero byte"),
            _ if names.len() >= MAX_DEPTH => return Err("its path has too many directories"),
            _ => names.push(name),
        }
    }
    Ok(names)
}

//! Paths in archives of images.

use std::borrow::Cow;
use std::collections::HashMap;

/// How many links are followed on the way to one file.
const MAX_LINKS: usize = 40;

/// A path without `.`, `..` and doubled slashes. `None` if it leads out of the archive.
pub(crate) fn normal_name(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Follows the links of an archive. A directory on the way may be a link, too.
pub(crate) fn follow<'a>(links: &HashMap<String, String>, name: &'a str) -> Cow<'a, str> {
    if links.is_empty() {
        return Cow::Borrowed(name);
    }
    let mut left: Vec<String> = name.rsplit('/').map(str::to_owned).collect();
    let mut at = String::new();
    let mut followed = 0;
    while let Some(part) = left.pop() {
        if !at.is_empty() {
            at.push('/');
        }
        at.push_str(&part);
        if let Some(target) = links.get(&at)
            && followed < MAX_LINKS
        {
            followed += 1;
            left.extend(target.rsplit('/').map(str::to_owned));
            at.clear();
        }
    }
    Cow::Owned(at)
}

//! The documents of all directories, and the devices by name.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::document::{Document, Edits, is_full_name, parse};
use crate::EngineError;

/// Largest document in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most documents that are read of one directory.
const MAX_FILES: usize = 256;

/// The edits for containers with these devices. Later directories have priority. Documents are read
/// again each time, because drivers write them when hardware is added.
///
/// # Errors
/// [`EngineError::Invalid`], naming the devices that no document describes, or that one
/// directory describes twice.
pub(crate) fn find(directories: &[PathBuf], names: &[String]) -> Result<Edits, EngineError> {
    if names.is_empty() {
        return Ok(Edits::default());
    }
    let read: Vec<_> = directories.iter().map(|path| documents(path)).collect();
    choose(&read, names).map_err(|missing| {
        let places = directories.iter().map(|path| path.display().to_string());
        EngineError::Invalid(format!(
            "CDI device injection failed: unresolvable CDI devices {} (described once in one of {}?)",
            missing.join(", "),
            places.collect::<Vec<_>>().join(", ")
        ))
    })
}

/// Joins the edits of the devices, or names unknown devices.
fn choose(directories: &[Vec<Document>], names: &[String]) -> Result<Edits, Vec<String>> {
    let (mut edits, mut missing) = (Edits::default(), Vec::new());
    let mut begun: Vec<&Document> = Vec::new();
    for name in names {
        let found = directories.iter().rev().find_map(|documents| {
            let mut found = documents.iter().flat_map(|document| {
                let devices = document.devices.iter();
                let own = devices
                    .filter(move |device| *name == format!("{}={}", document.kind, device.name));
                own.map(move |device| (document, device))
            });
            let first = found.next()?;
            Some(found.next().is_none().then_some(first))
        });
        let Some(Some((document, device))) = found.filter(|_| is_full_name(name)) else {
            missing.push(name.clone());
            continue;
        };
        // The common edits of a document are applied once.
        if !begun.iter().any(|other| std::ptr::eq(*other, document)) {
            begun.push(document);
            edits.extend(&document.container_edits);
        }
        edits.extend(&device.container_edits);
    }
    match missing.is_empty() {
        true => Ok(edits),
        false => Err(missing),
    }
}

/// The documents of a directory. Unreadable documents are reported and skipped.
fn documents(directory: &Path) -> Vec<Document> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                tracing::warn!(path = %directory.display(), %error, "descriptions of devices not read");
            }
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("json" | "yaml" | "yml"))
    });
    paths.sort();
    let mut found = Vec::new();
    for path in paths.into_iter().take(MAX_FILES) {
        match read(&path).map(|bytes| parse(&bytes)) {
            Ok(Ok(document)) => found.push(document),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "description of devices not used");
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "description of devices not read");
            }
        }
    }
    found
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The changes that one device of a document requires. An error if the document does not have the
/// device, or has it twice.
pub(crate) fn choose_one(document: &Document, name: &str) -> Result<Edits, Vec<String>> {
    choose(&[vec![document.clone()]], &[name.to_owned()])
}

/// The changes that devices of one document require.
#[cfg(test)]
pub(super) fn of_one(document: Document, names: &[&str]) -> Edits {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    choose(&[vec![document]], &names).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_directories_have_priority_and_duplicates_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let write = |path: &str, name: &str, value: &str| {
            let path = base.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!(
                "{{cdiVersion: 0.6.0, kind: v.com/c, containerEdits: {{env: [ALL=1]}}, \
                 devices: [{{name: {name}, containerEdits: {{env: [A={value}]}}}}]}}"
            );
            fs::write(path, text).unwrap();
        };
        write("etc/a.yaml", "one", "etc");
        write("etc/b.json", "two", "two");
        write("run/a.yaml", "one", "run");
        write("etc/c.json", "twice", "1");
        write("etc/d.json", "twice", "2");
        write("etc/note.txt", "three", "no");
        fs::write(base.path().join("etc/broken.json"), "{").unwrap();
        let directories = ["etc", "missing", "run"].map(|name| base.path().join(name));
        let env = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| format!("v.com/c={name}")).collect();
            find(&directories, &names).map(|edits| edits.env)
        };
        assert_eq!(env(&["one"]).unwrap(), ["ALL=1", "A=run"]);
        assert_eq!(env(&["two", "two"]).unwrap(), ["ALL=1", "A=two", "A=two"]);
        for missing in ["twice", "three"] {
            let error = env(&["one", missing]).unwrap_err().to_string();
            let words = format!("unresolvable CDI devices v.com/c={missing} ");
            assert!(error.contains(&words), "{error}");
        }
        assert_eq!(find(&[], &[]).unwrap(), Edits::default());
    }
}

//! The images of services, as layers that share what they have in common.
//!
//! Each tree of mkosi becomes one layer, without the files that at least two trees have. Those are in
//! the layer `base`, below all others. So the C library is on the machine once, and in a download once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::base::Base;
use crate::progress::{self, Step};
use crate::workspace::Workspace;

/// The image that a build can leave out.
const CONSOLE: &str = "console";
/// The layer of what others share.
const SHARED: &str = "base";
/// Fixed, so that the same files make the same image.
const EROFS_UUID: &str = "8f2b6c1e-1d59-4a37-9f0c-0c6a5a0f7d11";

/// The names of the images.
///
/// # Errors
/// Their directory can't be read.
pub(crate) fn names(root: &Path, console: bool) -> Result<Vec<String>> {
    let mut names = sorted_names(&root.join("mkosi.images"))?;
    names.retain(|name| console || name != CONSOLE);
    Ok(names)
}

/// The names in a directory.
///
/// # Errors
/// It can't be read.
pub(crate) fn sorted_names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// Writes the layers into a directory.
///
/// # Errors
/// A tree is missing, or mkfs.erofs fails.
pub(crate) fn build(
    workspace: &Workspace,
    step: &mut Step,
    base: &Base,
    console: bool,
    destination: &Path,
) -> Result<()> {
    let names = names(workspace.root(), console)?;
    let mut trees = BTreeMap::new();
    for name in names {
        let tree = base.trees.join(&name);
        let files = files_of(&tree).with_context(|| format!("read the tree of {name}"))?;
        trees.insert(name, (tree, files));
    }
    let shared = shared(trees.values().map(|(_, files)| files));
    let staging = workspace.image().join("shared");
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    }
    fs::create_dir_all(&staging)?;
    for path in &shared {
        let found = trees.values().find(|(_, files)| files.contains_key(path));
        if let Some((tree, _)) = found {
            copy(&tree.join(path), &staging.join(path))?;
        }
    }
    fs::create_dir_all(destination)?;
    pack(
        workspace,
        step,
        &staging,
        &[],
        &destination.join(format!("{SHARED}.erofs")),
    )?;
    for (name, (tree, files)) in &trees {
        let left_out: Vec<&PathBuf> = shared
            .iter()
            .filter(|path| files.contains_key(*path))
            .collect();
        let file = destination.join(format!("{name}.erofs"));
        pack(workspace, step, tree, &left_out, &file)?;
    }
    fs::remove_dir_all(&staging)?;
    Ok(())
}

/// What distinguishes a file from another at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    mode: u32,
    bytes: Vec<u8>,
}

/// Files and links of a tree: where each is, by its path in the tree. Contents are read only where two
/// trees have the same path.
type Files = BTreeMap<PathBuf, PathBuf>;

fn files_of(tree: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut open = vec![tree.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                open.push(path);
            } else if metadata.is_file() || metadata.is_symlink() {
                files.insert(path.strip_prefix(tree)?.to_owned(), path);
            }
        }
    }
    Ok(files)
}

/// The paths at which all trees that have them agree, and at least two have them.
fn shared<'a>(trees: impl Iterator<Item = &'a Files>) -> Vec<PathBuf> {
    let mut places: BTreeMap<&PathBuf, Vec<&PathBuf>> = BTreeMap::new();
    for files in trees {
        for (path, file) in files {
            places.entry(path).or_default().push(file);
        }
    }
    let agree = |files: &[&PathBuf]| {
        let mut contents = files.iter().map(|file| content(file).ok());
        let first = contents.next().flatten();
        first.is_some() && contents.all(|other| other == first)
    };
    let shared = places
        .into_iter()
        // What is left out of a layer is named on mkfs.erofs's command line.
        .filter(|(path, files)| files.len() > 1 && path.to_str().is_some() && agree(files));
    shared.map(|(path, _)| path.clone()).collect()
}

fn content(file: &Path) -> Result<Content> {
    let metadata = fs::symlink_metadata(file)?;
    let bytes = match metadata.is_symlink() {
        true => fs::read_link(file)?.into_os_string().into_encoded_bytes(),
        false => fs::read(file)?,
    };
    Ok(Content {
        mode: metadata.mode(),
        bytes,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    if fs::symlink_metadata(from)?.is_symlink() {
        return symlink(fs::read_link(from)?, to).with_context(|| format!("link {}", to.display()));
    }
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

fn pack(
    workspace: &Workspace,
    step: &mut Step,
    tree: &Path,
    left_out: &[&PathBuf],
    file: &Path,
) -> Result<()> {
    let log = progress::log_file(&workspace.log(), "mkfs-erofs");
    let mut command = Command::new("mkfs.erofs");
    // Not compressed: what packs a whole disk or an update packs this better, and a changed file changes
    // only its own part.
    command.args(["-T0", "--all-root", "-U", EROFS_UUID]);
    for path in left_out {
        command.arg(format!("--exclude-path={}", path.display()));
    }
    progress::run(step, command.arg(file).arg(tree), &log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_trees_agree_on_is_shared() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        for tree in ["a", "b"] {
            put(&format!("{tree}/usr/lib/libc.so"), "same");
            put(&format!("{tree}/etc/passwd"), tree);
            symlink("usr/lib", root.join(tree).join("lib")).unwrap();
        }
        put("a/usr/bin/only", "x");
        put("c/usr/lib/libc.so", "same");
        let trees: Vec<Files> = ["a", "b", "c"]
            .iter()
            .map(|tree| files_of(&root.join(tree)).unwrap())
            .collect();
        let found = shared(trees.iter());
        assert_eq!(found, ["lib", "usr/lib/libc.so"].map(PathBuf::from));
        // One that disagrees keeps its own, and then nobody shares.
        put("c/usr/lib/libc.so", "other");
        assert_eq!(shared(trees.iter()), [PathBuf::from("lib")]);
    }
}

//! Writes the files of users and groups, and makes home directories.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use keelson_files::{Durability, write_changed};
use keelson_model::host::UserConfig;

use crate::error::ConsoleError;
use crate::ids::Ids;
use crate::people::{self, Base, Ground, Home, People};

/// The socket of both APIs, whose group may use them.
pub(crate) const API_SOCKET: &str = "/run/keelson/api/docker.sock";

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The image's own passwd, group and shadow.
    pub(crate) base: PathBuf,
    pub(crate) etc: PathBuf,
    /// The numbers of users, which outlive the console's container.
    pub(crate) ids: PathBuf,
    /// The parent of `/home`.
    pub(crate) root: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Places {
    pub(crate) fn of_console() -> Self {
        Self {
            base: "/usr/share/keelson/console".into(),
            etc: "/etc".into(),
            ids: "/var/lib/console/ids".into(),
            root: "/".into(),
            socket: API_SOCKET.into(),
        }
    }
}

/// Lets the console have these users and no others. Returns what is not as the configuration wants.
pub(crate) fn apply(places: &Places, users: &[UserConfig]) -> Result<Vec<String>, ConsoleError> {
    let read = |name: &str| -> Result<String, ConsoleError> {
        let path = places.base.join(name);
        fs::read_to_string(&path).map_err(ConsoleError::io("read", path))
    };
    let base = Base {
        passwd: read("passwd")?,
        group: read("group")?,
        shadow: read("shadow")?,
    };
    let (mut ids, note) = numbers(places)?;
    let socket = fs::metadata(&places.socket).ok();
    let ground = Ground {
        docker: socket.map(|socket| socket.gid()).filter(|gid| *gid != 0),
        is_program: &|path| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.mode() & 0o111 != 0)
        },
    };
    let made = people::make(&base, users, &mut ids, &ground);
    // Numbers first: a user that was seen keeps its number.
    write_changed(
        &places.ids,
        ids.to_text().as_bytes(),
        0o600,
        Durability::Flushed,
    )?;
    write(places, &made)?;
    let mut notes = made.notes;
    notes.extend(note);
    for home in &made.homes {
        if let Err(error) = make_home(places, home) {
            notes.push(error.to_string());
        }
    }
    Ok(notes)
}

/// The numbers that were given out, and what to say about them. If the file is damaged, it is kept
/// aside, and the owners of the homes tell the numbers: nobody may get another one's files.
fn numbers(places: &Places) -> Result<(Ids, Option<String>), ConsoleError> {
    let path = &places.ids;
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Ids::default(), None)),
        Err(error) => return Err(ConsoleError::io("read", path)(error)),
    };
    if let Some(ids) = Ids::parse(&bytes) {
        return Ok((ids, None));
    }
    let kept = path.with_extension("unreadable");
    fs::rename(path, &kept).map_err(ConsoleError::io("rename", path))?;
    let homes = places.root.join("home");
    let mut owners = Vec::new();
    for entry in fs::read_dir(&homes).map_err(ConsoleError::io("list", &homes))? {
        let entry = entry.map_err(ConsoleError::io("list", &homes))?;
        let home = entry
            .metadata()
            .map_err(ConsoleError::io("look at", entry.path()))?;
        owners.push((entry.file_name().to_string_lossy().into_owned(), home.uid()));
    }
    let note = format!(
        "the numbers of users can't be read and are kept as {}; the owners of homes say them",
        kept.display()
    );
    Ok((Ids::known(owners.into_iter()), Some(note)))
}

fn write(places: &Places, made: &People) -> Result<(), ConsoleError> {
    let keys = places.etc.join("ssh/authorized_keys.d");
    fs::create_dir_all(&keys).map_err(ConsoleError::io("mkdir", &keys))?;
    // Who is no longer named must not get in: before everything else.
    let entries = fs::read_dir(&keys).map_err(ConsoleError::io("list", &keys))?;
    for entry in entries {
        let entry = entry.map_err(ConsoleError::io("list", &keys))?;
        let known = entry
            .file_name()
            .to_str()
            .is_some_and(|name| made.keys.contains_key(name));
        if !known {
            fs::remove_file(entry.path()).map_err(ConsoleError::io("remove", entry.path()))?;
        }
    }
    for (name, text) in &made.keys {
        write_changed(
            &keys.join(name),
            text.as_bytes(),
            0o644,
            Durability::Relaxed,
        )?;
    }
    for (name, text, mode) in [
        ("group", &made.group, 0o644),
        ("passwd", &made.passwd, 0o644),
        ("shadow", &made.shadow, 0o600),
        ("sudoers.d/keelson", &made.sudoers, 0o440),
    ] {
        write_changed(
            &places.etc.join(name),
            text.as_bytes(),
            mode,
            Durability::Relaxed,
        )?;
    }
    Ok(())
}

/// Makes a home directory that does not exist. One that exists is left as it is. It gets its name when
/// it is complete: after a kill there is none, not one that belongs to root.
fn make_home(places: &Places, home: &Home) -> Result<(), ConsoleError> {
    let path = places.root.join(home.path.trim_start_matches('/'));
    match fs::symlink_metadata(&path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(ConsoleError::io("look at", &path)(error)),
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // No user's name begins with a dot.
    let new = path.with_file_name(format!(".new-{name}"));
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ConsoleError::io("remove", &new)(error));
        }
        _ => {}
    }
    DirBuilder::new()
        .mode(0o700)
        .create(&new)
        .map_err(ConsoleError::io("mkdir", &new))?;
    let skeleton = places.etc.join("skel");
    for entry in fs::read_dir(&skeleton).into_iter().flatten().flatten() {
        let target = new.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), &target).map_err(ConsoleError::io("copy", &target))?;
            give(&target, home)?;
        }
    }
    give(&new, home)?;
    fs::rename(&new, &path).map_err(ConsoleError::io("rename", &new))
}

fn give(path: &Path, home: &Home) -> Result<(), ConsoleError> {
    lchown(path, Some(home.uid), Some(home.gid)).map_err(ConsoleError::io("chown", path))
}

/// A directory with this mode, whether it exists or not.
pub(crate) fn directory(path: &Path, mode: u32) -> Result<(), ConsoleError> {
    fs::create_dir_all(path).map_err(ConsoleError::io("mkdir", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(ConsoleError::io("chmod", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_come_and_go_and_keep_their_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in ["base", "etc/skel", "etc/sudoers.d", "home"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["passwd", "group", "shadow"] {
            fs::write(root.join("base").join(name), "").unwrap();
        }
        fs::write(root.join("etc/skel/.profile"), "hello").unwrap();
        let places = Places {
            base: root.join("base"),
            etc: root.join("etc"),
            ids: root.join("ids"),
            root: root.to_owned(),
            socket: root.join("no-socket"),
        };
        let own = fs::metadata(root).unwrap().uid();
        let user = |name: &str| UserConfig {
            name: name.to_owned(),
            ssh_authorized_keys: vec!["key".to_owned()],
            groups: Vec::new(),
            password_hash: None,
            shell: Some("/bin/sh".to_owned()),
            sudo: true,
            container: None,
        };
        let notes = apply(&places, &[user("anna"), user("core")]).unwrap();
        // Only root may give directories away.
        assert_eq!(notes.is_empty(), own == 0, "{notes:?}");
        if own == 0 {
            let profile = fs::metadata(root.join("home/core/.profile")).unwrap();
            assert_eq!(profile.uid(), 1001);
        }
        apply(&places, &[user("core")]).unwrap();
        let keys = root.join("etc/ssh/authorized_keys.d");
        assert!(keys.join("core").exists() && !keys.join("anna").exists());
        let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
        assert_eq!(passwd, "core:x:1001:1001::/home/core:/bin/sh\n");
        apply(&places, &[]).unwrap();
        assert!(
            fs::read_to_string(root.join("etc/sudoers.d/keelson"))
                .unwrap()
                .is_empty()
        );
        apply(&places, &[user("anna")]).unwrap();
        let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
        assert!(passwd.starts_with("anna:x:1000:"), "{passwd}");

        if own == 0 {
            fs::write(&places.ids, "anna\n").unwrap();
            let notes = apply(&places, &[user("core"), user("new")]).unwrap();
            assert!(
                notes.iter().any(|note| note.contains("ids.unreadable")),
                "{notes:?}"
            );
            let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
            assert!(
                passwd.contains("core:x:1001:") && !passwd.contains("new:x:1000:"),
                "{passwd}"
            );
            let homes = fs::read_dir(root.join("home")).unwrap().flatten();
            assert!(
                homes
                    .map(|home| home.file_name())
                    .all(|name| name != ".new-new")
            );
        }
    }
}

//! The console's users and groups. Pure: from the files of the image and the configuration to files.

use std::collections::{BTreeMap, BTreeSet};

use keelson_model::host::UserConfig;

use crate::ids::Ids;

/// Login shell of users that name none.
const SHELL: &str = "/bin/bash";
/// Login shell of users who have a container of their own.
pub(crate) const OWN_CONTAINER: &str = "/usr/lib/keelson/own-container";
/// What such users may execute as root.
pub(crate) const ENTER_CONTAINER: &str = "/usr/lib/keelson/enter-container";
/// The group of such users. sshd forwards nothing for it.
const CONTAINED: &str = "contained";
/// The group that may use the APIs.
const DOCKER: &str = "docker";

/// The files that the image has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    pub(crate) passwd: String,
    pub(crate) group: String,
    pub(crate) shadow: String,
}

/// What is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct People {
    pub(crate) passwd: String,
    pub(crate) group: String,
    pub(crate) shadow: String,
    pub(crate) sudoers: String,
    /// The keys of each user, as `authorized_keys`.
    pub(crate) keys: BTreeMap<String, String>,
    pub(crate) homes: Vec<Home>,
    /// What is not as the configuration wants it.
    pub(crate) notes: Vec<String>,
}

/// A home directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Home {
    pub(crate) path: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The group that owns the socket of the APIs, and whether there is a shell.
pub(crate) struct Ground<'a> {
    pub(crate) docker: Option<u32>,
    pub(crate) is_program: &'a dyn Fn(&str) -> bool,
}

/// Makes the files.
pub(crate) fn make(
    base: &Base,
    users: &[UserConfig],
    ids: &mut Ids,
    ground: &Ground<'_>,
) -> People {
    let mut made = People {
        passwd: lines(&base.passwd),
        shadow: lines(&base.shadow),
        ..People::default()
    };
    let mut groups = Groups::parse(&base.group);
    if let Some(gid) = ground.docker {
        groups.set(DOCKER, gid);
    }
    for user in users {
        add(user, ids, ground, &mut groups, &mut made);
    }
    made.group = groups.to_text();
    made
}

fn add(
    user: &UserConfig,
    ids: &mut Ids,
    ground: &Ground<'_>,
    groups: &mut Groups,
    made: &mut People,
) {
    let name = user.name.as_str();
    let keys: String = user
        .ssh_authorized_keys
        .iter()
        .map(|key| format!("{key}\n"))
        .collect();
    made.keys.insert(name.to_owned(), keys);
    let shell = shell(user, ground, &mut made.notes);
    // With `*` no password fits, and keys count. `!` would lock the keys out, too.
    let hash = user.password_hash.as_deref().unwrap_or("*");
    if name == "root" {
        made.passwd = change(&made.passwd, "root", 6, &shell);
        made.shadow = change(&made.shadow, "root", 1, hash);
        return;
    }
    let Some(uid) = ids.of(name) else {
        made.notes
            .push(format!("user {name}: there are no more numbers for users"));
        return;
    };
    let gid = groups.find(name).unwrap_or_else(|| {
        groups.set(name, uid);
        uid
    });
    let home = format!("/home/{name}");
    made.passwd += &format!("{name}:x:{uid}:{gid}::{home}:{shell}\n");
    made.shadow += &format!("{name}:{hash}:20000:0:99999:7:::\n");
    made.homes.push(Home {
        path: home,
        uid,
        gid,
    });
    let contained = user.container.is_some();
    let own = user.groups.iter().map(String::as_str);
    let more = contained.then_some(CONTAINED);
    for group in own.chain(more) {
        if contained && matches!(group, DOCKER | "sudo") {
            made.notes.push(format!(
                "user {name}: group {group} is left out, since it leads out of the user's container"
            ));
            continue;
        }
        if groups.find(group).is_none() {
            match ids.of(&format!("%{group}")) {
                Some(gid) => groups.set(group, gid),
                None => {
                    made.notes
                        .push(format!("user {name}: there is no number for group {group}"));
                    continue;
                }
            }
        }
        groups.join(group, name);
    }
    match (contained, user.sudo) {
        (true, sudo) => {
            if sudo {
                made.notes.push(format!(
                    "user {name}: sudo is left out, since it leads out of the user's container"
                ));
            }
            made.sudoers += &format!("{name} ALL=(root) NOPASSWD: {ENTER_CONTAINER}\n");
        }
        (false, true) => made.sudoers += &format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n"),
        (false, false) => {}
    }
}

fn shell(user: &UserConfig, ground: &Ground<'_>, notes: &mut Vec<String>) -> String {
    if user.container.is_some() && user.name != "root" {
        return OWN_CONTAINER.to_owned();
    }
    let shell = user.shell.as_deref().unwrap_or(SHELL);
    // A colon would end the field.
    if shell.contains([':', '\n']) || !(ground.is_program)(shell) {
        let name = &user.name;
        notes.push(format!(
            "user {name}: the console has no {shell}: {SHELL} is used"
        ));
        return SHELL.to_owned();
    }
    shell.to_owned()
}

/// The text with a line end after the last line.
fn lines(text: &str) -> String {
    text.lines().map(|line| format!("{line}\n")).collect()
}

/// Replaces a field of the line of `name`.
fn change(text: &str, name: &str, field: usize, value: &str) -> String {
    let line = |line: &str| {
        let mut fields: Vec<&str> = line.split(':').collect();
        if fields.first() == Some(&name)
            && let Some(field) = fields.get_mut(field)
        {
            *field = value;
        }
        fields.join(":") + "\n"
    };
    text.lines().map(line).collect()
}

/// group(5).
struct Groups(Vec<(String, u32, BTreeSet<String>)>);

impl Groups {
    fn parse(text: &str) -> Self {
        let groups = text.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',');
            let members = members.filter(|member| !member.is_empty());
            Some((name, gid, members.map(str::to_owned).collect()))
        });
        Self(groups.collect())
    }

    fn find(&self, name: &str) -> Option<u32> {
        let found = self.0.iter().find(|(group, ..)| group == name);
        found.map(|(_, gid, _)| *gid)
    }

    fn set(&mut self, name: &str, gid: u32) {
        match self.0.iter_mut().find(|(group, ..)| group == name) {
            Some(group) => group.1 = gid,
            None => self.0.push((name.to_owned(), gid, BTreeSet::new())),
        }
    }

    fn join(&mut self, name: &str, user: &str) {
        if let Some(group) = self.0.iter_mut().find(|(group, ..)| group == name) {
            group.2.insert(user.to_owned());
        }
    }

    fn to_text(&self) -> String {
        let line = |(name, gid, members): &(String, u32, BTreeSet<String>)| {
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            format!("{name}:x:{gid}:{}\n", members.join(","))
        };
        self.0.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests;

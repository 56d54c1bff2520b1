//! `users`, `user`, `ssh_authorized_keys`, `password`, `chpasswd`.

use crate::fields::Fields;
use crate::notes::Notes;
use crate::settings::{Settings, User, good_name};
use crate::yaml::{Value, YamlNode};

/// Members of a user that have no effect.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("plain_text_passwd", "give its hash in hashed_passwd"),
    ("ssh_import_id", "write the keys into ssh_authorized_keys"),
    ("ssh_redirect_user", "give the user its own keys"),
    ("doas", "use sudo"),
    ("expiredate", "remove the user from the configuration"),
    ("inactive", "remove the user from the configuration"),
    ("selinux_user", "the host has no SELinux"),
    ("snapuser", "the host has no snaps"),
    ("uid", "the host chooses it"),
    ("homedir", "it is /home/NAME"),
    ("primary_group", "it has the name of the user"),
];
/// What all users have, or what is only a comment.
const SATISFIED: &[&str] = &[
    "gecos",
    "system",
    "create_groups",
    "no_create_home",
    "no_user_group",
    "no_log_init",
];

/// Takes the members of the document that are about people.
pub(super) fn translate(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    default_user(fields, settings, notes);
    if let Some(node) = fields.take("users") {
        // A list without `default` means that there is no default user.
        settings.default_user.wanted = false;
        entries(node, settings, notes);
    }
    let keys = fields.texts("ssh_authorized_keys", notes);
    add_keys(&mut settings.default_user.keys, &keys);
    if let Some(node) = fields.take("password") {
        let hash = node.text().filter(|text| text.starts_with('$'));
        match hash {
            Some(hash) => settings.default_user.password_hash = Some(hash.to_owned()),
            None => notes.at(
                node.line,
                "password must be a hash (crypt) and is left out: openssl passwd -6 makes one",
            ),
        }
    }
    if let Some(node) = fields.take("chpasswd") {
        passwords(node, settings, notes);
    }
}

/// `user`: a name, or a mapping, for the default user.
fn default_user(fields: &mut Fields<'_>, settings: &mut Settings, notes: &mut Notes) {
    let Some(node) = fields.take("user") else {
        return;
    };
    if let Some(name) = node.text() {
        settings.default_user.name = name.to_owned();
        return;
    }
    let Some(user) = user(node, "user", notes) else {
        return;
    };
    settings.default_user.name.clone_from(&user.name);
    put(settings, user);
}

/// `users`: a list of names and mappings, or names with commas.
fn entries(node: &YamlNode, settings: &mut Settings, notes: &mut Notes) {
    match &node.value {
        Value::Scalar { text, .. } => {
            for name in text.split(',').map(str::trim) {
                named(name, node.line, settings, notes);
            }
        }
        Value::List(list) => {
            for entry in list {
                match entry.text() {
                    Some(name) => named(name, entry.line, settings, notes),
                    None => {
                        if let Some(user) = user(entry, "users[]", notes) {
                            put(settings, user);
                        }
                    }
                }
            }
        }
        Value::Map(_) => notes.at(node.line, "users must be a list and is left out"),
    }
}

fn named(name: &str, line: usize, settings: &mut Settings, notes: &mut Notes) {
    match name {
        "" => {}
        "default" => settings.default_user.wanted = true,
        name if good_name(name) => put(
            settings,
            User {
                name: name.to_owned(),
                ..User::default()
            },
        ),
        _ => notes.at(line, "users[] is no valid login name and is left out"),
    }
}

fn put(settings: &mut Settings, user: User) {
    settings.user.retain(|before| before.name != user.name);
    settings.user.push(user);
}

fn user(node: &YamlNode, path: &str, notes: &mut Notes) -> Option<User> {
    let mut fields = Fields::of(node, path, notes);
    let name = fields.text("name", notes).unwrap_or_default();
    if !good_name(name) {
        notes.at(
            node.line,
            format!("{path}.name is no valid login name; the user is left out"),
        );
        return None;
    }
    let mut user = User {
        name: name.to_owned(),
        ..User::default()
    };
    let keys = fields.texts("ssh_authorized_keys", notes);
    add_keys(&mut user.ssh_authorized_keys, &keys);
    user.groups = fields
        .texts("groups", notes)
        .iter()
        .flat_map(|text| text.split(','))
        .map(|group| group.trim().to_owned())
        .filter(|group| !group.is_empty())
        .collect();
    user.shell = fields.text("shell", notes).map(str::to_owned);
    // False and absent mean no; anything else are rules of sudoers.
    user.sudo = fields
        .take("sudo")
        .is_some_and(|node| node.boolean() != Some(false));
    let locked = fields.boolean("lock_passwd", notes).unwrap_or(true);
    let hashed = fields.text("hashed_passwd", notes);
    let hash = hashed.or(fields.text("passwd", notes));
    match hash {
        // That is the default of cloud-init, and surprises people.
        Some(_) if locked => notes.at(
            node.line,
            format!(
                "{path}: the password of {name} stays locked, because lock_passwd is not false"
            ),
        ),
        hash => user.password_hash = hash.map(str::to_owned),
    }
    fields.ignore(SATISFIED);
    fields.unsupported(UNSUPPORTED, notes);
    fields.finish(notes);
    Some(user)
}

/// `chpasswd`: `users` with hashes, or `list` with `NAME:HASH` in lines.
fn passwords(node: &YamlNode, settings: &mut Settings, notes: &mut Notes) {
    let mut fields = Fields::of(node, "chpasswd", notes);
    let mut found: Vec<(usize, String, String)> = Vec::new();
    for entry in fields.list("users", notes) {
        let mut member = Fields::of(entry, "chpasswd.users[]", notes);
        let name = member.text("name", notes).unwrap_or_default().to_owned();
        let password = member
            .text("password", notes)
            .unwrap_or_default()
            .to_owned();
        member.ignore(&["type"]);
        member.finish(notes);
        found.push((entry.line, name, password));
    }
    if let Some(list) = fields.take("list") {
        for (line, text) in list.texts().unwrap_or_default() {
            for pair in text.lines() {
                if let Some((name, password)) = pair.trim().split_once(':') {
                    found.push((line, name.to_owned(), password.to_owned()));
                }
            }
        }
    }
    if fields.boolean("expire", notes) != Some(false) && !found.is_empty() {
        notes.at(
            node.line,
            "chpasswd.expire is not supported: passwords do not expire at the first login",
        );
    }
    fields.finish(notes);
    for (line, name, password) in found {
        if !password.starts_with('$') {
            notes.at(
                line,
                "chpasswd has a password that is no hash (crypt), which is left out",
            );
        } else if let Some(user) = settings.user.iter_mut().find(|user| user.name == name) {
            user.password_hash = Some(password);
        } else if name == settings.default_user.name {
            settings.default_user.password_hash = Some(password);
        } else {
            notes.at(line, "chpasswd names a user that users does not have");
        }
    }
}

fn add_keys(keys: &mut Vec<String>, more: &[&str]) {
    for key in more.iter().flat_map(|text| text.lines()).map(str::trim) {
        if !key.is_empty() && !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
}

//! `passwd`.

use crate::fields::Fields;
use crate::notes::Notes;
use crate::settings::{Settings, User, good_name};
use crate::yaml::YamlNode;

const UNSUPPORTED: &[(&str, &str)] = &[
    ("uid", "the host chooses it"),
    ("homeDir", "it is /home/NAME"),
    ("primaryGroup", "it has the name of the user"),
    (
        "shouldExist",
        "users that the configuration does not name do not exist",
    ),
];

/// Takes `passwd`. Keys go where all keys of the configuration go, not to
/// `.ssh/authorized_keys.d/ignition`: the host's sshd reads one place.
pub(super) fn translate(node: &YamlNode, settings: &mut Settings, notes: &mut Notes) {
    let mut passwd = Fields::of(node, "passwd", notes);
    for entry in passwd.list("users", notes) {
        user(entry, settings, notes);
    }
    passwd.unsupported(&[("groups", "name them in passwd.users[].groups")], notes);
    passwd.finish(notes);
}

fn user(node: &YamlNode, settings: &mut Settings, notes: &mut Notes) {
    let mut fields = Fields::of(node, "passwd.users[]", notes);
    let name = fields.text("name", notes).unwrap_or_default();
    if !good_name(name) {
        notes.at(
            node.line,
            "passwd.users[].name is no valid login name; the user is left out",
        );
        return;
    }
    // Nothing makes users that the configuration does not name.
    if fields.boolean("shouldExist", notes) == Some(false) {
        settings.user.retain(|user| user.name != name);
        return;
    }
    // What another configuration says about the same user is completed, not replaced.
    let place = settings.user.iter().position(|user| user.name == name);
    let place = place.unwrap_or_else(|| {
        settings.user.push(User {
            name: name.to_owned(),
            ..User::default()
        });
        settings.user.len() - 1
    });
    let Some(user) = settings.user.get_mut(place) else {
        return;
    };
    for key in fields.texts("sshAuthorizedKeys", notes) {
        if !user.ssh_authorized_keys.iter().any(|known| known == key) {
            user.ssh_authorized_keys.push(key.to_owned());
        }
    }
    for group in fields.texts("groups", notes) {
        if !user.groups.iter().any(|known| known == group) {
            user.groups.push(group.to_owned());
        }
    }
    user.sudo |= user
        .groups
        .iter()
        .any(|group| group == "sudo" || group == "wheel");
    if let Some(hash) = fields.text("passwordHash", notes) {
        user.password_hash = Some(hash.to_owned());
    }
    if let Some(shell) = fields.text("shell", notes) {
        user.shell = Some(shell.to_owned());
    }
    fields.ignore(&[
        "gecos",
        "system",
        "noCreateHome",
        "noUserGroup",
        "noLogInit",
    ]);
    fields.unsupported(UNSUPPORTED, notes);
    fields.finish(notes);
}

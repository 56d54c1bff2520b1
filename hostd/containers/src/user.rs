//! Resolves the user of the command: `user`, `uid`, `user:group` or `uid:gid`, by the image's own
//! passwd(5) and group(5).

use crate::EngineError;

/// Larger files are not read.
pub(crate) const MAX_FILE: u64 = 4 << 20;
/// The kernel's range; the highest value means "unchanged".
const MAX_ID: u32 = u32::MAX - 1;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Sorted as found, without duplicates.
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) home: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves the `user` member of a container's configuration and its additional groups. The
/// files may be empty: numbers need no entries.
pub(crate) fn resolve(
    user: &str,
    group_add: &[String],
    passwd: &[u8],
    group: &[u8],
) -> Result<User, EngineError> {
    let passwd = String::from_utf8_lossy(passwd);
    let group = String::from_utf8_lossy(group);
    let (user_part, group_part) = user.split_once(':').unwrap_or((user, ""));
    let number = if user_part.is_empty() {
        Some(0)
    } else {
        parse_id(user_part)
    };
    // A name made of digits is looked up as a name first.
    let account = accounts(&passwd)
        .find(|account| account.name == user_part)
        .or_else(|| accounts(&passwd).find(|account| Some(account.uid) == number));
    let uid = match (&account, number) {
        (Some(account), _) => account.uid,
        (None, Some(number)) => number,
        (None, None) => {
            return Err(EngineError::Invalid(format!(
                "unable to find user {user_part}: no matching entries in passwd file"
            )));
        }
    };
    let gid = if group_part.is_empty() {
        account.as_ref().map_or(0, |account| account.gid)
    } else {
        group_id(group_part, &group)?
    };
    let mut additional_gids = vec![gid];
    // A group given explicitly replaces the account's memberships, as with newgrp(1).
    if group_part.is_empty()
        && let Some(account) = &account
    {
        for group in groups(&group) {
            if group
                .members
                .split(',')
                .any(|member| member == account.name)
            {
                additional_gids.push(group.gid);
            }
        }
    }
    for wanted in group_add {
        additional_gids.push(group_id(wanted, &group)?);
    }
    let mut unique = Vec::with_capacity(additional_gids.len());
    for gid in additional_gids {
        if !unique.contains(&gid) {
            unique.push(gid);
        }
    }
    Ok(User {
        uid,
        gid,
        additional_gids: unique,
        home: account
            .map(|account| account.home)
            .filter(|home| home.starts_with('/'))
            .unwrap_or("/")
            .to_owned(),
    })
}

fn group_id(wanted: &str, file: &str) -> Result<u32, EngineError> {
    groups(file)
        .find(|group| group.name == wanted)
        .map(|group| group.gid)
        .or_else(|| parse_id(wanted))
        .ok_or_else(|| {
            EngineError::Invalid(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))
        })
}

fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && *number <= MAX_ID)
}

fn accounts(file: &str) -> impl Iterator<Item = Account<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1).and_then(parse_id)?;
        let gid = fields.next().and_then(parse_id)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(file: &str) -> impl Iterator<Item = Group<'_>> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1).and_then(parse_id)?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\n\nweb:x:33:34::/srv:\n\
        broken:x:y:0\n1000:x:77:78::/digits:\nnohome:x:5:5::relative:\n";
    const GROUP: &[u8] = b"root:x:0:\nwww:x:34:\nadm:x:4:root,web\nlog:x:6:web\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let user = resolve(user, &[], PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.additional_gids, user.home)
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(ids(""), (0, 0, vec![0, 4], "/root".to_owned()));
        assert_eq!(ids("web"), (33, 34, vec![34, 4, 6], "/srv".to_owned()));
        assert_eq!(ids("33"), (33, 34, vec![34, 4, 6], "/srv".to_owned()));
        assert_eq!(ids("web:adm"), (33, 4, vec![4], "/srv".to_owned()));
        assert_eq!(ids("12:13"), (12, 13, vec![13], "/".to_owned()));
        assert_eq!(ids("1000"), (77, 78, vec![78], "/digits".to_owned()));
        assert_eq!(ids("nohome").3, "/");
        let user = resolve("web", &["www".to_owned(), "99".to_owned()], PASSWD, GROUP).unwrap();
        assert_eq!(user.additional_gids, [34, 4, 6, 99]);
    }

    #[test]
    fn unknown_names_are_refused() {
        for user in ["nobody", "web:nogroup", "broken", "-1", "4294967295", "+5"] {
            assert!(resolve(user, &[], PASSWD, GROUP).is_err(), "{user}");
        }
        assert!(resolve("", &["none".to_owned()], PASSWD, GROUP).is_err());
        assert!(resolve("5", &[], b"", b"").is_ok());
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(
            user in "\\PC{0,8}",
            passwd: Vec<u8>,
            group in "([a-z]{0,3}:?){0,9}",
        ) {
            let _ = resolve(&user, &[], &passwd, group.as_bytes());
        }
    }
}

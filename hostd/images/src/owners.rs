//! Translates owners of files between a container with a user namespace and the host.
//!
//! Besides the owner itself, two extended attributes name users: access control lists, and file
//! capabilities, which are valid in one user namespace only. The kernel returns and accepts both
//! with the host's ids.

use keelson_model::users::UserRange;

/// The id that the kernel shows for an unmapped user or group.
const NOBODY: u32 = 65_534;
const CAPABILITY: &[u8] = b"security.capability";
const ACCESS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// `VFS_CAP_REVISION_2`, `VFS_CAP_REVISION_3` and the mask for them (linux/capability.h).
const CAPABILITY_2: u32 = 0x0200_0000;
const CAPABILITY_3: u32 = 0x0300_0000;
const CAPABILITY_FLAGS: u32 = 0x00ff_ffff;
/// Bytes of the older revision. The newer one adds the root user's id.
const CAPABILITY_SIZE: usize = 20;
/// Bytes of an access control list's header (its version), and of an entry: tag, permissions, id.
const ACCESS_HEADER: usize = 4;
const ACCESS_ENTRY: usize = 8;
/// `ACL_USER` and `ACL_GROUP`: the entries with an id.
const WITH_ID: [u16; 2] = [0x02, 0x08];

/// How owners are translated between a container and the host. The default translates nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owners(Option<UserRange>);

impl From<Option<UserRange>> for Owners {
    fn from(users: Option<UserRange>) -> Self {
        Self(users)
    }
}

impl Owners {
    /// Translates the host's id of a user or group to the container's.
    pub fn inside(self, id: u32) -> u32 {
        match self.0 {
            Some(users) => users.inside(id).unwrap_or(NOBODY),
            None => id,
        }
    }

    /// Translates the container's id of a user or group to the host's; `None` if it is not mapped.
    pub fn outside(self, id: u32) -> Option<u32> {
        match self.0 {
            Some(users) => users.outside(id),
            None => Some(id),
        }
    }

    /// Translates an extended attribute to the container's ids. `None` if the container does not
    /// see it.
    pub fn attribute_inside(self, name: &[u8], value: Vec<u8>) -> Option<Vec<u8>> {
        let Some(users) = self.0 else {
            return Some(value);
        };
        match name {
            CAPABILITY => {
                let (head, root) = value.split_at_checked(CAPABILITY_SIZE)?;
                let flags = number(head)? & CAPABILITY_FLAGS;
                let root = match root.is_empty() {
                    // It is valid for the host's root only.
                    true => return None,
                    false => users.inside(number(root)?)?,
                };
                Some(match root {
                    0 => capability(CAPABILITY_2 | flags, head, None),
                    root => capability(CAPABILITY_3 | flags, head, Some(root)),
                })
            }
            _ if ACCESS.contains(&name) => translated(value, |id| Some(self.inside(id))),
            _ => Some(value),
        }
    }

    /// Translates an extended attribute to the host's ids. `None` if it names an unmapped user or
    /// group.
    pub fn attribute_outside(self, name: &[u8], value: Vec<u8>) -> Option<Vec<u8>> {
        let Some(users) = self.0 else {
            return Some(value);
        };
        match name {
            CAPABILITY => {
                let (head, root) = value.split_at_checked(CAPABILITY_SIZE)?;
                let flags = number(head)? & CAPABILITY_FLAGS;
                let root = match root.is_empty() {
                    true => 0,
                    false => number(root)?,
                };
                let root = users.outside(root)?;
                Some(capability(CAPABILITY_3 | flags, head, Some(root)))
            }
            _ if ACCESS.contains(&name) => translated(value, |id| users.outside(id)),
            _ => Some(value),
        }
    }
}

/// The first four bytes, as the kernel stores numbers in attributes.
fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

fn capability(magic: u32, old: &[u8], root: Option<u32>) -> Vec<u8> {
    let mut value = magic.to_le_bytes().to_vec();
    value.extend_from_slice(old.get(4..).unwrap_or_default());
    value.extend(root.into_iter().flat_map(u32::to_le_bytes));
    value
}

fn translated(mut value: Vec<u8>, id: impl Fn(u32) -> Option<u32>) -> Option<Vec<u8>> {
    let entries = value.get_mut(ACCESS_HEADER..)?;
    for entry in entries.chunks_exact_mut(ACCESS_ENTRY) {
        let [tag, tag_high, _, _, of @ ..] = entry else {
            return None;
        };
        if WITH_ID.contains(&u16::from_le_bytes([*tag, *tag_high])) {
            of.copy_from_slice(&id(number(of)?)?.to_le_bytes());
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USERS: UserRange = UserRange {
        base: 100_000,
        size: 65_536,
    };

    fn owners() -> Owners {
        Owners::from(Some(USERS))
    }

    #[test]
    fn unmapped_ids_are_shown_as_nobody_and_refused() {
        assert_eq!(owners().inside(0), NOBODY);
        assert_eq!(owners().inside(100_007), 7);
        assert_eq!(owners().outside(65_536), None);
        assert_eq!(Owners::default().outside(65_536), Some(65_536));
        assert_eq!(Owners::default().inside(0), 0);
    }

    #[test]
    fn capabilities_belong_to_a_root_user() {
        let mut old = (CAPABILITY_2 | 1).to_le_bytes().to_vec();
        old.extend([7; 16]);
        let new = owners().attribute_outside(CAPABILITY, old.clone()).unwrap();
        assert_eq!(new.len(), 24);
        assert_eq!(number(&new), Some(CAPABILITY_3 | 1));
        assert_eq!(number(&new[20..]), Some(100_000));
        assert_eq!(
            owners().attribute_inside(CAPABILITY, new),
            Some(old.clone())
        );
        // Capabilities of the host's root are invalid inside.
        assert_eq!(owners().attribute_inside(CAPABILITY, old.clone()), None);
        let none = Owners::default();
        assert_eq!(none.attribute_outside(CAPABILITY, old.clone()), Some(old));
    }

    #[test]
    fn access_control_lists_are_translated() {
        let entry =
            |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[6, 0], &id.to_le_bytes()].concat();
        let list = |user, group| {
            [
                &2_u32.to_le_bytes()[..],
                &entry(0x01, u32::MAX),
                &entry(0x02, user),
                &entry(0x08, group),
            ]
            .concat()
        };
        let outside = owners().attribute_outside(ACCESS[0], list(3, 4)).unwrap();
        assert_eq!(outside, list(100_003, 100_004));
        assert_eq!(
            owners().attribute_inside(ACCESS[0], outside),
            Some(list(3, 4))
        );
        assert_eq!(owners().attribute_outside(ACCESS[1], list(70_000, 4)), None);
    }

    proptest! {
        #[test]
        fn arbitrary_attributes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            for name in [CAPABILITY, ACCESS[0], b"user.x"] {
                let _ = owners().attribute_inside(name, value.clone());
                let _ = owners().attribute_outside(name, value.clone());
            }
        }
    }
}

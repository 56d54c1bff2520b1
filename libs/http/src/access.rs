//! The caller of a request, and the role that a route requires.

use std::sync::Arc;

use keelson_model::host_api::Role;

/// The least role that may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every role. The route shows something, changes nothing and opens no connection.
    Reader,
    /// Operators and administrators. The route changes containers or images, or it makes this
    /// machine connect to a server that the caller names.
    Operator,
    /// Administrators. The route changes the machine, or shows who has a key to it.
    Admin,
}

impl Access {
    /// Whether a role is enough.
    pub const fn admits(self, role: Role) -> bool {
        match self {
            Self::Reader => true,
            Self::Operator => matches!(role, Role::Operator | Role::Admin),
            Self::Admin => matches!(role, Role::Admin),
        }
    }

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => Role::Reader.as_str(),
            Self::Operator => Role::Operator.as_str(),
            Self::Admin => Role::Admin.as_str(),
        }
    }
}

/// The sender of a request. Clones are cheap: all requests of a connection have the same caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the caller may do.
    pub role: Role,
    /// The caller's name for the audit log: `uid 1000`, `certificate "ops" serial 0A1B`.
    pub name: Arc<str>,
}

impl Caller {
    /// A caller with this role and name.
    pub fn new(role: Role, name: impl Into<Arc<str>>) -> Self {
        Self {
            role,
            name: name.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_role_includes_the_lower_ones() {
        let order = [Role::Reader, Role::Operator, Role::Admin];
        let routes = [Access::Reader, Access::Operator, Access::Admin];
        for (least, access) in routes.into_iter().enumerate() {
            for (at, role) in order.into_iter().enumerate() {
                assert_eq!(access.admits(role), at >= least, "{access:?} {role:?}");
            }
        }
    }
}

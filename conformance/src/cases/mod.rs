//! The cases, by area.

mod apparmor;
mod callers;
mod cgroups;
mod commands;
mod documents;
mod exec;
mod habits;
mod hidden;
mod hooks;
mod lifecycle;
mod mount_options;
mod mounts;
mod namespaces;
mod process;
mod resources;
mod rootless;
mod seccomp;
mod shared_mounts;
mod state;
mod terminal;
mod users;

use crate::case::Case;

/// Every case, in the order of the documentation.
pub(crate) fn all() -> Vec<Case> {
    [
        lifecycle::CASES,
        state::CASES,
        process::CASES,
        users::CASES,
        namespaces::CASES,
        shared_mounts::CASES,
        mounts::CASES,
        mount_options::CASES,
        hidden::CASES,
        seccomp::CASES,
        hooks::CASES,
        cgroups::CASES,
        resources::CASES,
        terminal::CASES,
        exec::CASES,
        commands::CASES,
        documents::CASES,
        habits::CASES,
        callers::CASES,
        apparmor::CASES,
    ]
    .concat()
}

/// Cases that apply only to the runtime of an ordinary user.
pub(crate) fn of_users() -> Vec<Case> {
    rootless::CASES.to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for case in [super::all(), super::of_users()].concat() {
            assert!(seen.insert(case.id), "{} is there twice", case.id);
            assert!(
                case.id.split('.').count() >= 3
                    && case.id.chars().all(|c| c.is_ascii_lowercase()
                        || c.is_ascii_digit()
                        || c == '.'
                        || c == '-'),
                "{}",
                case.id
            );
            assert!(case.requirement.ends_with('.'), "{}", case.id);
        }
    }
}

//! The cases, by area.

mod exec;
mod lifecycle;
mod namespaces;
mod process;
mod state;
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
        exec::CASES,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for case in super::all() {
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

//! AppArmor: the profile that containers have unless they ask for another one.
//!
//! The image of the operating system has it compiled, so that nothing is compiled at boot. On another
//! machine the profile of this name is used that is loaded there, Docker's for example.

use std::fs;
use std::path::PathBuf;

use keelson_model::spec::{AppArmor, Confinement, SecuritySpec};

/// Its name: Docker's clients know it by this one.
const NAME: &str = "docker-default";
/// What clients are told of a container without a profile, on a host that has AppArmor.
const UNCONFINED: &str = "unconfined";
/// The compiled profile.
pub(crate) const POLICY: &str = "/usr/lib/keelson/apparmor/docker-default";

/// What the host's AppArmor can do for containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmorState {
    /// The kernel has none.
    #[default]
    Off,
    /// It has, and no profile for containers, as on a developer's machine.
    NoProfile,
    /// The profile is to be applied. `problem`: why it was not loaded just now; containers do not start
    /// then, unless an earlier one is there.
    Usual {
        /// What went wrong.
        problem: Option<String>,
    },
}

/// Longest name of a profile in bytes: longer than any that is used.
const LONGEST: usize = 1024;

/// Where the kernel and the policy are.
#[derive(Debug)]
pub(crate) struct Places {
    enabled: PathBuf,
    security: PathBuf,
    policy: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            enabled: "/sys/module/apparmor/parameters/enabled".into(),
            security: "/sys/kernel/security/apparmor".into(),
            policy: POLICY.into(),
        }
    }
}

impl Places {
    /// Loads the profile where there is one, and says what there is then.
    pub(crate) fn load(&self) -> AppArmorState {
        if !fs::read_to_string(&self.enabled).is_ok_and(|text| text.starts_with('Y')) {
            return AppArmorState::Off;
        }
        match fs::read(&self.policy) {
            Ok(policy) => {
                // The kernel takes it by one write(2), or not at all.
                let replace = self.security.join(".replace");
                let problem = fs::write(&replace, policy)
                    .err()
                    .map(|error| format!("write {}: {error}", replace.display()));
                if let Some(problem) = &problem {
                    tracing::error!(problem, "the AppArmor profile of containers is not loaded");
                }
                AppArmorState::Usual { problem }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match self.has_profile() {
                    true => AppArmorState::Usual { problem: None },
                    false => AppArmorState::NoProfile,
                }
            }
            Err(error) => AppArmorState::Usual {
                problem: Some(format!("read {}: {error}", self.policy.display())),
            },
        }
    }

    fn has_profile(&self) -> bool {
        // A line for each: `name (enforce)`.
        let loaded = fs::read_to_string(self.security.join("profiles")).unwrap_or_default();
        let mut names = loaded.lines().filter_map(|line| line.rsplit_once(" ("));
        names.any(|(name, _)| name == NAME)
    }
}

/// The profile of a container's processes; `None`: that of the engine, which has none.
pub(crate) fn profile<'a>(security: &'a SecuritySpec, host: &AppArmorState) -> Option<&'a str> {
    match (&security.apparmor, host) {
        // The runtime refuses one that the kernel has not.
        (AppArmor::Named(name), _) => Some(name),
        (AppArmor::Usual, AppArmorState::Usual { .. })
            if security.confinement == Confinement::Confined =>
        {
            Some(NAME)
        }
        (AppArmor::Usual | AppArmor::Unconfined, _) => None,
    }
}

/// The profile as clients are told of it; empty on a host without AppArmor.
pub fn shown_profile<'a>(security: &'a SecuritySpec, host: &AppArmorState) -> &'a str {
    match host {
        AppArmorState::Off => "",
        _ => profile(security, host).unwrap_or(UNCONFINED),
    }
}

/// What clients are to know of a host whose containers are not confined as they expect.
pub fn warning(host: &AppArmorState) -> Option<String> {
    match host {
        AppArmorState::Off | AppArmorState::Usual { problem: None } => None,
        AppArmorState::NoProfile => Some(format!(
            "WARNING: AppArmor does not confine containers: no profile {NAME} is loaded, and {POLICY} is not there"
        )),
        AppArmorState::Usual {
            problem: Some(problem),
        } => Some(format!(
            "WARNING: the AppArmor profile {NAME} of containers could not be loaded: {problem}"
        )),
    }
}

/// Whether a text can be the name of a profile: the kernel reads it to the end of the line, and takes
/// what begins with a colon for the name of a namespace.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace();
    !text.is_empty() && text.len() <= LONGEST && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use keelson_model::spec::{ContainerSpec, RootSpec};

    use super::*;

    fn places(base: &Path) -> Places {
        fs::create_dir(base.join("security")).unwrap();
        fs::write(base.join("security/.replace"), "").unwrap();
        fs::write(base.join("security/profiles"), "/usr/bin/man (enforce)\n").unwrap();
        Places {
            enabled: base.join("enabled"),
            security: base.join("security"),
            policy: base.join("policy"),
        }
    }

    #[test]
    fn what_a_host_can_do() {
        let base = tempfile::tempdir().unwrap();
        let places = places(base.path());
        assert_eq!(places.load(), AppArmorState::Off);
        fs::write(&places.enabled, "N\n").unwrap();
        assert_eq!(places.load(), AppArmorState::Off);
        fs::write(&places.enabled, "Y\n").unwrap();
        assert_eq!(places.load(), AppArmorState::NoProfile);
        let profiles = places.security.join("profiles");
        fs::write(
            profiles,
            "docker-default-2 (enforce)\ndocker-default (enforce)\n",
        )
        .unwrap();
        let good = AppArmorState::Usual { problem: None };
        assert_eq!(places.load(), good);
        assert_eq!(warning(&good), None);

        // Our own replaces it.
        fs::write(&places.policy, b"compiled").unwrap();
        assert_eq!(places.load(), good);
        let replace = places.security.join(".replace");
        assert_eq!(fs::read(&replace).unwrap(), b"compiled");
        fs::remove_file(&replace).unwrap();
        fs::create_dir(&replace).unwrap();
        let bad = places.load();
        assert!(
            matches!(&bad, AppArmorState::Usual { problem: Some(_) }),
            "{bad:?}"
        );
        assert!(warning(&bad).unwrap().contains("could not be loaded"));
    }

    #[test]
    fn whose_profile_it_is() {
        let root = RootSpec::System {
            path: "/r".into(),
            read_only: true,
        };
        let mut security = ContainerSpec::new(root, "sh").security;
        let on = AppArmorState::Usual { problem: None };
        let both = |security: &SecuritySpec, host: &AppArmorState| {
            let profile = profile(security, host).map(str::to_owned);
            (profile, shown_profile(security, host).to_owned())
        };
        let of = |name: &str| (Some(name.to_owned()), name.to_owned());
        let none = (None, UNCONFINED.to_owned());
        assert_eq!(both(&security, &on), of(NAME));
        assert_eq!(both(&security, &AppArmorState::NoProfile), none);
        assert_eq!(both(&security, &AppArmorState::Off), (None, String::new()));
        security.confinement = Confinement::Privileged;
        assert_eq!(both(&security, &on), none);
        // A name is a name, also for a privileged container, and whatever the host has.
        security.apparmor = AppArmor::Named("mine".to_owned());
        assert_eq!(both(&security, &on), of("mine"));
        assert_eq!(both(&security, &AppArmorState::NoProfile), of("mine"));
        assert_eq!(profile(&security, &AppArmorState::Off), Some("mine"));
        security.apparmor = AppArmor::Unconfined;
        security.confinement = Confinement::Confined;
        assert_eq!(both(&security, &on), none);
    }

    #[test]
    fn names_of_profiles() {
        for name in ["docker-default", "/usr/bin/man", ":ns:x", "a//&b"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a\nb", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}

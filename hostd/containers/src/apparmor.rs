//! AppArmor: the default profile of containers.
//!
//! The operating system's image contains the compiled profile, so that nothing is compiled at boot.
//! Other machines use the loaded profile of this name, such as Docker's.

use std::fs;
use std::io;
use std::path::PathBuf;

use keelson_model::spec::{AppArmor, Confinement, SecuritySpec};

/// Its name, which Docker's clients know.
const NAME: &str = "docker-default";
/// What clients see for a container without a profile, on a host with AppArmor.
const UNCONFINED: &str = "unconfined";
/// The compiled profile.
pub(crate) const POLICY: &str = "/usr/lib/keelson/apparmor/docker-default";

/// Directory of the compiled profiles of the machine's services.
const SERVICES: &str = "/usr/lib/keelson/apparmor/services";

/// What the host's AppArmor can do for containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppArmorState {
    /// The kernel has none.
    #[default]
    Off,
    /// The kernel has it, but no profile for containers, as on a developer's machine.
    NoProfile,
    /// The profile must be applied. `problem`: why it could not be loaded now; containers then
    /// start only if an earlier one is still loaded.
    Usual {
        /// What went wrong.
        problem: Option<String>,
    },
}

/// Longest accepted name of a profile in bytes.
const LONGEST: usize = 1024;

/// The paths of the kernel's interface and of the policy.
#[derive(Debug)]
pub(crate) struct Places {
    enabled: PathBuf,
    security: PathBuf,
    policy: PathBuf,
    services: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            enabled: "/sys/module/apparmor/parameters/enabled".into(),
            security: "/sys/kernel/security/apparmor".into(),
            policy: POLICY.into(),
            services: SERVICES.into(),
        }
    }
}

impl Places {
    /// Loads the profile if there is one, and returns what the host can do.
    pub(crate) fn load(&self) -> AppArmorState {
        if !fs::read_to_string(&self.enabled).is_ok_and(|text| text.starts_with('Y')) {
            return AppArmorState::Off;
        }
        self.load_services();
        match fs::read(&self.policy) {
            Ok(policy) => {
                let replace = self.security.join(".replace");
                let problem = self
                    .replace(&policy)
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

    /// Loads a compiled profile, over an earlier one of its name.
    fn replace(&self, policy: &[u8]) -> io::Result<()> {
        // The kernel requires a single write(2).
        fs::write(self.security.join(".replace"), policy)
    }

    /// Loads the profiles of services. A service whose profile is not loaded does not start.
    fn load_services(&self) {
        // Machines that Keelson did not make have none.
        for entry in fs::read_dir(&self.services).into_iter().flatten().flatten() {
            let path = entry.path();
            let loaded = fs::read(&path).and_then(|policy| self.replace(&policy));
            if let Err(error) = loaded {
                tracing::error!(path = %path.display(), %error, "the AppArmor profile of a service is not loaded");
            }
        }
    }

    fn has_profile(&self) -> bool {
        // One line for each profile: `name (enforce)`.
        let loaded = fs::read_to_string(self.security.join("profiles")).unwrap_or_default();
        let mut names = loaded.lines().filter_map(|line| line.rsplit_once(" ("));
        names.any(|(name, _)| name == NAME)
    }
}

/// The profile of a container's processes; `None`: they inherit that of the engine, which has none.
pub(crate) fn profile<'a>(security: &'a SecuritySpec, host: &AppArmorState) -> Option<&'a str> {
    match (&security.apparmor, host) {
        // The runtime refuses a profile that is not loaded.
        (AppArmor::Named(name), _) => Some(name),
        (AppArmor::Usual, AppArmorState::Usual { .. })
            if security.confinement == Confinement::Confined =>
        {
            Some(NAME)
        }
        (AppArmor::Usual | AppArmor::Unconfined, _) => None,
    }
}

/// The profile as clients see it; empty on a host without AppArmor.
pub fn shown_profile<'a>(security: &'a SecuritySpec, host: &AppArmorState) -> &'a str {
    match host {
        AppArmorState::Off => "",
        _ => profile(security, host).unwrap_or(UNCONFINED),
    }
}

/// Warnings for clients about a host whose containers are not confined as they expect.
pub fn warning(host: &AppArmorState) -> Option<String> {
    match host {
        AppArmorState::Off | AppArmorState::Usual { problem: None } => None,
        AppArmorState::NoProfile => Some(format!(
            "WARNING: AppArmor does not confine containers: no profile {NAME} is loaded, and {POLICY} is missing"
        )),
        AppArmorState::Usual {
            problem: Some(problem),
        } => Some(format!(
            "WARNING: the AppArmor profile {NAME} of containers could not be loaded: {problem}"
        )),
    }
}

/// Whether a text can be the name of a profile. The kernel reads it to the end of the line, and
/// treats a leading colon as the start of a namespace's name.
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
            services: base.join("services"),
        }
    }

    #[test]
    fn the_hosts_support_is_detected() {
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

        // Those of services are loaded, too.
        fs::create_dir(&places.services).unwrap();
        fs::write(places.services.join("keelson-time"), b"time").unwrap();
        assert_eq!(places.load(), good);
        let replace = places.security.join(".replace");
        assert_eq!(fs::read(&replace).unwrap(), b"time");

        // Our own profile replaces it.
        fs::write(&places.policy, b"compiled").unwrap();
        assert_eq!(places.load(), good);
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
    fn the_profile_of_each_kind_of_container() {
        let root = RootSpec::System {
            path: "/r".into(),
            lower: Vec::new(),
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
        // An explicit name is used, also for a privileged container, and whatever the host has.
        security.apparmor = AppArmor::Named("mine".to_owned());
        assert_eq!(both(&security, &on), of("mine"));
        assert_eq!(both(&security, &AppArmorState::NoProfile), of("mine"));
        assert_eq!(profile(&security, &AppArmorState::Off), Some("mine"));
        security.apparmor = AppArmor::Unconfined;
        security.confinement = Confinement::Confined;
        assert_eq!(both(&security, &on), none);
    }

    #[test]
    fn names_of_profiles_are_checked() {
        for name in ["docker-default", "/usr/bin/man", ":ns:x", "a//&b"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a\nb", "a\0"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}

//! `HostConfig.SecurityOpt`.

use keelson_model::spec::{AppArmor, SystemCallFilter};

use super::{invalid, seccomp};
use crate::error::ApiError;

/// The protections that the options ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) system_calls: SystemCallFilter,
    pub(super) apparmor: AppArmor,
    /// No path of /proc and /sys is masked or read-only.
    pub(super) unmask: bool,
}

/// Reads the options. `capabilities` is the container's set, on which parts of a profile depend.
pub(super) fn parse(options: &[String], capabilities: &[String]) -> Result<Security, ApiError> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.system_calls = SystemCallFilter::Unconfined,
            ("seccomp", "builtin" | "") => security.system_calls = SystemCallFilter::BuiltIn,
            ("seccomp", profile) => {
                security.system_calls =
                    SystemCallFilter::Profile(seccomp::translate(profile, capabilities)?);
            }
            ("systempaths", "unconfined") => security.unmask = true,
            ("apparmor", "unconfined") => security.apparmor = AppArmor::Unconfined,
            // As in Docker, an empty name means the default.
            ("apparmor", "") => security.apparmor = AppArmor::Usual,
            ("apparmor", name) => security.apparmor = AppArmor::Named(name.to_owned()),
            // SELinux labels are never applied to containers, so there is nothing to do.
            ("label", "disable") => {}
            ("label" | "writable-cgroups", _) => {
                return Err(ApiError::not_built(format!(
                    "--security-opt {option} is not implemented"
                )));
            }
            _ => {
                return invalid(format!("invalid --security-opt: {option:?}"));
            }
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(options: &[&str]) -> Result<Security, ApiError> {
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        parse(&options, &[])
    }

    #[test]
    fn options() {
        assert_eq!(security(&[]).unwrap(), Security::default());
        assert!(security(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(
            security(&["no-new-privileges:true"])
                .unwrap()
                .no_new_privileges
        );
        assert!(
            !security(&["no-new-privileges=false"])
                .unwrap()
                .no_new_privileges
        );
        assert!(security(&["systempaths=unconfined"]).unwrap().unmask);
        let unconfined = security(&["seccomp=unconfined", "apparmor=unconfined"]).unwrap();
        assert_eq!(unconfined.system_calls, SystemCallFilter::Unconfined);
        assert_eq!(unconfined.apparmor, AppArmor::Unconfined);
        for option in ["apparmor=mine", "apparmor:mine"] {
            let named = security(&[option]).unwrap().apparmor;
            assert_eq!(named, AppArmor::Named("mine".to_owned()));
        }
        let profile = security(&[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#]).unwrap();
        assert!(matches!(profile.system_calls, SystemCallFilter::Profile(_)));
    }

    #[test]
    fn refusals() {
        use keelson_model::error::ErrorKind;
        let kind = |option| security(&[option]).unwrap_err().kind();
        assert_eq!(kind("label=type:x"), ErrorKind::NotImplemented);
        assert_eq!(kind("nonsense"), ErrorKind::InvalidInput);
        assert_eq!(kind("no-new-privileges=maybe"), ErrorKind::InvalidInput);
        assert_eq!(kind("seccomp={"), ErrorKind::InvalidInput);
    }
}

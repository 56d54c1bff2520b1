//! `HostConfig.SecurityOpt`.

use serde_json::Value;

use super::seccomp;
use crate::EngineError;

/// The system call filter.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Seccomp {
    /// The runtime's built-in profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// `linux.seccomp` of the OCI specification.
    Profile(Value),
}

/// What the options ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    /// Nothing of /proc and /sys is masked or read-only.
    pub(crate) unmask: bool,
}

/// Reads the options. `capabilities` is the container's set, on which parts of a profile depend.
pub(crate) fn parse(options: &[String], capabilities: &[String]) -> Result<Security, EngineError> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin" | "") => security.seccomp = Seccomp::Default,
            ("seccomp", profile) => {
                security.seccomp = Seccomp::Profile(seccomp::translate(profile, capabilities)?);
            }
            ("systempaths", "unconfined") => security.unmask = true,
            // Neither is applied to containers, so these ask for what is the case.
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor" | "label" | "writable-cgroups", _) => {
                return Err(EngineError::NotImplemented(format!(
                    "--security-opt {option} is not implemented"
                )));
            }
            _ => {
                return Err(EngineError::Invalid(format!(
                    "invalid --security-opt: {option:?}"
                )));
            }
        }
    }
    Ok(security)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(options: &[&str]) -> Result<Security, EngineError> {
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
        assert_eq!(unconfined.seccomp, Seccomp::Unconfined);
        let profile = security(&[r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#]).unwrap();
        assert!(matches!(profile.seccomp, Seccomp::Profile(_)));
    }

    #[test]
    fn refusals() {
        use keelson_model::error::ErrorKind;
        let kind = |option| security(&[option]).unwrap_err().kind();
        assert_eq!(kind("apparmor=mine"), ErrorKind::NotImplemented);
        assert_eq!(kind("label=type:x"), ErrorKind::NotImplemented);
        assert_eq!(kind("nonsense"), ErrorKind::InvalidInput);
        assert_eq!(kind("no-new-privileges=maybe"), ErrorKind::InvalidInput);
        assert_eq!(kind("seccomp={"), ErrorKind::InvalidInput);
    }
}

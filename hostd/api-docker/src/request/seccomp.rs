//! Translates Docker's seccomp profile format to the OCI specification's `linux.seccomp`.
//!
//! Docker's format adds `archMap` (an architecture with its sub-architectures) and conditions:
//! `includes` and `excludes` by capability, architecture and kernel version.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<Architecture>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// The processor architecture by its name in profiles (Go's) and by libseccomp's.
const ARCHITECTURE: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("arm64", "SCMP_ARCH_AARCH64")
} else {
    ("amd64", "SCMP_ARCH_X86_64")
};

/// Translates a profile, given as JSON text.
pub(super) fn translate(profile: &str, capabilities: &[String]) -> Result<Value, ApiError> {
    let invalid =
        |reason: String| ApiError::invalid(format!("Decoding seccomp profile failed: {reason}"));
    let profile: Profile =
        serde_json::from_str(profile).map_err(|error| invalid(error.to_string()))?;
    if !profile.listener_path.is_empty() {
        return Err(ApiError::not_built(
            "listenerPath of a seccomp profile is not implemented".to_owned(),
        ));
    }
    let mut architectures = profile.architectures.unwrap_or_default();
    for entry in profile.arch_map.unwrap_or_default() {
        if entry.architecture == ARCHITECTURE.1 {
            architectures.push(entry.architecture);
            architectures.extend(entry.sub_architectures.unwrap_or_default());
        }
    }
    let mut rules = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        let mut names = rule.names.unwrap_or_default();
        if !rule.name.is_empty() {
            if !names.is_empty() {
                return Err(invalid("both name and names are given".to_owned()));
            }
            names.push(rule.name);
        }
        let included = rule
            .includes
            .is_none_or(|filter| filter.all_hold(capabilities));
        let excluded = rule
            .excludes
            .is_some_and(|filter| filter.any_holds(capabilities));
        if !included || excluded {
            continue;
        }
        rules.push(json!({
            "names": names,
            "action": rule.action,
            "errnoRet": rule.errno_ret,
            "args": rule.args.unwrap_or_default(),
        }));
    }
    Ok(json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures,
        "flags": profile.flags.unwrap_or_default(),
        "syscalls": rules,
    }))
}

impl Filter {
    fn all_hold(&self, capabilities: &[String]) -> bool {
        let caps = self.caps.as_deref().unwrap_or_default();
        let arches = self.arches.as_deref().unwrap_or_default();
        caps.iter().all(|cap| capabilities.contains(cap))
            && (arches.is_empty() || arches.iter().any(|arch| arch == ARCHITECTURE.0))
            && self.min_kernel.as_deref().is_none_or(kernel_is_at_least)
    }

    fn any_holds(&self, capabilities: &[String]) -> bool {
        let caps = self.caps.as_deref().unwrap_or_default();
        let arches = self.arches.as_deref().unwrap_or_default();
        caps.iter().any(|cap| capabilities.contains(cap))
            || arches.iter().any(|arch| arch == ARCHITECTURE.0)
            || self.min_kernel.as_deref().is_some_and(kernel_is_at_least)
    }
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let release = rustix::system::uname();
    version(&release.release().to_string_lossy()) >= version(wanted)
}

/// The first two numbers of a kernel release.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text
        .split(|character: char| !character.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_resolved() {
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
            "archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]},
                       {"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
            "syscalls":[
              {"names":["read"],"action":"SCMP_ACT_ALLOW"},
              {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]},
               "args":[{"index":0,"value":1,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
              {"name":"old","action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
              {"names":["new"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
              {"names":["s390"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
        let names = |capabilities: &[String]| -> Vec<String> {
            let translated = translate(profile, capabilities).unwrap();
            translated["syscalls"]
                .as_array()
                .unwrap()
                .iter()
                .map(|rule| rule["names"][0].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(names(&[]), ["read", "clone", "old"]);
        assert_eq!(
            names(&["CAP_SYS_ADMIN".to_owned()]),
            ["read", "mount", "old"]
        );
    }

    #[test]
    fn versions() {
        assert_eq!(version("6.12.48+deb13-cloud-amd64"), (6, 12));
        assert!(version("4.8") < version("4.14.0-rc1"));
        assert_eq!(version("nonsense"), (0, 0));
    }
}

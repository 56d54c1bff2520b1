//! Reads `config.json`. Errors name the member that is wrong.

use std::path::{Path, PathBuf};

use keelson_model::json::{self, Json, JsonError};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{HookKind, Hooks, Process, Resources, Seccomp, Spec, mappings, values};
use crate::failure::Failure;

/// Why a specification is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file can't be read.
    #[error("read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The text is not JSON or has a member of a wrong type.
    #[error("{file}: {member}: {reason}")]
    Json {
        file: String,
        member: String,
        reason: String,
    },
    /// A member's value is out of range, contradicts another or is missing.
    #[error("config.json: {member}: {reason}")]
    Value { member: String, reason: String },
}

impl LoadError {
    fn json(file: &str, error: JsonError) -> Self {
        let member = match error.path() {
            "" => "the document",
            path => path,
        };
        Self::Json {
            file: file.to_owned(),
            member: member.to_owned(),
            reason: error.message().to_owned(),
        }
    }

    /// An error about a member.
    pub(crate) fn value(member: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value {
            member: member.into(),
            reason: reason.into(),
        }
    }
}

/// Reads and checks the specification in a bundle.
pub(crate) fn load(bundle: &Path) -> Result<Spec, LoadError> {
    let path = bundle.join("config.json");
    let bytes = crate::files::read(&path).map_err(|source| LoadError::Read { path, source })?;
    let mut spec = parse(&bytes)?;
    for mount in &mut spec.mounts {
        if let Some(source) = mount.source.as_mut().filter(|source| !source.is_empty())
            && binds(&mount.kind, &mount.options)
            && !source.starts_with('/')
        {
            // So that the caller's working directory does not matter.
            *source = bundle.join(&*source).to_string_lossy().into_owned();
        }
    }
    Ok(spec)
}

/// Whether a mount is a bind mount of its source.
fn binds(kind: &Option<String>, options: &[String]) -> bool {
    let kind = kind.as_deref() == Some("bind");
    kind || options.iter().any(|it| it == "bind" || it == "rbind")
}

/// Parses and checks the bytes of a `config.json`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Spec, LoadError> {
    let mut spec: Spec = from_json("config.json", bytes)?;
    for mount in &mut spec.mounts {
        // Deprecated; relative to the root.
        if !mount.destination.is_empty() && !mount.destination.starts_with('/') {
            mount.destination.insert(0, '/');
        }
    }
    for namespace in &mut spec.linux.namespaces {
        // As runc: the same as if there were no path.
        namespace.path.take_if(|path| path.as_os_str().is_empty());
    }
    if let Some(path) = &mut spec.linux.cgroups_path
        && let Some(plain) = systemd_place(path)?
    {
        *path = plain;
    }
    check(&spec)?;
    label_mounts(&mut spec);
    Ok(spec)
}

/// The path for the form `slice:prefix:name` of callers that use the systemd driver: systemd would
/// make a scope in that slice, which lies in the slices that its name consists of. The cgroup is
/// made there without systemd. `None`: it is an ordinary path.
fn systemd_place(path: &str) -> Result<Option<String>, LoadError> {
    let parts: Vec<&str> = path.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        _ if path.contains('/') => return Ok(None),
        [slice, prefix, name] if !name.is_empty() => (slice, prefix, name),
        [_] => return Ok(None),
        _ => {
            let reason = format!("{path:?} is neither a path nor systemd's slice:prefix:name");
            return Err(LoadError::value("linux.cgroupsPath", reason));
        }
    };
    let slice = if slice.is_empty() {
        "system.slice"
    } else {
        slice
    };
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    let mut place = String::new();
    if stem != "-" {
        if stem.is_empty() || stem.split('-').any(str::is_empty) {
            let reason = format!("{path:?}: {slice:?} is not the name of a slice");
            return Err(LoadError::value("linux.cgroupsPath", reason));
        }
        for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
            place.push_str(&format!("/{}.slice", &stem[..end]));
        }
    }
    let dash = if prefix.is_empty() { "" } else { "-" };
    let suffix = if name.ends_with(".slice") {
        ""
    } else {
        ".scope"
    };
    Ok(Some(format!("{place}/{prefix}{dash}{name}{suffix}")))
}

/// Labels new file systems by `linux.mountLabel`, but not those whose files the policy labels one
/// by one, and not bind mounts, whose files have labels already.
fn label_mounts(spec: &mut Spec) {
    const LABELLED_BY_POLICY: [&str; 5] = ["cgroup", "cgroup2", "mqueue", "proc", "sysfs"];
    let label = spec.linux.mount_label.as_deref().unwrap_or_default();
    if label.is_empty() {
        return;
    }
    for mount in &mut spec.mounts {
        let kind = mount.kind.as_deref().unwrap_or_default();
        let given = |text: &str| mount.options.iter().any(|option| option == text);
        let is_made = kind != "bind" && !["bind", "rbind", "remount"].into_iter().any(given);
        let has_label = mount
            .options
            .iter()
            .any(|option| option.starts_with("context="));
        if is_made && !has_label && !LABELLED_BY_POLICY.contains(&kind) {
            mount.options.push(format!("context={label}"));
        }
    }
}

/// Reads and checks a separate process object, for an additional process of a container.
pub(crate) fn parse_process(bytes: &[u8]) -> Result<Process, LoadError> {
    process_of(Json::parse(bytes).map_err(|error| LoadError::json("process", error))?)
}

/// Checks a process object that was read before.
pub(crate) fn process_of(process: Json) -> Result<Process, LoadError> {
    let process = Process::deserialize(process);
    let process: Process = process.map_err(|error| LoadError::json("process", error))?;
    let spec = Spec {
        process: Some(process),
        ..Spec::default()
    };
    if let Some(process) = &spec.process {
        check_process(process)?;
        values::check_process(process)?;
    }
    unsupported(&spec)?;
    spec.process
        .ok_or_else(|| LoadError::value("process", "is missing"))
}

/// Parses the value of `linux.seccomp`.
pub(crate) fn parse_seccomp(bytes: &[u8]) -> Result<Seccomp, LoadError> {
    from_json("linux.seccomp", bytes)
}

/// Parses the value of `linux.resources`.
pub(crate) fn parse_resources(bytes: &[u8]) -> Result<Resources, LoadError> {
    from_json("linux.resources", bytes)
}

fn from_json<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T, LoadError> {
    json::from_slice(bytes).map_err(|error| LoadError::json(file, error))
}

fn check(spec: &Spec) -> Result<(), LoadError> {
    let version = &spec.oci_version;
    if !version.starts_with("1.") {
        return Err(LoadError::value(
            "ociVersion",
            format!("{version:?} is not a version 1 specification"),
        ));
    }
    for (index, mount) in spec.mounts.iter().enumerate() {
        if !mount.destination.starts_with('/') {
            return Err(LoadError::value(
                format!("mounts[{index}].destination"),
                "is missing",
            ));
        }
    }
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        let earlier = spec.linux.namespaces.iter().take(index);
        if earlier.clone().any(|other| other.kind == namespace.kind) {
            return Err(LoadError::value(
                format!("linux.namespaces[{index}].type"),
                "listed twice",
            ));
        }
        if let Some(path) = namespace.path.as_ref().filter(|path| !path.is_absolute()) {
            return Err(LoadError::value(
                format!("linux.namespaces[{index}].path"),
                format!("{path:?} is not an absolute path"),
            ));
        }
    }
    for (name, paths) in [
        ("maskedPaths", &spec.linux.masked_paths),
        ("readonlyPaths", &spec.linux.readonly_paths),
    ] {
        if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
            return Err(LoadError::value(
                format!("linux.{name}"),
                format!("{path:?} is not an absolute path"),
            ));
        }
    }
    mappings::check(spec)?;
    values::check(spec)?;
    if let Some(process) = &spec.process {
        check_process(process)?;
    }
    if let Some(hooks) = &spec.hooks {
        check_hooks(hooks)?;
    }
    unsupported(spec)
}

fn check_process(process: &Process) -> Result<(), LoadError> {
    if process.args.is_empty() {
        return Err(LoadError::value("process.args", "must not be empty"));
    }
    if !process.cwd.starts_with('/') {
        return Err(LoadError::value(
            "process.cwd",
            format!("{:?} is not an absolute path", process.cwd),
        ));
    }
    for (name, list) in [("args", &process.args), ("env", &process.env)] {
        if let Some(index) = list.iter().position(|text| text.contains('\0')) {
            return Err(LoadError::value(
                format!("process.{name}[{index}]"),
                "contains a zero byte",
            ));
        }
    }
    Ok(())
}

fn check_hooks(hooks: &Hooks) -> Result<(), LoadError> {
    for kind in HookKind::ALL {
        for (index, hook) in hooks.of(kind).iter().enumerate() {
            if !hook.path.is_absolute() {
                return Err(LoadError::value(
                    format!("hooks.{kind}[{index}].path"),
                    format!("{:?} is not an absolute path", hook.path),
                ));
            }
            if let Some(timeout) = hook.timeout.filter(|timeout| *timeout <= 0) {
                return Err(LoadError::value(
                    format!("hooks.{kind}[{index}].timeout"),
                    format!("{timeout} is not greater than zero"),
                ));
            }
        }
    }
    Ok(())
}

/// Refuses settings that would otherwise be ignored silently.
fn unsupported(spec: &Spec) -> Result<(), LoadError> {
    match &spec.linux.intel_rdt {
        Some(_) => Err(LoadError::value(
            "linux.intelRdt",
            "Intel RDT is not supported",
        )),
        None => Ok(()),
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_member() {
        assert!(
            error(r#"{"ociVersion":"1.2.0","process":{"args":["a",3],"cwd":"/"}}"#)
                .contains("process.args[1]")
        );
        assert!(
            error(r#"{"ociVersion":"1.2.0","linux":{"resources":{"memory":{"limit":"big"}}}}"#)
                .contains("linux.resources.memory.limit")
        );
        assert!(
            error("{\n \"mounts\":\n [ {\"destination\": 7} ] }").contains("mounts[0].destination")
        );
        assert!(
            error(r#"{"ociVersion":"1.2.0","process":{"args":["a"],"cwd":"x"}}"#)
                .contains("process.cwd")
        );
        assert!(
            error(r#"{"ociVersion":"1.2.0","hooks":{"poststop":[{"path":"x"}]}}"#)
                .contains("hooks.poststop[0].path")
        );
        assert!(
            error(r#"{"ociVersion":"1.2.0","hooks":{"prestart":[{"path":"/x","timeout":0}]}}"#)
                .contains("hooks.prestart[0].timeout")
        );
        assert!(
            error(r#"{"annotations":[{},"x",1],"ociVersion":"1.2.0"}"#).contains(": annotations: ")
        );
        assert!(error("").contains("the document"));
        assert!(error(r#"{"ociVersion"["x"]}"#).contains("the document"));
        assert!(error(r#"{"ociVersion":"2.0.0"}"#).contains("ociVersion"));
    }

    #[test]
    fn cgroups_may_be_named_as_systemd_does() {
        let place = |path: &str| systemd_place(path).map_err(|error| error.to_string());
        for (path, wanted) in [
            ("/plain/path", None),
            ("plain", None),
            ("/with:colons:in/it", None),
            (
                "system.slice:docker:abc",
                Some("/system.slice/docker-abc.scope"),
            ),
            (":runc:abc", Some("/system.slice/runc-abc.scope")),
            ("-.slice::abc", Some("/abc.scope")),
            (
                "kube-pod-1.slice:cri:abc",
                Some("/kube.slice/kube-pod.slice/kube-pod-1.slice/cri-abc.scope"),
            ),
        ] {
            assert_eq!(place(path).unwrap().as_deref(), wanted, "{path}");
        }
        for path in [
            "a:b",
            "a:b:c",
            "a.slice:b:",
            "a--b.slice:b:c",
            "a.slice:b:c:d",
        ] {
            let message = place(path).unwrap_err();
            assert!(message.contains("linux.cgroupsPath"), "{message}");
        }
    }

    #[test]
    fn a_namespace_may_not_be_listed_twice() {
        let text =
            r#"{"ociVersion":"1.2.0","linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]}}"#;
        assert!(error(text).contains("linux.namespaces[1].type"));
    }

    #[test]
    fn new_file_systems_get_the_label() {
        let text = r#"{"ociVersion":"1.2.0","linux":{"mountLabel":"a:b:c:s0:c1,c2"},"mounts":[
            {"destination":"/a","type":"tmpfs","options":["ro"]},
            {"destination":"/b","type":"devpts"},
            {"destination":"/c","type":"tmpfs","options":["context=own"]},
            {"destination":"/d","source":"/d","options":["rbind"]},
            {"destination":"/e","type":"bind","source":"/e"},
            {"destination":"/f","type":"proc"},
            {"destination":"/g","type":"sysfs"},
            {"destination":"/h","type":"mqueue"},
            {"destination":"/i","type":"cgroup"}]}"#;
        let spec = parse(text.as_bytes()).unwrap();
        let labelled: Vec<&str> = spec
            .mounts
            .iter()
            .filter(|mount| {
                mount
                    .options
                    .iter()
                    .any(|it| it == "context=a:b:c:s0:c1,c2")
            })
            .map(|mount| mount.destination.as_str())
            .collect();
        assert_eq!(labelled, ["/a", "/b"]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn cut_documents_parse_without_panic(cut in 0usize..400) {
            let text = r#"{"ociVersion":"1.2.0","process":{"terminal":true,"args":["sh","-c","x\"y"],"cwd":"/","rlimits":[{"type":"RLIMIT_CORE","soft":0,"hard":0}]},"linux":{"namespaces":[{"type":"pid"}],"seccomp":{"defaultAction":"SCMP_ACT_ERRNO"}}}"#;
            let _ = parse(&text.as_bytes()[..cut.min(text.len())]);
        }
    }
}

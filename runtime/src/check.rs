//! The parsers alone, for fuzz targets, benchmarks, and callers who want to know whether a document
//! would be accepted. Nothing here touches the machine.

use keelson_sys::seccomp::Instruction;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::process::settings;
pub use crate::seccomp::meaning::{SystemCall, system_calls};
use crate::seccomp::{self, Filter, profile};
use crate::spec;

/// A seccomp filter in the form that the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterProgram {
    /// The instructions.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_…` to install it with.
    pub flags: u32,
}

impl From<Filter> for FilterProgram {
    fn from(filter: Filter) -> Self {
        Self {
            instructions: filter.program,
            flags: filter.flags,
        }
    }
}

/// Why a document would not be accepted. The text names the member that is wrong.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Refusal(#[from] Why);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
enum Why {
    Document(#[from] spec::LoadError),
    Setting(#[from] Failure),
    Filter(#[from] seccomp::SeccompError),
}

/// Parses and checks a `config.json`, as far as that can be done without the machine, and compiles
/// its seccomp filter, if it has one. The error names the member that is wrong.
pub fn config(bytes: &[u8]) -> Result<Option<FilterProgram>, Refusal> {
    let spec = spec::parse(bytes).map_err(Why::from)?;
    settings::check(&spec).map_err(Why::from)?;
    let filter = seccomp::filter_of(&spec).map_err(Why::from)?;
    Ok(filter.map(FilterProgram::from))
}

/// Parses an object as it stands under `linux.seccomp` and compiles it. The error names the member
/// that is wrong.
pub fn seccomp_profile(bytes: &[u8]) -> Result<FilterProgram, Refusal> {
    let profile = spec::parse_seccomp(bytes).map_err(Why::from)?;
    let filter = seccomp::compile(&profile).map_err(Why::from)?;
    Ok(filter.into())
}

/// What a profile (in the form that [`seccomp_profile`] takes) decides about a system call: a
/// `SECCOMP_RET_…` value with its data. The profile is not compiled for this.
pub fn meaning(bytes: &[u8], call: &SystemCall) -> Result<u32, Refusal> {
    let profile = spec::parse_seccomp(bytes).map_err(Why::from)?;
    Ok(seccomp::meaning::of(&profile, call).map_err(Why::from)?)
}

/// What a filter program decides about a system call, as the kernel would run it. `None` if the
/// kernel would refuse the program.
pub fn decision(program: &FilterProgram, call: &SystemCall) -> Option<u32> {
    seccomp::meaning::run(&program.instructions, call)
}

/// The built-in profile written out as an OCI `linux.seccomp` object, as Docker writes it into
/// every `config.json`, for a container with these capabilities in its bounding set.
pub fn default_profile(bounding: &[String]) -> Value {
    let profile = profile::default_profile(bounding);
    let syscalls: Vec<Value> = profile
        .syscalls
        .iter()
        .map(|rule| {
            let mut written = json!({"names": rule.names, "action": rule.action});
            if let Some(object) = written.as_object_mut() {
                if let Some(number) = rule.errno_ret {
                    object.insert("errnoRet".to_owned(), number.into());
                }
                if !rule.args.is_empty() {
                    let arguments = rule.args.iter().map(|argument| {
                        json!({
                            "index": argument.index,
                            "value": argument.value,
                            "valueTwo": argument.value_two,
                            "op": argument.op,
                        })
                    });
                    object.insert("args".to_owned(), arguments.collect());
                }
            }
            written
        })
        .collect();
    json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret,
        "architectures": profile.architectures,
        "syscalls": syscalls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_profile_compiles_to_the_built_in_filter() {
        let bounding = ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned);
        let text = default_profile(&bounding).to_string();
        let built_in = seccomp::compile(&profile::default_profile(&bounding)).unwrap();
        assert_eq!(seccomp_profile(text.as_bytes()).unwrap(), built_in.into());
    }
}

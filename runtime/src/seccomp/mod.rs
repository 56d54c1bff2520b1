//! From the OCI seccomp object to a program for the kernel.
//!
//! When a filter is installed, the kernel runs it once for every possible system call, to learn
//! which are always allowed. Later it runs the filter only for the other calls. A list of
//! comparisons, as libseccomp makes by default, costs 0.7 ms at every container start for Docker's
//! profile; the binary search tree made here costs a tenth of that.

mod assemble;
mod compile;
pub(crate) mod meaning;
mod prebuilt;
pub(crate) mod profile;
mod table;
mod tree;

pub(crate) use compile::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS, compile};

use keelson_sys::seccomp::Instruction;

use crate::spec::{SECCOMP_ANNOTATION, Spec};

/// A program with the flags to install it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) program: Vec<Instruction>,
    pub(crate) flags: u32,
}

/// Why a seccomp object can't be compiled.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{member}: {reason}")]
pub(crate) struct SeccompError {
    member: String,
    reason: String,
}

impl SeccompError {
    /// An error about a member of `linux.seccomp`.
    fn new(member: impl AsRef<str>, reason: impl Into<String>) -> Self {
        Self {
            member: format!("linux.seccomp.{}", member.as_ref()),
            reason: reason.into(),
        }
    }
}

/// The filter that a specification asks for, if any.
pub(crate) fn filter_of(spec: &Spec) -> Result<Option<Filter>, SeccompError> {
    if let Some(seccomp) = &spec.linux.seccomp {
        return compile(seccomp).map(Some);
    }
    match spec.annotations.get(SECCOMP_ANNOTATION).map(String::as_str) {
        None => Ok(None),
        Some("default") => {
            let capabilities = spec
                .process
                .as_ref()
                .and_then(|process| process.capabilities.as_ref());
            let bounding = capabilities.map_or(&[][..], |sets| sets.bounding.as_slice());
            match prebuilt::default_filter(bounding) {
                Some(filter) => Ok(Some(filter)),
                None => compile(&profile::default_profile(bounding)).map(Some),
            }
        }
        Some(other) => Err(SeccompError {
            member: format!("annotations.{SECCOMP_ANNOTATION}"),
            reason: format!("no built-in profile is named {other:?}, only \"default\""),
        }),
    }
}

//! How a case ended.

use anyhow::Result;

/// Why a case says nothing about a runtime on this machine. Travels as an error, so that a case can
/// end anywhere.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl std::fmt::Display for Skip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail(String),
    Skip(String),
}

impl Verdict {
    pub(crate) fn of(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Pass,
            Err(error) => match error.downcast::<Skip>() {
                Ok(skip) => Self::Skip(skip.0),
                Err(error) => Self::Fail(format!("{error:#}")),
            },
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "FAIL",
            Self::Skip(_) => "skip",
        }
    }
}

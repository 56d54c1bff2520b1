//! The results of cases.

use anyhow::Result;

/// Why a case can't test a runtime on this machine. It is an error type, so that a case can end
/// anywhere.
#[derive(Debug)]
pub(crate) struct Skip(pub(crate) String);

impl std::fmt::Display for Skip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The result of a case.
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

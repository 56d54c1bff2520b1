//! The type of a case.

use anyhow::Result;

use crate::lab::Lab;

/// How binding a requirement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// MUST, MUST NOT, REQUIRED of the specification.
    Must,
    /// SHOULD, SHOULD NOT of the specification.
    Should,
    /// runc's command line: no specification has it, but callers rely on it.
    Interface,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Interface => "runc",
        }
    }
}

/// One requirement and how to check it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Like `config.process.cwd-absolute`. Never reused for another case.
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    /// Document and section, like `config.md#process`, or a command of runc's.
    pub(crate) section: &'static str,
    /// The requirement in our own words.
    pub(crate) requirement: &'static str,
    pub(crate) run: fn(&Lab) -> Result<()>,
}

macro_rules! constructor {
    ($name:ident, $level:ident) => {
        pub(crate) const fn $name(
            id: &'static str,
            section: &'static str,
            requirement: &'static str,
            run: fn(&Lab) -> Result<()>,
        ) -> Case {
            Case {
                id,
                level: Level::$level,
                section,
                requirement,
                run,
            }
        }
    };
}

constructor!(must, Must);
constructor!(should, Should);
constructor!(interface, Interface);

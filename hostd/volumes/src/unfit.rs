//! What is wrong with a client's name or option.

/// Why a name, or the options of the driver `local`, can't be used: a text for the client, which is
/// Docker's if there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl From<&str> for Unfit {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Unfit {
    fn from(text: String) -> Self {
        Self(text)
    }
}

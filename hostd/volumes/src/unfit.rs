//! What is wrong with a client's name or option.

/// Why a name, or the options of the driver `local`, can't be used: words for the client, Docker's
/// where it has some.
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

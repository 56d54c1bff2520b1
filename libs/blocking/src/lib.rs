//! Runs blocking work (mostly on files) outside the threads that serve requests, and reports when
//! such work dies.

use std::any::Any;

use tokio::task::{JoinError, spawn_blocking};

/// A task ended without a result. The cause is a defect of this program, or that it is ending. It
/// does not mean that the files are damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskDied {
    /// It panicked, with this message.
    #[error("a task of this program panicked: {0}")]
    Panicked(String),
    /// It was cancelled before it ended.
    #[error("a task of this program was cancelled")]
    Cancelled,
}

impl TaskDied {
    /// Makes the error from the payload of a panic.
    pub fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self::Panicked(text.unwrap_or("it does not say why").to_owned())
    }
}

impl From<JoinError> for TaskDied {
    fn from(error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(payload) => Self::of_panic(&*payload),
            Err(_) => Self::Cancelled,
        }
    }
}

/// Runs work on one of tokio's threads for blocking work. The work continues when the caller stops
/// waiting. Don't use it for work whose length a client decides: that would keep these threads from
/// work that must be quick.
///
/// # Errors
/// [`TaskDied`].
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TaskDied> {
    Ok(spawn_blocking(work).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_are_returned() {
        assert_eq!(blocking(|| 7).await, Ok(7));
        let number = 5;
        for (work, text) in [
            (blocking(|| panic!("on purpose")).await, "on purpose"),
            (
                blocking(move || panic!("number {number}")).await,
                "number 5",
            ),
        ] {
            let died: TaskDied = Result::<(), _>::unwrap_err(work);
            assert_eq!(died, TaskDied::Panicked(text.to_owned()));
        }
    }

    #[tokio::test]
    async fn a_cancelled_task_is_reported() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(TaskDied::from(task.await.unwrap_err()), TaskDied::Cancelled);
    }
}

//! Work that blocks (files, mostly) outside the threads that serve requests, and what it means when
//! such work dies.

use std::any::Any;

use tokio::task::{JoinError, spawn_blocking};

/// Work that ended without a result: a defect of this program, or its end. It says nothing about
/// what was worked on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskDied {
    /// It panicked; the text is the panic's.
    #[error("a task of this program panicked: {0}")]
    Panicked(String),
    /// It was cancelled before it ended.
    #[error("a task of this program was cancelled")]
    Cancelled,
}

impl TaskDied {
    /// Of what a panic left.
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

/// Runs work on one of the threads that tokio keeps for what blocks. It goes on when the caller goes
/// away. Not for work whose length others decide: it would take those threads from what must be
/// quick.
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
    async fn results_and_panics_are_told() {
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
    async fn a_cancelled_task_is_told() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert_eq!(TaskDied::from(task.await.unwrap_err()), TaskDied::Cancelled);
    }
}

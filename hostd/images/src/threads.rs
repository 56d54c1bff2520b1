//! Separate threads for work whose duration others decide: a client that sends or reads slowly, a
//! registry that answers slowly. Tokio's threads for blocking work are shared with work that must
//! be quick, and slow work could occupy them all. The API bounds the amount of this work: each task
//! needs a place first.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Builder;

use keelson_blocking::TaskDied;
use tokio::sync::oneshot;

use crate::error::ImageError;

/// Running work.
#[derive(Debug)]
pub(crate) struct Work<T>(oneshot::Receiver<Result<T, ImageError>>);

/// Begins work on a thread of its own.
pub(crate) fn begin<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Work<T> {
    let (sender, receiver) = oneshot::channel();
    let started = Builder::new().name(name.to_owned()).spawn(move || {
        // The panic is passed on, and nothing of the work is used afterwards.
        let result = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(TaskDied::of_panic(&*panic).into()));
        // The caller may be gone.
        let _ = sender.send(result);
    });
    match started {
        Ok(_) => Work(receiver),
        Err(error) => Work(failed(error)),
    }
}

fn failed<T>(error: io::Error) -> oneshot::Receiver<Result<T, ImageError>> {
    let (sender, receiver) = oneshot::channel();
    let error = ImageError::Interrupted(format!("no thread could be started: {error}"));
    // The receiver is still here.
    let _ = sender.send(Err(error));
    receiver
}

impl<T> Work<T> {
    /// Waits for its end. The work continues if nobody waits.
    pub(crate) async fn end(self) -> Result<T, ImageError> {
        self.0.await.unwrap_or(Err(TaskDied::Cancelled.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn results_and_panics_are_returned() {
        assert_eq!(begin("t", || Ok(7)).end().await.unwrap(), 7);
        let panicked = begin::<()>("t", || panic!("on purpose")).end().await;
        assert!(
            panicked
                .unwrap_err()
                .to_string()
                .ends_with("panicked: on purpose")
        );
    }
}

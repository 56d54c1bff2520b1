//! All executions of an engine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keelson_store::document::Rest;
use tokio::sync::watch;

use super::lifecycle::{ExecAction, ExecEvent, ExecRefusal, ExecState, step};
use super::record::{ExecDocument, Progress, Records};
use super::request::ExecRequest;
use crate::EngineError;
use crate::types::Scope;

/// Ended executions are forgotten after this time.
const KEPT: Duration = Duration::from_secs(300);
/// The largest number of executions. If there are more, the oldest one that does not run is
/// forgotten.
pub(crate) const MAX_KEPT: usize = 4096;
/// The largest size of all requests in bytes.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// One execution.
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) scope: Scope,
    /// The container's identifier.
    pub(crate) container: String,
    pub(crate) request: Arc<ExecRequest>,
    records: Records,
    /// Members that a newer engine wrote.
    rest: Rest,
    /// When it was created or has ended.
    since: Mutex<Instant>,
    state: watch::Sender<ExecState>,
}

impl Exec {
    pub(crate) fn new(
        id: String,
        scope: Scope,
        container: String,
        request: Arc<ExecRequest>,
        records: Records,
        state: ExecState,
    ) -> Self {
        Self {
            id,
            scope,
            container,
            request,
            records,
            rest: Rest::default(),
            since: Mutex::new(Instant::now()),
            state: watch::Sender::new(state),
        }
    }

    /// Restores an execution that another engine has recorded.
    pub(crate) fn restored(
        document: ExecDocument,
        scope: Scope,
        container: String,
        records: Records,
    ) -> Self {
        let state = document.progress.state();
        Self {
            rest: document.rest,
            ..Self::new(
                document.id,
                scope,
                container,
                document.request,
                records,
                state,
            )
        }
    }

    pub(crate) fn state(&self) -> ExecState {
        *self.state.borrow()
    }

    /// Follows the state.
    pub(crate) fn states(&self) -> watch::Receiver<ExecState> {
        self.state.subscribe()
    }

    /// Moves it to the state after an event, and returns the actions. If several callers have the
    /// same event, one succeeds.
    pub(crate) fn apply(&self, event: ExecEvent) -> Result<&'static [ExecAction], ExecRefusal> {
        let mut done = Err(ExecRefusal::OutOfTurn);
        self.state.send_if_modified(|state| {
            done = step(*state, event).map(|(next, actions)| {
                *state = next;
                actions
            });
            if state.is_ended() && done.is_ok() {
                *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            done.is_ok()
        });
        done
    }

    /// Whether it can be started now.
    pub(crate) fn may_start(&self) -> Result<(), EngineError> {
        let refused = step(self.state(), ExecEvent::Start).err();
        refused.map_or(Ok(()), |refused| Err(self.refusal(refused)))
    }

    /// Why it can't be started, in Docker's words.
    pub(crate) fn refusal(&self, refused: ExecRefusal) -> EngineError {
        let why = match refused {
            ExecRefusal::HasRun => "has already run",
            ExecRefusal::IsRunning | ExecRefusal::OutOfTurn => "is already running",
        };
        EngineError::Conflict(format!("exec command {} {why}", self.id))
    }

    /// Writes the request and the progress to its file.
    pub(crate) fn record(&self) -> Result<(), EngineError> {
        self.records.write(&ExecDocument {
            id: self.id.clone(),
            request: Arc::clone(&self.request),
            progress: Progress::of(self.state()),
            rest: self.rest.clone(),
        })
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For events.
    pub(crate) fn command_line(&self) -> String {
        self.request.command_line()
    }
}

/// All of an engine, by identifier.
#[derive(Default)]
pub(crate) struct Executions(Mutex<HashMap<String, Arc<Exec>>>);

impl Executions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Exec>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an execution, and forgets others that have ended long ago or are too many.
    pub(crate) fn insert(&self, exec: Arc<Exec>) -> Result<(), EngineError> {
        let mut gone = Vec::new();
        let inserted = self.insert_and_forget(exec, &mut gone);
        for exec in gone {
            exec.records.remove(&exec.id);
        }
        inserted
    }

    fn insert_and_forget(
        &self,
        exec: Arc<Exec>,
        gone: &mut Vec<Arc<Exec>>,
    ) -> Result<(), EngineError> {
        let mut map = self.lock();
        let is_old = |exec: &Exec| exec.state().is_ended() && exec.since().elapsed() > KEPT;
        gone.extend(map.extract_if(|_, exec| is_old(exec)).map(|(_, exec)| exec));
        let mut bytes: usize = map.values().map(|exec| exec.request.size()).sum();
        while map.len() >= MAX_KEPT || bytes + exec.request.size() > MAX_KEPT_BYTES {
            let oldest = map
                .values()
                .filter(|exec| exec.state().is_ended() || exec.state() == ExecState::Created)
                .min_by_key(|exec| exec.since())
                .map(|exec| exec.id.clone());
            let Some(oldest) = oldest.and_then(|oldest| map.remove(&oldest)) else {
                return Err(EngineError::Conflict(
                    "too many exec commands run at once: try again when some have ended".to_owned(),
                ));
            };
            bytes -= oldest.request.size();
            gone.push(oldest);
        }
        map.insert(exec.id.clone(), exec);
        Ok(())
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Exec>> {
        self.lock().get(id).cloned()
    }

    /// Removes an execution that could not be recorded.
    pub(crate) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// The executions of a container.
    pub(crate) fn of(&self, container: &str) -> Vec<Arc<Exec>> {
        let map = self.lock();
        let own = map.values().filter(|exec| exec.container == container);
        own.cloned().collect()
    }

    /// Forgets the executions of a removed container. Their records are removed with its run.
    pub(crate) fn forget(&self, container: &str) {
        self.lock().retain(|_, exec| exec.container != container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(id: &str, run: &std::path::Path, state: ExecState, bytes: usize) -> Arc<Exec> {
        let request = ExecRequest {
            args: vec!["x".repeat(bytes)],
            ..ExecRequest::default()
        };
        Arc::new(Exec::new(
            id.to_owned(),
            Scope::User,
            "container".to_owned(),
            Arc::new(request),
            Records::of(run),
            state,
        ))
    }

    #[test]
    fn bytes_are_bounded_and_what_is_forgotten_leaves_no_record() {
        let run = tempfile::tempdir().unwrap();
        let executions = Executions::default();
        let ended = ExecState::Ended { code: 0, pid: 1 };
        for number in 0..6 {
            let id = format!("{number}").repeat(64);
            let exec = exec(&id, run.path(), ended, 2 << 20);
            executions.insert(Arc::clone(&exec)).unwrap();
            exec.record().unwrap();
        }
        assert_eq!(executions.of("container").len(), 3);
        assert_eq!(Records::of(run.path()).read(9).len(), 3);
        // A running execution is never forgotten.
        let executions = Executions::default();
        for number in 0..3 {
            let id = format!("{number}").repeat(64);
            let running = exec(&id, run.path(), ExecState::Running(1), 2 << 20);
            executions.insert(running).unwrap();
        }
        let one_more = exec("more", run.path(), ExecState::Created, 2 << 20);
        assert!(executions.insert(one_more).is_err());
        executions.forget("container");
        assert!(executions.of("container").is_empty());
    }

    #[test]
    fn only_one_caller_starts_it() {
        let run = tempfile::tempdir().unwrap();
        let exec = exec("one", run.path(), ExecState::Created, 1);
        exec.may_start().unwrap();
        let started = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| exec.apply(ExecEvent::Start).is_ok()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .filter(|started| *started)
                .count()
        });
        assert_eq!(started, 1);
        assert!(exec.may_start().is_err());
    }
}

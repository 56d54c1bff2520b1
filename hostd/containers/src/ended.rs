//! When a container's process has ended: the record, the events, the restart, the removal.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keelson_shim_protocol::{Exit, exit_code};
use keelson_store::objects::remove_tree;

use crate::WaitCondition;
use crate::container::Container;
use crate::engine::{Inner, timestamp};
use crate::restart::{self, Occasion};
use crate::start::Starter;
use crate::types::Status;

/// How long killed processes may take to leave their cgroup.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);

impl Inner {
    /// Records the end of a run, and does what follows from it.
    pub(crate) async fn ended(self: &Arc<Self>, container: &Arc<Container>, exit: Option<Exit>) {
        let _guard = container.operation.lock().await;
        if container.live().removed || !container.snapshot().state.status.has_process() {
            return;
        }
        let exit = match exit {
            Some(exit) => exit,
            None => {
                self.kill_leftovers(container).await;
                lost_exit("the container's shim was killed")
            }
        };
        let (restart, auto_remove) = self.record_exit(container, &exit, None);
        // The record is kept in state.json now. On a thread of its own: those who were told of the
        // end run on this one as soon as it waits, and must not wait for files.
        let folder = container.run_folder.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(id = container.id, %error, "run folder not removed");
        }
        if let Some(pause) = restart {
            self.restart_later(container, pause);
        } else if auto_remove && let Err(error) = self.remove_now(container) {
            tracing::error!(id = container.id, %error, "container not removed");
        }
    }

    /// Puts the end into the state, tells those who wait, and returns after which pause the
    /// container is started again, and whether it is to be removed.
    pub(crate) fn record_exit(
        &self,
        container: &Container,
        exit: &Exit,
        occasion: Option<Occasion>,
    ) -> (Option<Duration>, bool) {
        let finished = timestamp(exit.finished_at).unwrap_or_else(Timestamp::now);
        let (restart, auto_remove) = {
            let mut live = container.live();
            let occasion = occasion.unwrap_or(Occasion::Exit {
                asked_for: live.exit_asked || self.is_shutting_down(),
            });
            live.update(|state| {
                state.pid = 0;
                state.exit_code = exit.code;
                state.error = error_of(exit);
                state.oom_killed = exit.oom_killed;
                state.finished_at = Some(finished);
                if let Some(started) = timestamp(exit.started_at) {
                    state.started_at = Some(started);
                }
                state.status = Status::Exited;
            });
            let snapshot = Arc::clone(&live.snapshot);
            let policy = snapshot.spec.restart;
            let restart = restart::should_restart(policy, &snapshot.state, occasion).then(|| {
                let run = snapshot
                    .state
                    .started_at
                    .map_or(SignedDuration::ZERO, |started| {
                        finished.duration_since(started)
                    });
                restart::pause(live.back_off, Duration::try_from(run).unwrap_or_default())
            });
            if restart.is_some() {
                live.back_off = restart;
                live.update(|state| state.status = Status::Restarting);
            }
            (restart, snapshot.spec.auto_remove && !live.keep)
        };
        if exit.log_lost > 0 {
            let bytes = exit.log_lost;
            tracing::warn!(id = container.id, bytes, "output of the container was lost");
        }
        if exit.oom_killed {
            self.emit(container, "oom", &[]);
        }
        let duration = container.snapshot().state.started_at.map_or(0, |started| {
            finished.duration_since(started).as_secs().max(0)
        });
        self.emit(
            container,
            "die",
            &[
                ("exitCode", exit.code.to_string()),
                ("execDuration", duration.to_string()),
            ],
        );
        container
            .live()
            .notify(|condition| condition != WaitCondition::Removed);
        // Last, because others wait; until the state is kept, the shim's record is.
        self.persist(container);
        (restart, auto_remove)
    }

    /// Starts a container after a pause, unless something else happened to it by then.
    pub(crate) fn restart_later(self: &Arc<Self>, container: &Arc<Container>, pause: Duration) {
        let inner = Arc::clone(self);
        let container = Arc::clone(container);
        let generation = {
            let mut live = container.live();
            live.generation += 1;
            live.generation
        };
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let Ok(_guard) = container.lock().await else {
                return;
            };
            if container.live().generation == generation && !inner.is_shutting_down() {
                // The failure is in the container's state and in the log already.
                let _ = inner.start(&container, Starter::Policy).await;
            }
        });
    }

    /// Ends processes that outlived their shim, and removes their cgroup. With a pid namespace
    /// there are none; a container without one may have some.
    pub(crate) async fn kill_leftovers(&self, container: &Container) {
        let Some(mount) = &self.facts.cgroup_mount else {
            return;
        };
        let cgroup = container.snapshot().cgroup.clone();
        let path = mount.join(cgroup.trim_start_matches('/'));
        // The kernel removes killed processes from a cgroup only when it has torn them down.
        let removal = move || keelson_cgroup::remove(&path, LEFTOVERS_LIMIT);
        match tokio::task::spawn_blocking(removal).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(id = container.id, %error, "cgroup not removed"),
            Err(error) => tracing::error!(id = container.id, %error, "cgroup not removed"),
        }
    }
}

/// What a container's state says about its end besides the code.
fn error_of(exit: &Exit) -> String {
    match (&exit.error, exit.log_lost) {
        (Some(error), _) => error.clone(),
        (None, 0) => String::new(),
        (None, bytes) => format!(
            "{bytes} bytes of output are missing in the log, which could not be written; \
             is the disk full?"
        ),
    }
}

/// The record of a run whose end nobody saw.
pub(crate) fn lost_exit(reason: &str) -> Exit {
    Exit {
        version: 1,
        code: exit_code::UNKNOWN,
        oom_killed: false,
        started_at: 0,
        finished_at: 0,
        error: Some(reason.to_owned()),
        log_lost: 0,
    }
}

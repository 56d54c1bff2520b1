//! Health in Docker's words.

use hostd_containers::{CheckOutcome, CheckResult, HealthStatus, Snapshot};
use serde_json::{Value, json};

use crate::times;

/// The filter's word for containers whose health is not checked.
const NONE: &str = "none";

/// All words of the filter `health`.
pub(super) const WORDS: &[&str] = &["starting", "healthy", "unhealthy", NONE];

/// Docker's word.
const fn word(status: HealthStatus) -> &'static str {
    match status {
        HealthStatus::Starting => "starting",
        HealthStatus::Healthy => "healthy",
        HealthStatus::Unhealthy => "unhealthy",
    }
}

/// The value that the filter `health` compares.
pub(super) fn filter_word(snapshot: &Snapshot) -> &'static str {
    snapshot
        .health
        .as_ref()
        .map_or(NONE, |health| word(health.status))
}

/// The text after the time in a list's `Status`; `None` if the health is not checked.
pub(super) fn phrase(snapshot: &Snapshot) -> Option<&'static str> {
    Some(match snapshot.health.as_ref()?.status {
        HealthStatus::Starting => "health: starting",
        status => word(status),
    })
}

/// The member `Health` of a container's state.
pub(super) fn render(snapshot: &Snapshot) -> Option<Value> {
    let health = snapshot.health.as_ref()?;
    let log = health.log.iter().map(|result| entry(snapshot, result));
    Some(json!({
        "Status": word(health.status),
        "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    }))
}

fn entry(snapshot: &Snapshot, result: &CheckResult) -> Value {
    let (code, output) = match result.outcome {
        CheckOutcome::Exited { code } => (code, result.output.clone()),
        CheckOutcome::NotExecuted => (-1, result.output.clone()),
        CheckOutcome::TimedOut => {
            let limit = snapshot.spec.health.as_ref().map(|check| check.timeout);
            let limit = times::go_duration(limit.unwrap_or_default());
            let mut text = format!("Health check exceeded timeout ({limit})");
            if !result.output.is_empty() {
                text.push_str(": ");
                text.push_str(&result.output);
            }
            (-1, text)
        }
    };
    json!({
        "Start": result.start.to_string(),
        "End": result.end.to_string(),
        "ExitCode": code,
        "Output": output,
    })
}

//! The handlers of the host configuration.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use keelson_config::change::{self, Proposal};
use keelson_http::{Failure, reply};
use keelson_model::error::ErrorKind;

use crate::state::{Answer, HostApi, read_json_up_to};
use crate::wire_config as wire;

/// Largest document with a file of the operator in it, in bytes. The file itself is at most 1 MiB; JSON
/// may write it longer.
const MAX_DOCUMENT: usize = 4 << 20;

/// `GET /host/v1/config`.
pub(crate) async fn show(api: &HostApi, _: Request<Incoming>) -> Answer {
    let configuration = &api.sources.configuration;
    let view = configuration.work(|sources| {
        let loaded = keelson_config::current(sources);
        Ok(wire::ConfigView::new(&loaded, change::waiting(sources)?))
    });
    Ok(reply::json(StatusCode::OK, &view.await?))
}

/// `POST /host/v1/config/validate`.
pub(crate) async fn validate(api: &HostApi, request: Request<Incoming>) -> Answer {
    let proposal = proposal(read_json_up_to(request, MAX_DOCUMENT).await?);
    let configuration = &api.sources.configuration;
    let problems = configuration.work(move |sources| change::validate(sources, &proposal));
    let validated = wire::ConfigValidated {
        problems: wire::problems(problems.await?),
    };
    Ok(reply::json(StatusCode::OK, &validated))
}

/// `POST /host/v1/config/diff`.
pub(crate) async fn diff(api: &HostApi, request: Request<Incoming>) -> Answer {
    let proposal = proposal(read_json_up_to(request, MAX_DOCUMENT).await?);
    let configuration = &api.sources.configuration;
    let changes = configuration.work(move |sources| change::diff(sources, &proposal));
    let diff = wire::ConfigDiff {
        changes: wire::changes(changes.await?),
    };
    Ok(reply::json(StatusCode::OK, &diff))
}

/// `POST /host/v1/config/apply`.
pub(crate) async fn apply(api: &HostApi, request: Request<Incoming>) -> Answer {
    let wire::ConfigApply {
        text,
        drop_in,
        confirm_within,
        restart,
    } = read_json_up_to(request, MAX_DOCUMENT).await?;
    let configuration = &api.sources.configuration;
    if restart && !configuration.can_restart() {
        return Err(Failure::new(
            ErrorKind::Conflict,
            "restart: nothing would start hostd again here: apply without it, and restart hostd by hand",
        ));
    }
    let proposal = Proposal { drop_in, text };
    let answer = configuration.change(
        move |sources| change::apply(sources, &proposal, confirm_within),
        move |configuration, applied| {
            Box::pin(async move {
                let (changes, loaded) = (applied.changes, applied.loaded);
                let notes = configuration.spread(&changes, &loaded).await;
                wire::ConfigApplied {
                    changes: wire::changes(changes),
                    confirm_within: applied.confirm_within,
                    restarting: restart && configuration.restart_for(&loaded),
                    notes,
                }
            })
        },
    );
    let answer = answer.await?;
    tracing::info!(changes = answer.changes.len(), confirm_within = ?answer.confirm_within, "configuration changed");
    Ok(reply::json(StatusCode::OK, &answer))
}

/// `POST /host/v1/config/confirm`.
pub(crate) async fn confirm(api: &HostApi, _: Request<Incoming>) -> Answer {
    let configuration = &api.sources.configuration;
    let file = configuration.change(change::confirm, |_, file| {
        Box::pin(async move { file.display().to_string() })
    });
    let file = file.await?;
    tracing::info!(file, "configuration confirmed");
    let answer = wire::ConfigConfirmed { file };
    Ok(reply::json(StatusCode::OK, &answer))
}

/// `POST /host/v1/config/rollback`.
pub(crate) async fn rollback(api: &HostApi, _: Request<Incoming>) -> Answer {
    let configuration = &api.sources.configuration;
    let answer = configuration.change(change::rollback, |configuration, back| {
        Box::pin(async move {
            let notes = configuration.spread(&back.changes, &back.loaded).await;
            wire::ConfigTakenBack {
                file: back.file.display().to_string(),
                changes: wire::changes(back.changes),
                restarting: configuration.restart_for(&back.loaded),
                notes,
            }
        })
    });
    let answer = answer.await?;
    tracing::info!(file = answer.file, "configuration taken back");
    Ok(reply::json(StatusCode::OK, &answer))
}

fn proposal(wanted: wire::ConfigProposal) -> Proposal {
    let wire::ConfigProposal { text, drop_in } = wanted;
    Proposal { drop_in, text }
}

//! Other servers at the local door: why a message has not arrived there, in sentences.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use hearth_delivery::{Status, Task};
use hearth_matrix::ruma::OwnedServerName;
use hearth_remote::Verdict;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{answer, refuse, store_refusal};
use crate::{ApiError, Doors, JsonBody};

/// Servers of a list.
const LISTED: usize = 50;
/// Shared rooms that are named.
const ROOMS: usize = 10;

pub(super) fn router() -> Router<Doors> {
    Router::new().route("/federation/status", post(status)).route("/federation/doctor", post(doctor))
}

#[derive(Deserialize)]
struct Which {
    server: Option<OwnedServerName>,
}

/// Of one server, or of those with which it stands worst.
async fn status(State(doors): State<Doors>, JsonBody(which): JsonBody<Which>) -> Result<Response, ApiError> {
    let now = doors.time.now_ms();
    let Some(server) = which.server else {
        let lagging = doors.delivery.lagging(LISTED).await.map_err(store_refusal)?;
        let servers: Vec<Value> = lagging.iter().map(|status| told(&doors, status, now)).collect();
        return Ok(answer(&json!({ "servers": servers })));
    };
    if server == doors.options.server_name {
        return Err(refuse(format!(
            "{server} is this server; `hearth doctor federation {server}` looks at it from outside"
        )));
    }
    let status = doors.delivery.status(&server).await.map_err(store_refusal)?;
    Ok(answer(&json!({ "servers": [told(&doors, &status, now)] })))
}

#[derive(Deserialize)]
struct Doctor {
    server: OwnedServerName,
}

async fn doctor(State(doors): State<Doors>, JsonBody(which): JsonBody<Doctor>) -> Result<Response, ApiError> {
    let steps = doors.remote.diagnose(&which.server).await;
    let steps: Vec<Value> = steps
        .into_iter()
        .map(|step| {
            let verdict = match step.verdict {
                Verdict::Good => "good",
                Verdict::Doubtful => "doubtful",
                Verdict::Bad => "bad",
            };
            json!({ "about": step.about, "verdict": verdict, "found": step.found, "mend": step.mend })
        })
        .collect();
    Ok(answer(&json!({ "steps": steps })))
}

fn told(doors: &Doors, status: &Status, now: i64) -> Value {
    let destination = status.destination.as_ref();
    json!({
        "server": status.server,
        "allowed": status.refusal.is_none(),
        "failures": destination.map_or(0, |destination| destination.failures),
        "failing_since_ts": destination.and_then(|destination| destination.failing_since_ts),
        "retry_ts": destination.map(|destination| destination.retry_ts).filter(|ts| *ts > now),
        "last_success_ts": destination.and_then(|destination| destination.last_success_ts),
        "last_error": destination.and_then(|destination| destination.last_error.as_deref()),
        "events_behind": status.behind.events,
        "events_behind_more": status.behind.more,
        "behind_ms": status.behind.oldest_ts.map(|oldest| (now - oldest).max(0)),
        "sending": status.task == Task::Sends,
        "under_way": status.under_way.map(|(after, upto)| [after.0, upto.0]),
        "rooms": status.rooms,
        "sentences": sentences(doors, status, now),
    })
}

/// Why what is missing there is missing, the most important first.
fn sentences(doors: &Doors, status: &Status, now: i64) -> Vec<String> {
    let server = &status.server;
    let mut all = Vec::new();
    if let Some(refusal) = status.refusal {
        all.push(format!("Nothing is sent to {server}: {refusal}."));
    }
    match (status.rooms.as_slice(), status.behind.events) {
        ([], 0) => all.push(format!("{server} is in no room of this server, so no event is sent there.")),
        (_, 0) => all.push(format!("{server} lacks no event.")),
        (_, events) => all.push(format!(
            "{server} lacks {}{events} event{}{}.",
            if status.behind.more { "more than " } else { "" },
            if events == 1 { "" } else { "s" },
            status.behind.oldest_ts.map_or(String::new(), |ts| format!(", the oldest sent {} ago", in_words(now - ts))),
        )),
    }
    if status.leaps {
        all.push(
            "It was away so long that it gets the newest event of each room only, and fetches the others.".to_owned(),
        );
    }
    if let Some(destination) = &status.destination {
        if destination.failures > 0 {
            let since = destination.failing_since_ts.map_or(0, |since| now - since);
            let error = destination.last_error.as_deref().unwrap_or("no reason is known");
            all.push(format!(
                "It has not answered for {} ({} in a row failed). Last: {error}.",
                in_words(since),
                destination.failures
            ));
        }
        match destination.last_success_ts {
            Some(last) => all.push(format!("It answered last {} ago, or up to an hour later.", in_words(now - last))),
            None if destination.failures > 0 => all.push("It has not answered since that began.".to_owned()),
            None => {}
        }
    }
    let retry_ts = status.destination.as_ref().map_or(0, |destination| destination.retry_ts);
    let until = match status.task {
        Task::Waits { until_ms } => until_ms.max(retry_ts),
        _ => retry_ts,
    };
    if until > now {
        all.push(format!(
            "It is left alone for another {}, unless it shows life before; `hearth doctor federation {server}` tries now.",
            in_words(until - now)
        ));
    }
    if status.task == Task::Sends {
        all.push("It is being sent to right now.".to_owned());
    }
    if let Some((after, upto)) = status.under_way {
        all.push(format!("The transaction {}-{} is under way.", after.0, upto.0));
    }
    if status.behind.events > 0 && status.task == Task::Rests && until <= now && status.refusal.is_none() {
        all.push("Nobody is sending to it: either no server runs, or its turn comes in a moment.".to_owned());
    }
    if !status.rooms.is_empty() {
        let named: Vec<&str> = status.rooms.iter().take(ROOMS).map(|room| room.as_str()).collect();
        let more = status.rooms.len().saturating_sub(named.len());
        let more = if more > 0 { format!(" and at least {more} more") } else { String::new() };
        all.push(format!("{} and it share {}{more}.", doors.options.server_name, named.join(", ")));
    }
    all
}

fn in_words(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

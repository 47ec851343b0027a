//! `/sync`.
//!
//! Spec: client-server API, "Syncing", "Filtering".

use std::pin::Pin;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use hearth_sync::{BadToken, SyncError, SyncRequest, SyncToken, Syncs};
use hearth_user::filters::FilterError;
use hearth_user::presence::{PresenceState, SetPresence};
use http::{HeaderValue, Method, header};

use super::session_end::{Ended, SessionEnd, session_end};
use crate::route::{Answer, Route};
use crate::{ApiError, Doors, Sender, Shutdown};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::waiting(Method::GET, "/_matrix/client/v3/sync", sync)]
}

/// `GET /_matrix/client/v3/sync`
///
/// What is needed only before the waiting has a box of its own, which is gone when the waiting begins.
fn sync(request: Request, doors: Doors) -> Answer {
    let (syncs, shutdown) = (doors.syncs.clone(), doors.shutdown.clone());
    Box::pin(wait(Box::pin(prepare(request, doors)), syncs, shutdown))
}

type Prepared = Pin<Box<dyn Future<Output = Result<(SyncRequest, SessionEnd), ApiError>> + Send>>;

async fn wait(prepared: Prepared, syncs: Syncs, shutdown: Shutdown) -> Response {
    let (request, session_end) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return refusal.into_response(),
    };
    let ended = Ended::default();
    let answer = syncs.sync(request, ended.or_stopped(session_end, shutdown)).await;
    match answer {
        Ok(json) => ended.instead_of(Json(json)).into_response(),
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn prepare(request: Request, doors: Doors) -> Result<(SyncRequest, SessionEnd), ApiError> {
    let (mut parts, _) = request.into_parts();
    let heard = doors.accounts.heard();
    let sender = Sender::from_request_parts(&mut parts, &doors).await?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let filter = doors.syncs.filter(sender.user, query.filter.as_deref()).await.map_err(refused_filter)?;
    let session_end = session_end(&doors, &sender, heard);
    let request = SyncRequest {
        user: sender.user,
        user_id: sender.user_id,
        device: sender.device,
        since: query.since,
        filter,
        full_state: query.full_state,
        state_after: query.state_after,
        timeout: query.timeout,
        set_presence: query.set_presence,
    };
    Ok((request, session_end))
}

/// What is JSON already.
pub(in crate::client) struct Json(pub(in crate::client) String);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

#[derive(Debug, Default)]
struct Query {
    filter: Option<String>,
    since: Option<SyncToken>,
    full_state: bool,
    state_after: Option<&'static str>,
    timeout: Duration,
    set_presence: SetPresence,
}

impl Query {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "filter" => parsed.filter = Some(value.into_owned()),
                "since" if value.is_empty() => {}
                "since" => {
                    let since = value.parse().map_err(|error: BadToken| ApiError::invalid_param(error.to_string()))?;
                    parsed.since = Some(since);
                }
                "full_state" => parsed.full_state = boolean(&name, &value)?,
                "use_state_after" if boolean(&name, &value)? => parsed.state_after = Some("state_after"),
                "org.matrix.msc4222.use_state_after" if boolean(&name, &value)? => {
                    parsed.state_after = parsed.state_after.or(Some("org.matrix.msc4222.state_after"));
                }
                "timeout" => {
                    let ms =
                        value.parse().map_err(|_| ApiError::invalid_param("timeout is a number of milliseconds"))?;
                    parsed.timeout = Duration::from_millis(ms);
                }
                "set_presence" => {
                    let state = PresenceState::from_spec(&value)
                        .ok_or_else(|| ApiError::invalid_param("set_presence is offline, online or unavailable"))?;
                    parsed.set_presence = SetPresence { state, explicit: true };
                }
                _ => {}
            }
        }
        Ok(parsed)
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, ApiError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ApiError::invalid_param(format!("{name} is true or false"))),
    }
}

/// Here a filter is a parameter.
fn refused_filter(error: FilterError) -> ApiError {
    match error {
        FilterError::Store(cause) => ApiError::internal(cause),
        refusal => ApiError::invalid_param(format!("filter: {refusal}")),
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Store(cause) => Self::internal(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearth_sync::Syncs;

    use super::{Prepared, Query, wait};
    use crate::Shutdown;

    fn future_size<F, Fut>(_: F) -> usize
    where
        F: Fn(Prepared, Syncs, Shutdown) -> Fut,
    {
        size_of::<Fut>()
    }

    #[test]
    fn a_request_that_waits_is_small() {
        assert!(future_size(wait) < 1536, "{}", future_size(wait));
    }

    #[test]
    fn queries_are_read_as_the_specification_says() {
        let query =
            Query::parse("since=s1_5_6_7_8&timeout=30000&full_state=true&filter=%7B%7D&set_presence=offline").unwrap();
        assert_eq!(query.since.map(|since| since.position.0), Some(5));
        assert_eq!(query.timeout, Duration::from_secs(30));
        assert!(query.full_state);
        assert_eq!(query.filter.as_deref(), Some("{}"));
        assert_eq!(query.state_after, None);
        let query = Query::parse("org.matrix.msc4222.use_state_after=true").unwrap();
        assert_eq!(query.state_after, Some("org.matrix.msc4222.state_after"));
    }

    #[test]
    fn nonsense_is_refused() {
        for query in ["since=nonsense", "timeout=soon", "timeout=-1", "full_state=1", "set_presence=asleep"] {
            let refusal = Query::parse(query).unwrap_err();
            assert_eq!(refusal.body().errcode.as_deref(), Some("M_INVALID_PARAM"), "{query}");
        }
    }
}

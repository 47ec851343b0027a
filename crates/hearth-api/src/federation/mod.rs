//! The door of other servers: the server-server API, one file per chapter.

mod directory;
mod discovery;
mod events;
mod invites;
mod joins;
mod keys;
mod knocks;
mod leaves;
mod media;
mod origins;
mod query;
mod transactions;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_matrix::Pdu;
use hearth_matrix::ruma::api::IncomingRequest;
use hearth_matrix::ruma::api::path_builder::PathBuilder as _;
use http::header;

pub use origins::Origins;
pub use transactions::Transactions;

use self::origins::Weight;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

pub(crate) fn routes() -> Vec<Route> {
    let mut routes = discovery::routes();
    routes.extend(keys::routes());
    routes.extend(query::routes());
    routes.extend(media::routes());
    routes.extend(events::routes());
    routes.extend(joins::routes());
    routes.extend(leaves::routes());
    routes.extend(knocks::routes());
    routes.extend(invites::routes());
    routes.extend(directory::routes());
    routes.extend(transactions::routes());
    routes
}

/// The routes of an endpoint whose requests servers sign, at all its paths.
fn signed<T, F, Answer>(handler: F) -> Vec<Route>
where
    T: IncomingRequest + Send + 'static,
    F: Fn(Doors, Signed<T>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output: IntoResponse> + Send + 'static,
{
    weighed(Weight::Light, handler)
}

/// The same for an answer as large as a room's state.
fn heavy<T, F, Answer>(handler: F) -> Vec<Route>
where
    T: IncomingRequest + Send + 'static,
    F: Fn(Doors, Signed<T>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output: IntoResponse> + Send + 'static,
{
    weighed(Weight::Heavy, handler)
}

fn weighed<T, F, Answer>(weight: Weight, handler: F) -> Vec<Route>
where
    T: IncomingRequest + Send + 'static,
    F: Fn(Doors, Signed<T>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output: IntoResponse> + Send + 'static,
{
    unweighed(move |doors: Doors, signed: Signed<T>| {
        let handler = handler.clone();
        async move {
            let place = doors.origins.place(&signed.origin, weight).await?;
            let answer = handler(doors, signed).await.into_response();
            Ok::<Response, ApiError>(place.until_read(answer))
        }
    })
}

/// The same without a bound on how many of one server are worked at.
fn unweighed<T, F, Answer>(handler: F) -> Vec<Route>
where
    T: IncomingRequest + Send + 'static,
    F: Fn(Doors, Signed<T>) -> Answer + Clone + Send + Sync + 'static,
    Answer: Future<Output: IntoResponse> + Send + 'static,
{
    let at = |path| {
        let handler = handler.clone();
        let call =
            async move |State(doors): State<Doors>, signed: Signed<T>| handler(doors, signed).await.into_response();
        Route::at(T::METHOD, path, call)
    };
    T::PATH_BUILDER.all_paths().map(at).collect()
}

/// JSON that was written already.
fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// A list of events, byte for byte.
fn list(pdus: &[Arc<Pdu>]) -> String {
    let mut out = String::with_capacity(2 + pdus.iter().map(|pdu| pdu.json.len() + 1).sum::<usize>());
    out.push('[');
    for (n, pdu) in pdus.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(&pdu.json);
    }
    out.push(']');
    out
}

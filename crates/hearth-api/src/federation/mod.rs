//! The door of other servers: the server-server API, one file per chapter.

mod discovery;
mod keys;
mod query;

use axum::extract::State;
use axum::response::IntoResponse;
use hearth_matrix::ruma::api::IncomingRequest;
use hearth_matrix::ruma::api::path_builder::PathBuilder as _;

use crate::Doors;
use crate::extract::Signed;
use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    let mut routes = discovery::routes();
    routes.extend(keys::routes());
    routes.extend(query::routes());
    routes
}

/// The routes of an endpoint whose requests servers sign, at all its paths.
fn signed<T, F, Answer>(handler: F) -> Vec<Route>
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

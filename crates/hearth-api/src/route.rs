//! The route table: which handler answers which method and path.
//!
//! A chapter of the specification is a file with `routes()`, a list of [`route`]s. The paths of an endpoint come from ruma.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use hearth_matrix::ruma::api::path_builder::PathBuilder;
use hearth_matrix::ruma::api::{IncomingRequest, Metadata};
use http::Method;

use crate::Doors;
use crate::extract::{BODY_SIZE_BYTES, Matrix};

/// An endpoint: a method, its paths, its handler.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) paths: Vec<Cow<'static, str>>,
    pub(crate) resource: Resource,
    pub(crate) body_size_bytes: usize,
    pub(crate) call: Call,
}

/// A handler without its type, so that the router is compiled once.
pub(crate) type Call = Arc<dyn Fn(Request, Doors) -> Answer + Send + Sync>;

/// An answer to come.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;

/// What a listener can offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// The client-server API.
    Client,
    /// The server-server API.
    Federation,
    /// Media, for clients and servers.
    Media,
    /// Administration.
    Admin,
    /// `/metrics`
    Metrics,
    /// `/health` and `/ready`
    Health,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Client, Self::Federation, Self::Media, Self::Admin, Self::Metrics, Self::Health];

    /// Its name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Federation => "federation",
            Self::Media => "media",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::Health => "health",
        }
    }

    /// Where a path belongs.
    fn of(path: &str) -> Self {
        let starts_with = |prefix| path.starts_with(prefix);
        if starts_with("/_matrix/media/") || starts_with("/_matrix/client/v1/media/") {
            Self::Media
        } else if starts_with("/_matrix/federation/")
            || starts_with("/_matrix/key/")
            || path == "/.well-known/matrix/server"
        {
            Self::Federation
        } else if starts_with("/_synapse/") {
            Self::Admin
        } else {
            Self::Client
        }
    }
}

/// A line of the route table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteInfo {
    /// The method.
    pub method: String,
    /// The path, with `{parameters}`.
    pub path: String,
}

/// The route of an endpoint that ruma knows, at all its paths. What is at `v3` is at `r0`, too.
pub(crate) fn route<H, Args>(handler: H) -> Route
where
    H: Endpoint<Args>,
{
    let mut paths: Vec<Cow<'static, str>> =
        <H::Request as Metadata>::PATH_BUILDER.all_paths().map(Cow::Borrowed).collect();
    paths.extend(paths.iter().filter_map(|path| older_path(path)).map(Cow::Owned).collect::<Vec<_>>());
    Route::new(H::Request::METHOD, paths, handler.erased())
}

fn older_path(path: &str) -> Option<String> {
    path.strip_prefix("/_matrix/client/v3/").map(|rest| format!("/_matrix/client/r0/{rest}"))
}

impl Route {
    /// A route by hand, for what ruma does not know. Any axum handler.
    pub(crate) fn at<H, X>(method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<X, Doors>,
        X: 'static,
    {
        let call: Call = Arc::new(move |request, doors| Box::pin(handler.clone().call(request, doors)));
        let paths = std::iter::once(Cow::Borrowed(path)).chain(older_path(path).map(Cow::Owned)).collect();
        Self::new(method, paths, call)
    }

    /// A route whose handler makes its future itself: for requests that wait, and should cost little while they do.
    pub(crate) fn waiting(method: Method, path: &'static str, handler: fn(Request, Doors) -> Answer) -> Self {
        let paths = std::iter::once(Cow::Borrowed(path)).chain(older_path(path).map(Cow::Owned)).collect();
        Self::new(method, paths, Arc::new(handler))
    }

    fn new(method: Method, mut paths: Vec<Cow<'static, str>>, call: Call) -> Self {
        paths.sort_unstable();
        paths.dedup();
        let resource = paths.first().map_or(Resource::Client, |path| Resource::of(path));
        Self { method, paths, resource, body_size_bytes: BODY_SIZE_BYTES, call }
    }

    /// Adds a path: an alias that ruma does not know.
    pub(crate) fn and_at(mut self, path: &'static str) -> Self {
        self.paths.push(Cow::Borrowed(path));
        self.paths.extend(older_path(path).map(Cow::Owned));
        self.paths.sort_unstable();
        self.paths.dedup();
        self
    }

    /// Puts the route behind another resource than its path says.
    pub(crate) fn on(mut self, resource: Resource) -> Self {
        self.resource = resource;
        self
    }

    /// Allows larger bodies, or only smaller ones.
    pub(crate) fn body_size_bytes(mut self, limit: usize) -> Self {
        self.body_size_bytes = limit;
        self
    }
}

/// A handler whose last argument is the [`Matrix`] request: `async fn(State<Doors>, Sender, Matrix<T>) -> impl IntoResponse`.
pub(crate) trait Endpoint<Args> {
    /// Its request.
    type Request: IncomingRequest;

    /// The handler without its type.
    fn erased(self) -> Call;
}

macro_rules! endpoint {
    ($($part:ident)*) => {
        impl<F, T, Fut, R, $($part,)*> Endpoint<(T, R, $($part,)*)> for F
        where
            F: Fn($($part,)* Matrix<T>) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send,
            R: IntoResponse,
            T: IncomingRequest + Send,
            $($part: FromRequestParts<Doors> + Send,)*
        {
            type Request = T;

            #[allow(non_snake_case, unused_mut)]
            fn erased(self) -> Call {
                Arc::new(move |request, doors| {
                    let handler = self.clone();
                    Box::pin(async move {
                        let (mut parts, body) = request.into_parts();
                        $(let $part = match $part::from_request_parts(&mut parts, &doors).await {
                            Ok(part) => part,
                            Err(refusal) => return refusal.into_response(),
                        };)*
                        let request = match Matrix::<T>::from_request(Request::from_parts(parts, body), &doors).await {
                            Ok(request) => request,
                            Err(refusal) => return refusal.into_response(),
                        };
                        drop(doors);
                        handler($($part,)* request).await.into_response()
                    })
                })
            }
        }
    };
}

endpoint!();
endpoint!(A);
endpoint!(A B);
endpoint!(A B C);
endpoint!(A B C D);
endpoint!(A B C D E);

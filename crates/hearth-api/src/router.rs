//! The router of a listener, from the route table.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter};

use crate::extract::has_token;
use crate::limits::Class;
use crate::route::{Call, Route};
use crate::threshold::{Record, RouteRecord};
use crate::{ApiError, Doors, Resource, RouteInfo, client, federation, operations};

/// Every route that this program has.
fn all_routes() -> Vec<Route> {
    let mut routes = client::routes();
    routes.extend(federation::routes());
    routes.extend(operations::routes());
    routes
}

/// The route table, sorted: what the conformance page is made from.
pub fn routes() -> Vec<RouteInfo> {
    let mut routes: Vec<RouteInfo> = all_routes()
        .iter()
        .flat_map(|route| {
            route.paths.iter().map(|path| RouteInfo { method: route.method.to_string(), path: path.to_string() })
        })
        .collect();
    routes.sort_unstable();
    routes
}

/// The router of a listener that offers these resources.
pub fn router(doors: Doors, resources: &[Resource]) -> Router {
    let mut router: Router<Doors> = Router::new();
    let mut seen = HashSet::new();
    for route in all_routes() {
        if !resources.contains(&route.resource) {
            continue;
        }
        let Ok(filter) = MethodFilter::try_from(route.method.clone()) else {
            continue;
        };
        for path in &route.paths {
            if !seen.insert((route.method.clone(), path.to_string())) {
                tracing::error!(method = %route.method, %path, "two handlers for one endpoint; the first one stands");
                continue;
            }
            let is_limited = matches!(route.resource, Resource::Client | Resource::Media);
            let class = is_limited.then(|| Class::of(&route.method, path));
            let bodies = (route.resource == Resource::Federation).then(|| doors.bodies.clone());
            let record = Arc::new(RouteRecord::new(&route.method, path, route.body_size_bytes, class, bodies));
            let handler = Erased { record, call: Arc::clone(&route.call) };
            router = router.route(path, MethodRouter::new().on(filter, handler));
        }
    }
    router
        .fallback(async || ApiError::unrecognized())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(doors)
}

/// A handler of any type, as axum sees it.
#[derive(Clone)]
struct Erased {
    record: Arc<RouteRecord>,
    call: Call,
}

impl Handler<Infallible, Doors> for Erased {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, doors: Doors) -> Self::Future {
        if let Some(record) = Record::of(request.extensions()) {
            let class = self.record.class;
            record.set_route(self.record);
            if let Some(class) = class
                && let Err(refusal) = doors.limits.arrival(record.client, class, has_token(&request))
            {
                return Box::pin(std::future::ready(refusal.into_response()));
            }
        }
        (self.call)(request, doors)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::routes;

    #[test]
    fn no_endpoint_has_two_handlers() {
        let routes = routes();
        let distinct: HashSet<_> = routes.iter().map(|route| (&route.method, &route.path)).collect();
        assert_eq!(distinct.len(), routes.len());
    }

    #[test]
    fn what_is_at_v3_is_at_r0() {
        let paths: HashSet<_> = routes().into_iter().map(|route| (route.method, route.path)).collect();
        for (method, path) in &paths {
            let older = path.replace("/_matrix/client/v3/", "/_matrix/client/r0/");
            assert!(paths.contains(&(method.clone(), older)), "{method} {path}");
        }
    }
}

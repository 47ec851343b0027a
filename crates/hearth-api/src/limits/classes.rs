//! Which requests are counted together.

use http::Method;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Shows a password or a login token.
    Login,
    /// Makes an account.
    Registration,
    /// Puts an event into a room.
    Send,
    /// Enters or makes a room.
    Join,
    /// Invites a user.
    Invite,
    /// Uploads a file, or reserves a place for one.
    Upload,
    /// Downloads a file or a thumbnail.
    Download,
    /// All the rest.
    Other,
}

/// Method, path behind the API's version with the names of parameters left out, and class.
const CLASSES: [(Method, &str, Class); 16] = [
    (Method::POST, "login", Class::Login),
    (Method::POST, "auth/{}/fallback/web", Class::Login),
    (Method::POST, "register", Class::Registration),
    (Method::PUT, "rooms/{}/send/{}/{}", Class::Send),
    (Method::PUT, "rooms/{}/state/{}", Class::Send),
    (Method::PUT, "rooms/{}/state/{}/{}", Class::Send),
    (Method::PUT, "rooms/{}/redact/{}/{}", Class::Send),
    (Method::POST, "createRoom", Class::Join),
    (Method::POST, "join/{}", Class::Join),
    (Method::POST, "rooms/{}/join", Class::Join),
    (Method::POST, "knock/{}", Class::Join),
    (Method::POST, "rooms/{}/upgrade", Class::Join),
    (Method::POST, "rooms/{}/invite", Class::Invite),
    (Method::GET, "media/download/{}/{}", Class::Download),
    (Method::GET, "media/download/{}/{}/{}", Class::Download),
    (Method::GET, "media/thumbnail/{}/{}", Class::Download),
];

impl Class {
    /// The class of a route of the client API.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        // On the old paths of media, only what takes an access token is counted by user.
        if path.starts_with("/_matrix/media/") && *method != Method::GET {
            return Self::Upload;
        }
        let of_any_version = path.strip_prefix("/_matrix/client/").and_then(|path| path.split_once('/'));
        let Some((_, path)) = of_any_version else { return Self::Other };
        let found = CLASSES.iter().find(|(of, pattern, _)| of == method && is_same(path, pattern));
        found.map_or(Self::Other, |(_, _, class)| *class)
    }
}

/// Whether two paths differ only in the names of their parameters.
pub(crate) fn is_same(path: &str, pattern: &str) -> bool {
    let path = path.trim_end_matches('/').split('/');
    path.map(|part| if part.starts_with('{') { "{}" } else { part }).eq(pattern.split('/'))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{CLASSES, Class, is_same};
    use crate::routes;

    #[test]
    fn names_of_parameters_do_not_matter() {
        assert!(is_same("rooms/{room_id}/state/{event_type}/{state_key}", "rooms/{}/state/{}/{}"));
        assert!(is_same("rooms/{room_id}/state/{event_type}/", "rooms/{}/state/{}"));
        assert!(!is_same("rooms/{room_id}/invite", "rooms/{}/join"));
    }

    #[test]
    fn each_class_has_its_routes() {
        let routes = routes();
        for (method, pattern, class) in &CLASSES {
            let found = routes.iter().any(|route| {
                route.method == method.as_str()
                    && ["/_matrix/client/v3/", "/_matrix/client/v1/"]
                        .iter()
                        .any(|version| route.path.strip_prefix(version).is_some_and(|path| is_same(path, pattern)))
            });
            // Upgrades are not there yet, but must not be forgotten then.
            assert!(found || *pattern == "rooms/{}/upgrade", "{method} {pattern}");
            assert_eq!(Class::of(method, &format!("/_matrix/client/r0/{pattern}")), *class);
        }
        assert_eq!(Class::of(&Method::POST, "/_matrix/media/v3/upload"), Class::Upload);
        assert_eq!(Class::of(&Method::GET, "/_matrix/media/v3/config"), Class::Other);
        assert_eq!(Class::of(&Method::GET, "/_matrix/client/v3/sync"), Class::Other);
        assert_eq!(Class::of(&Method::GET, "/_matrix/client/v3/login"), Class::Other);
    }
}

//! Where guests may go.
//!
//! Spec: client-server API, "Guest Access". What is not in its list is not for them; that they may end their session and
//! learn what the server can is ours.

use http::{Extensions, Method};

use crate::limits::is_same;
use crate::threshold::Record;

/// Method and path behind the API's version, with the names of parameters left out.
const ALLOWED: [(Method, &str); 27] = [
    (Method::GET, "rooms/{}/state"),
    (Method::GET, "rooms/{}/context/{}"),
    (Method::GET, "rooms/{}/event/{}"),
    (Method::GET, "rooms/{}/state/{}/{}"),
    (Method::GET, "rooms/{}/state/{}"),
    (Method::GET, "rooms/{}/messages"),
    (Method::GET, "rooms/{}/members"),
    (Method::GET, "rooms/{}/initialSync"),
    (Method::GET, "sync"),
    (Method::GET, "events"),
    (Method::GET, "media/download/{}/{}"),
    (Method::GET, "media/download/{}/{}/{}"),
    (Method::GET, "media/thumbnail/{}/{}"),
    (Method::POST, "rooms/{}/join"),
    (Method::POST, "join/{}"),
    (Method::POST, "rooms/{}/leave"),
    (Method::PUT, "rooms/{}/send/{}/{}"),
    (Method::PUT, "rooms/{}/state/{}/{}"),
    (Method::PUT, "rooms/{}/state/{}"),
    (Method::PUT, "profile/{}/{}"),
    (Method::DELETE, "profile/{}/{}"),
    (Method::GET, "devices"),
    (Method::GET, "devices/{}"),
    (Method::PUT, "devices/{}"),
    (Method::GET, "account/whoami"),
    (Method::GET, "capabilities"),
    (Method::POST, "logout"),
];

/// Whether a guest may send the request with these extensions.
pub(super) fn may_ask(extensions: &Extensions) -> bool {
    let Some(route) = Record::of(extensions).and_then(Record::route) else { return false };
    let Some(path) = route.path.strip_prefix("/_matrix/client/").and_then(|path| path.split_once('/')) else {
        return false;
    };
    ALLOWED.iter().any(|(method, allowed)| *method == route.method && is_same(path.1, allowed))
}

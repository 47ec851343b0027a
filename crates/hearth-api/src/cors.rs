//! Cross-origin headers: browsers of any origin may call the client's doors.
//!
//! Spec: client-server API, "Web Browser Clients".

use http::{HeaderMap, HeaderValue, header};

/// Whether a browser may have business at this path. Servers and operators do not use browsers.
pub(crate) fn applies_to(path: &str) -> bool {
    !["/_matrix/federation/", "/_matrix/key/", "/health", "/ready", "/metrics"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

/// Adds the headers to an answer.
pub(crate) fn add_headers(headers: &mut HeaderMap) {
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, OPTIONS");
    set(header::ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization");
    set(header::ACCESS_CONTROL_MAX_AGE, "86400");
}

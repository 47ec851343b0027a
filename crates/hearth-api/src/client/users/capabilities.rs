//! What the server can do for a user.
//!
//! Spec: client-server API, "Capabilities negotiation" and "Third-party Networks". Only what works is advertised.

use axum::extract::State;
use hearth_matrix::SUPPORTED_VERSIONS;
use http::Method;
use serde_json::{Map, Value, json};

use crate::route::Route;
use crate::{Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/client/v3/capabilities", capabilities),
        Route::at(Method::GET, "/_matrix/client/v3/thirdparty/protocols", protocols),
    ]
}

/// `GET /_matrix/client/v3/capabilities`
async fn capabilities(State(doors): State<Doors>, sender: Sender) -> JsonBody<Value> {
    let versions: Map<String, Value> =
        SUPPORTED_VERSIONS.iter().map(|version| (version.to_string(), "stable".into())).collect();
    let enabled = |enabled: bool| json!({ "enabled": enabled });
    // Written out whole: that something is as the specification assumes is worth saying, too.
    let mut capabilities = json!({
        "m.room_versions": { "default": doors.options.default_room_version, "available": versions },
        "m.change_password": enabled(true),
        "m.set_displayname": enabled(true),
        "m.set_avatar_url": enabled(true),
        "m.profile_fields": enabled(true),
        "m.3pid_changes": enabled(false),
        "m.get_login_token": enabled(true),
        "m.forget_forced_upon_leave": enabled(false),
    });
    if sender.is_admin {
        capabilities["m.account_moderation"] = json!({ "lock": true, "suspend": true });
    }
    JsonBody(json!({ "capabilities": capabilities }))
}

/// `GET /_matrix/client/v3/thirdparty/protocols`: there are no bridges.
async fn protocols(_: Sender) -> JsonBody<Value> {
    JsonBody(json!({}))
}

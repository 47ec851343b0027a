//! Queries of other servers about what is ours.
//!
//! Spec: server-server API, "Querying for information".

use hearth_matrix::ruma::api::federation::query::{
    get_custom_information, get_profile_information, get_room_information,
};
use serde_json::{Map, Value, json};

use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody};

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(profile);
    routes.extend(super::signed(directory));
    routes.extend(super::signed(unknown));
    routes
}

/// `GET /_matrix/federation/v1/query/directory`
async fn directory(
    doors: Doors,
    Signed { request, .. }: Signed<get_room_information::v1::Request>,
) -> Result<JsonBody<Value>, ApiError> {
    if request.room_alias.server_name() != doors.options.server_name {
        return Err(ApiError::invalid_param("That is no alias of this server"));
    }
    let (room_id, servers) = doors.rooms.follow_alias(&request.room_alias).await?;
    Ok(JsonBody(json!({ "room_id": room_id, "servers": servers })))
}

/// `GET /_matrix/federation/v1/query/profile`
async fn profile(
    doors: Doors,
    Signed { origin, request }: Signed<get_profile_information::v1::Request>,
) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    tracing::debug!(%origin, user_id = %request.user_id, "a server asks for a profile");
    if request.user_id.server_name() != doors.options.server_name {
        return Err(ApiError::invalid_param("That is no user of this server"));
    }
    let mut profile = doors.users.profile(&request.user_id).await?;
    if let Some(field) = request.field {
        profile.retain(|name, _| name == field.as_str());
        if profile.is_empty() {
            return Err(ApiError::not_found("The user has no such field in his profile"));
        }
    }
    Ok(JsonBody(profile))
}

/// `GET /_matrix/federation/v1/query/{queryType}`: there are no other types than the two above.
async fn unknown(_: Doors, _: Signed<get_custom_information::v1::Request>) -> ApiError {
    ApiError::unrecognized()
}

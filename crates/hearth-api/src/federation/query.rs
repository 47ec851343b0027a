//! Queries of other servers about what is ours.
//!
//! Spec: server-server API, "Querying for information".

use hearth_matrix::ruma::api::federation::query::get_profile_information;
use serde_json::{Map, Value};

use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody};

pub(super) fn routes() -> Vec<Route> {
    super::signed(profile)
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
    }
    Ok(JsonBody(profile))
}

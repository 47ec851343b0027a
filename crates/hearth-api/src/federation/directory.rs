//! The list of public rooms for other servers, if the settings open it to them.
//!
//! Spec: server-server API, "Public Room Directory".

use hearth_matrix::ruma::UInt;
use hearth_matrix::ruma::api::federation::directory::{get_public_rooms, get_public_rooms_filtered};
use hearth_matrix::ruma::directory::RoomNetwork;
use hearth_room::DirectoryFilter;
use serde_json::{Value, json};

use crate::client::public_rooms_page;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody};

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(public_rooms);
    routes.extend(super::signed(public_rooms_filtered));
    routes
}

/// `GET /_matrix/federation/v1/publicRooms`
async fn public_rooms(
    doors: Doors,
    Signed { request, .. }: Signed<get_public_rooms::v1::Request>,
) -> Result<JsonBody<Value>, ApiError> {
    page(&doors, request.room_network, DirectoryFilter::default(), request.limit, request.since).await
}

/// `POST /_matrix/federation/v1/publicRooms`
async fn public_rooms_filtered(
    doors: Doors,
    Signed { request, .. }: Signed<get_public_rooms_filtered::v1::Request>,
) -> Result<JsonBody<Value>, ApiError> {
    let types = request.filter.room_types.into_iter().map(|kind| kind.as_str().map(str::to_owned));
    let search = request.filter.generic_search_term;
    let filter = DirectoryFilter { search, types: types.collect(), ..DirectoryFilter::default() };
    page(&doors, request.room_network, filter, request.limit, request.since).await
}

async fn page(
    doors: &Doors,
    network: RoomNetwork,
    filter: DirectoryFilter,
    limit: Option<UInt>,
    since: Option<String>,
) -> Result<JsonBody<Value>, ApiError> {
    if !doors.options.directory_open_to_federation {
        return Err(ApiError::forbidden("This server does not tell other servers of its rooms"));
    }
    if matches!(network, RoomNetwork::ThirdParty(_)) {
        // No bridge lists rooms here.
        return Ok(JsonBody(json!({ "chunk": [], "total_room_count_estimate": 0 })));
    }
    public_rooms_page(doors, DirectoryFilter { federated_only: true, ..filter }, number(limit), since).await
}

fn number(limit: Option<UInt>) -> Option<usize> {
    limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX))
}

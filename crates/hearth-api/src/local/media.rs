//! Media at the local door: deleted, hidden, kept out, checked.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName};
use hearth_media::{CheckError, FileHash, Selection, Touched};
use hearth_store::MediaPlace;
use serde::Deserialize;
use serde_json::json;

use super::{answer, local_user_id, refuse, store_refusal};
use crate::{ApiError, Doors, JsonBody};

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/media/delete", post(delete))
        .route("/media/quarantine", post(quarantine))
        .route("/media/block", post(block))
        .route("/media/check", post(check))
}

/// Which media: one of these.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Which {
    uri: Option<String>,
    user: Option<String>,
    server: Option<OwnedServerName>,
    room: Option<OwnedRoomId>,
}

impl Which {
    async fn selection(self, doors: &Doors) -> Result<Selection, ApiError> {
        let place = |(origin, media_id): (String, String)| MediaPlace { origin, media_id };
        match self {
            Self { uri: Some(uri), user: None, server: None, room: None } => {
                let parts = uri.strip_prefix("mxc://").and_then(|rest| rest.split_once('/'));
                let (origin, media_id) =
                    parts.ok_or_else(|| refuse(format!("{uri} is no address `mxc://SERVER/ID`")))?;
                Ok(Selection::Places(vec![place((origin.to_owned(), media_id.to_owned()))]))
            }
            Self { uri: None, user: Some(user), server: None, room: None } => {
                Ok(Selection::OfUser(local_user_id(doors, &user)?))
            }
            Self { uri: None, user: None, server: Some(server), room: None } => {
                Ok(Selection::OfServer(server.to_string()))
            }
            Self { uri: None, user: None, server: None, room: Some(room) } => {
                let named = doors.rooms.media_named_in(&room).await?;
                Ok(Selection::Places(named.into_iter().map(place).collect()))
            }
            _ => Err(refuse("name either an address, or a user, a server or a room".to_owned())),
        }
    }
}

async fn delete(State(doors): State<Doors>, JsonBody(which): JsonBody<Which>) -> Result<Response, ApiError> {
    let selection = which.selection(&doors).await?;
    Ok(told(doors.media.delete(selection).await.map_err(store_refusal)?))
}

#[derive(Deserialize)]
struct Quarantine {
    #[serde(flatten)]
    which: Which,
    hidden: bool,
}

async fn quarantine(State(doors): State<Doors>, JsonBody(wish): JsonBody<Quarantine>) -> Result<Response, ApiError> {
    let selection = wish.which.selection(&doors).await?;
    Ok(told(doors.media.quarantine(selection, wish.hidden).await.map_err(store_refusal)?))
}

#[derive(Deserialize)]
struct Block {
    sha256: String,
    blocked: bool,
}

async fn block(State(doors): State<Doors>, JsonBody(wish): JsonBody<Block>) -> Result<Response, ApiError> {
    let no_hash = |()| refuse(format!("{} is no SHA-256 in 64 hexadecimal digits", wish.sha256));
    let FileHash(sha256) = wish.sha256.parse().map_err(no_hash)?;
    if wish.blocked {
        return Ok(told(doors.media.block(sha256).await.map_err(store_refusal)?));
    }
    doors.media.unblock(sha256).await.map_err(store_refusal)?;
    Ok(told(Touched::default()))
}

#[derive(Deserialize)]
struct Check {
    repair: bool,
}

async fn check(State(doors): State<Doors>, JsonBody(wish): JsonBody<Check>) -> Result<Response, ApiError> {
    let found = doors.media.check(wish.repair).await.map_err(|error| match error {
        CheckError::Store(cause) => store_refusal(cause),
        CheckError::Storage(cause) => refuse(format!("the media storage: {cause}")),
    })?;
    Ok(answer(&json!({
        "blobs": found.blobs,
        "missing": found.missing,
        "missing_named": found.missing_named,
        "unknown": found.unknown,
        "deleted": found.deleted,
    })))
}

fn told(touched: Touched) -> Response {
    answer(&json!({ "files": touched.files, "bytes": touched.bytes }))
}

//! Media that other servers fetch: ours alone, in two parts of which the second is the file.
//!
//! Spec: server-server API, "Content Repository".

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hearth_matrix::ruma::UInt;
use hearth_matrix::ruma::api::federation::authenticated_media::{get_content, get_content_thumbnail};
use hearth_media::{File, Method, Wanted, WantedThumbnail};
use http::{StatusCode, header};

use crate::client::media::{counted, disposition, storage_failed};
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

pub(super) fn routes() -> Vec<Route> {
    super::unweighed(download).into_iter().chain(super::unweighed(thumbnail)).collect()
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
async fn download(
    doors: Doors,
    Signed { origin, request }: Signed<get_content::v1::Request>,
) -> Result<Response, ApiError> {
    doors.limits.of_server(&origin)?;
    in_parts(doors.media.file(&wanted(&doors, request.media_id, request.timeout_ms)).await?).await
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
async fn thumbnail(
    doors: Doors,
    Signed { origin, request }: Signed<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    doors.limits.of_server(&origin)?;
    use hearth_matrix::ruma::media::Method as Wished;
    let method = match request.method {
        None | Some(Wished::Scale) => Method::Scale,
        Some(Wished::Crop) => Method::Crop,
        Some(_) => return Err(ApiError::invalid_param("Thumbnails are cropped or scaled")),
    };
    let side = |length: UInt| {
        let length = u32::try_from(u64::from(length)).ok().filter(|length| *length > 0);
        length.ok_or_else(|| ApiError::invalid_param("A thumbnail has a width and a height"))
    };
    let size = WantedThumbnail {
        width: side(request.width)?,
        height: side(request.height)?,
        method,
        animated: request.animated.unwrap_or(false),
    };
    in_parts(doors.media.thumbnail(&wanted(&doors, request.media_id, request.timeout_ms), size).await?).await
}

fn wanted(doors: &Doors, media_id: String, patience: Duration) -> Wanted {
    let server = doors.options.server_name.to_string();
    Wanted { server, media_id, patience, is_anonymous: false, allow_remote: false }
}

/// What is known of a file, which is nothing, and the file.
async fn in_parts(file: File) -> Result<Response, ApiError> {
    // Nobody knows it before, so no file has it.
    let boundary = hearth_media::new_boundary();
    let size = file.size();
    let head = format!(
        "--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\nContent-Type: {}\r\n\
         Content-Disposition: {}\r\n\r\n",
        file.content_type,
        disposition(&file.content_type, file.file_name.clone()),
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let length = head.len() as u64 + size + tail.len() as u64;
    let content = file.content(0..size).await.map_err(storage_failed)?;
    let text = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let body: Body = counted(text(head).chain(content).chain(text(tail)).boxed(), length);
    let content_type = format!("multipart/mixed; boundary={boundary}");
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, content_type)], body).into_response())
}

//! Receipts and read markers.
//!
//! Spec: client-server API, "Receipts", "Fully read markers".

use axum::extract::State;
use hearth_matrix::ruma::OwnedEventId;
use hearth_matrix::ruma::api::client::read_marker::set_read_marker;
use hearth_matrix::ruma::api::client::receipt::create_receipt::{self, v3::ReceiptType};
use hearth_matrix::ruma::events::receipt::ReceiptThread;
use hearth_room::{NewReceipt, ReadMarkers};

use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![route(create_receipt), route(set_read_marker)]
}

/// `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
async fn create_receipt(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<create_receipt::v3::Request>,
) -> Result<Matrix<create_receipt::v3::Response>, ApiError> {
    let thread = match request.thread {
        ReceiptThread::Unthreaded => None,
        thread => match thread.as_str() {
            None | Some("") => return Err(ApiError::invalid_param("thread_id is `main` or the root of a thread")),
            Some(thread) => Some(thread.to_owned()),
        },
    };
    let receipt = |private| NewReceipt { private, thread: thread.clone(), event_id: request.event_id.clone() };
    let markers = match request.receipt_type {
        ReceiptType::Read => ReadMarkers { receipts: vec![receipt(false)], ..ReadMarkers::default() },
        ReceiptType::ReadPrivate => ReadMarkers { receipts: vec![receipt(true)], ..ReadMarkers::default() },
        ReceiptType::FullyRead if thread.is_some() => {
            return Err(ApiError::invalid_param("m.fully_read has no thread"));
        }
        ReceiptType::FullyRead => ReadMarkers { fully_read: Some(request.event_id), ..ReadMarkers::default() },
        other => return Err(ApiError::invalid_param(format!("{other} is no type of receipt"))),
    };
    doors.presence.active(sender.user, sender.device);
    doors.rooms.set_read_markers(&sender.user_id, sender.user, &request.room_id, markers).await?;
    Ok(Matrix(create_receipt::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/read_markers`
async fn set_read_marker(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<set_read_marker::v3::Request>,
) -> Result<Matrix<set_read_marker::v3::Response>, ApiError> {
    let receipt = |private, event_id: OwnedEventId| NewReceipt { private, thread: None, event_id };
    let public = request.read_receipt.map(|event_id| receipt(false, event_id));
    let private = request.private_read_receipt.map(|event_id| receipt(true, event_id));
    let markers = ReadMarkers { fully_read: request.fully_read, receipts: public.into_iter().chain(private).collect() };
    doors.presence.active(sender.user, sender.device);
    doors.rooms.set_read_markers(&sender.user_id, sender.user, &request.room_id, markers).await?;
    Ok(Matrix(set_read_marker::v3::Response::new()))
}

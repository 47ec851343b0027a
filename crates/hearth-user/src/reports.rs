//! What users report to whoever runs the server.
//!
//! A report is kept and logged; `hearth admin reports` shows them. Rooms and users may be reported by anybody, events only by
//! those who are in the room.
//! Spec: client-server API, "Reporting Content".

use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use hearth_store::{Membership, Noun, Report, Standing, StoreError, Tx, UserNum};

use crate::Users;

/// What is kept of a reason.
const REASON_SIZE_BYTES: usize = 4096;

/// What is reported.
#[derive(Clone, Debug)]
pub enum Reported {
    /// A room.
    Room(OwnedRoomId),
    /// An event of a room.
    Event(OwnedRoomId, OwnedEventId),
    /// A user.
    User(OwnedUserId),
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is about nothing that we know, or nothing that the reporter can see.
    #[error("there is no such thing to report")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// Takes a report.
    pub async fn report(
        &self,
        reporter: UserNum,
        reported: Reported,
        reason: &str,
        now_ms: i64,
    ) -> Result<(), ReportError> {
        let (subject, event_id) = match &reported {
            Reported::Room(room_id) => (room_id.to_string(), None),
            Reported::Event(room_id, event_id) => (room_id.to_string(), Some(event_id.to_string())),
            Reported::User(user_id) => (user_id.to_string(), None),
        };
        let reason = reason[..reason.floor_char_boundary(REASON_SIZE_BYTES)].to_owned();
        let report = Report { reporter, ts: now_ms, subject, event_id, reason };
        let kept = report.clone();
        let taken = self.store.write(vec![Noun::User(reporter)], move |tx| {
            if !is_known(tx, reporter, &reported)? {
                return Ok(false);
            }
            tx.reports().add(&kept)?;
            Ok(true)
        });
        if !taken.await? {
            return Err(ReportError::NotFound);
        }
        let Report { subject, event_id, reason, .. } = report;
        tracing::warn!(subject, event_id, reason, "reported by a user");
        Ok(())
    }

    /// The newest reports and who made them, newest first.
    pub async fn reports(&self, limit: i64) -> Result<Vec<(String, Report)>, StoreError> {
        self.store
            .read(move |tx| {
                let reports = tx.reports().newest(limit)?;
                reports.into_iter().map(|report| Ok((tx.string(report.reporter)?.to_string(), report))).collect()
            })
            .await
    }
}

fn is_known(tx: &mut Tx<'_>, reporter: UserNum, reported: &Reported) -> Result<bool, StoreError> {
    match reported {
        Reported::Room(room_id) => is_room(tx, room_id),
        Reported::User(user_id) => is_user(tx, user_id),
        Reported::Event(room_id, event_id) => {
            let Some(room) = tx.rooms().by_id(room_id)? else { return Ok(false) };
            let membership = tx.members().current(room.num, reporter)?.map(|row| row.membership);
            let event = tx.events().by_id(&room, event_id)?;
            Ok(membership == Some(Membership::Join) && event.is_some_and(|row| row.standing == Standing::Live))
        }
    }
}

fn is_room(tx: &mut Tx<'_>, room_id: &RoomId) -> Result<bool, StoreError> {
    Ok(tx.rooms().by_id(room_id)?.is_some())
}

fn is_user(tx: &mut Tx<'_>, user_id: &UserId) -> Result<bool, StoreError> {
    Ok(tx.accounts().by_id(user_id.as_str())?.is_some())
}

//! The older way to listen: `/events`. Whoever may read a room may listen to it.
//!
//! Deprecated, but the only way to peek: thin views over the same hub and the same rows.
//! Spec: client-server API, "Syncing" (deprecated endpoints), "Room previews".

use std::time::Duration;

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::OwnedRoomId;
use hearth_store::{EventRow, Membership, Position, RoomNum, StoreError, Tx};
use hearth_user::presence::SetPresence;
use tokio::time::Instant;

use crate::views::access::Access;
use crate::{Reader, SyncToken, Syncs, ViewError};

/// Events of one answer at most.
pub(crate) const MOST: usize = 100;
/// The longest that a client waits.
const LONGEST: Duration = Duration::from_secs(300);

/// What a client listens to.
#[derive(Clone, Debug)]
pub struct EventsRequest {
    /// Who.
    pub reader: Reader,
    /// One room; without it, all that the reader is in.
    pub room_id: Option<OwnedRoomId>,
    /// From where; now, if none.
    pub from: Option<SyncToken>,
    /// How long to wait for something to tell.
    pub timeout: Duration,
}

/// A room's news.
type Stretch = (Access, Vec<EventRow>);

impl Syncs {
    /// The events that came after a position, or the first that come. Returns early if `stop` does.
    pub async fn events(&self, request: EventsRequest, stop: impl Future<Output = ()>) -> Result<String, ViewError> {
        let from = request.from.map_or(self.inner.store.position(), |from| from.position);
        let deadline = Instant::now() + request.timeout.min(LONGEST);
        let mut stop = std::pin::pin!(stop);
        let Reader { user, user_id, device, .. } = &request.reader;
        let _syncing = self.inner.presence.begin_sync(*user, user_id, *device, SetPresence::default()).await?;
        loop {
            // Before reading, so that nothing is missed in between.
            let room = self.room_of(&request).await?;
            let watching = self.inner.hub.watch(room);
            let (json, empty) = Box::pin(self.read_events(&request, from)).await?;
            if !empty || request.timeout.is_zero() {
                return Ok(json);
            }
            tokio::select! {
                () = watching.notified() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(json),
                () = &mut stop => return Ok(json),
            }
        }
    }

    async fn room_of(&self, request: &EventsRequest) -> Result<Option<RoomNum>, ViewError> {
        let Some(room_id) = request.room_id.clone() else { return Ok(None) };
        let reader = request.reader.clone();
        let read = self.inner.store.read(move |tx| refusal_as_value(Access::require(tx, &reader, &room_id)));
        Ok(Some(read.await??.room.num))
    }

    async fn read_events(&self, request: &EventsRequest, from: Position) -> Result<(String, bool), ViewError> {
        let (request, syncs) = (request.clone(), self.clone());
        let read = self.inner.store.read(move |tx| {
            let upto = tx.position()?;
            let mut stretches = Vec::new();
            for room_id in rooms(tx, &request)? {
                match stretch(tx, &request.reader, &room_id, from, upto) {
                    Ok(stretch) => stretches.push(stretch),
                    Err(ViewError::Store(cause)) => return Err(cause),
                    Err(refusal) => return Ok(Err(refusal)),
                }
            }
            let mut out = String::from("{\"start\":");
            write_string(&mut out, &syncs.plain_token(from).to_string());
            out.push_str(",\"end\":");
            write_string(&mut out, &syncs.plain_token(upto).to_string());
            out.push_str(",\"chunk\":[");
            let empty = write_by_position(tx, &mut out, &stretches)?;
            out.push_str("]}");
            Ok(Ok((out, empty)))
        });
        read.await?
    }
}

fn rooms(tx: &mut Tx<'_>, request: &EventsRequest) -> Result<Vec<OwnedRoomId>, StoreError> {
    if let Some(room_id) = &request.room_id {
        return Ok(vec![room_id.clone()]);
    }
    let joined = tx.members().rooms_of_user(request.reader.user, Membership::Join)?;
    joined.iter().map(|row| Ok(tx.rooms().by_num(row.room)?.room_id.clone())).collect()
}

fn stretch(
    tx: &mut Tx<'_>,
    reader: &Reader,
    room_id: &OwnedRoomId,
    from: Position,
    upto: Position,
) -> Result<Stretch, ViewError> {
    let access = Access::require(tx, reader, room_id)?;
    let newest = newest(tx, &access, from, upto, MOST)?;
    Ok((access, newest))
}

/// The newest events that the reader may see, oldest first.
pub(crate) fn newest(
    tx: &mut Tx<'_>,
    access: &Access,
    from: Position,
    upto: Position,
    limit: usize,
) -> Result<Vec<EventRow>, StoreError> {
    let upto = access.left_at().map_or(upto, |left| left.min(upto));
    let mut rows = Vec::new();
    for row in tx.events().newest(access.room.num, from, upto, limit as i64)? {
        if access.may_see(tx, &row)? {
            rows.push(row);
        }
    }
    rows.reverse();
    Ok(rows)
}

/// Appends the events of all rooms as they came. True if there were none.
fn write_by_position(tx: &mut Tx<'_>, out: &mut String, stretches: &[Stretch]) -> Result<bool, StoreError> {
    let mut all: Vec<(&Access, &EventRow)> =
        stretches.iter().flat_map(|(access, rows)| rows.iter().map(move |row| (access, row))).collect();
    all.sort_by_key(|(_, row)| row.position);
    for (n, (access, row)) in all.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        access.write(tx, out, std::slice::from_ref(*row))?;
    }
    Ok(all.is_empty())
}

pub(crate) fn refusal_as_value<T>(outcome: Result<T, ViewError>) -> Result<Result<T, ViewError>, StoreError> {
    match outcome {
        Err(ViewError::Store(cause)) => Err(cause),
        outcome => Ok(outcome),
    }
}

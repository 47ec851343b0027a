//! Branches beyond what one event may name are merged by events that say nothing.

use std::sync::Arc;

use hearth_matrix::Draft;
use hearth_matrix::ruma::OwnedUserId;
use hearth_store::RoomRecord;

use crate::append::{Appender, PREV_EVENTS};
use crate::turn::{Done, Step, Work};
use crate::{RoomError, Rooms};

/// The type of events that merge branches of a room. Clients are not shown them.
pub const DUMMY_EVENT: &str = "org.matrix.dummy_event";

/// Events in a row that merge branches.
const MERGES: usize = 100;
/// Members asked whether they may send one.
const MERGERS: usize = 100;

impl Rooms {
    /// Where a room has more branches than an event may name, events of one of ours merge them, the newest first.
    pub(super) async fn merge_branches(&self, room: &Arc<RoomRecord>) -> Result<(), RoomError> {
        for _ in 0..MERGES {
            if !self.merge_some(room).await? {
                break;
            }
        }
        Ok(())
    }

    /// True if there was something to merge.
    async fn merge_some(&self, room: &Arc<RoomRecord>) -> Result<bool, RoomError> {
        let num = room.num;
        let plan = move |appender: &mut Appender<'_, '_>| {
            if appender.tip.extremities.len() <= PREV_EVENTS {
                return Ok(Ok(Step::Nothing));
            }
            let levels = appender.power_levels()?;
            for user in appender.tx.members().local_joined(num)?.into_iter().take(MERGERS) {
                let user = appender.tx.string(user)?;
                if let Ok(user) = OwnedUserId::try_from(&*user)
                    && levels.user(&user) >= levels.message(DUMMY_EVENT)
                {
                    return Ok(Ok(Step::Send(user, Draft::message(DUMMY_EVENT, Default::default()))));
                }
            }
            Ok(Ok(Step::Nothing))
        };
        let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
        match self.inner.turns.done(&room.room_id, work.clone()).await {
            Ok(Done::Unsigned(_)) => {
                self.submit_beside(room.room_id.clone(), work);
                Ok(false)
            }
            Ok(Done::Event(_)) => Ok(true),
            Ok(Done::Nothing | Done::Judged(_)) | Err(RoomError::Forbidden(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

//! Account data: what a user keeps for his clients, for himself or per room. Tags and push rules are among it.
//!
//! Deleted account data is an empty object: clients that were away learn of it like of any other content.

use crate::{Change, Position, Publication, RoomNum, Row, StoreError, Tx, UserNum, Value};

/// One piece of account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDataEvent {
    /// The room it belongs to, or none if it is global.
    pub room: Option<RoomNum>,
    /// Its event type.
    pub kind: String,
    /// Its content, a JSON object.
    pub content: String,
    /// When it was last written.
    pub position: Position,
}

/// Global account data stand under this number, which no room has.
const GLOBAL: i64 = 0;
/// Global account data by which the server judges whether a message notifies a user.
pub(super) const PUSH_KINDS: [&str; 2] = ["m.push_rules", "m.ignored_user_list"];

fn event(row: &dyn Row) -> Result<AccountDataEvent, StoreError> {
    let room = row.int(0)?;
    Ok(AccountDataEvent {
        room: (room != GLOBAL).then_some(RoomNum(room)),
        kind: row.utf8(1)?.to_owned(),
        content: row.utf8(2)?.to_owned(),
        position: Position(row.int(3)?),
    })
}

/// Account data, seen from a transaction.
pub struct AccountData<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Account data of local users.
    pub fn account_data(&mut self) -> AccountData<'_, 'c> {
        AccountData { tx: self }
    }
}

impl AccountData<'_, '_> {
    /// Whether a user lets nobody invite him: `m.invite_permission_config` with a `default_action` of `block`.
    /// Spec: client-server API, "Invite permission".
    pub fn blocks_invites(&mut self, user: UserNum) -> Result<bool, StoreError> {
        #[derive(serde::Deserialize)]
        struct Config {
            default_action: Option<serde_json::Value>,
        }
        let Some(config) = self.get(user, None, "m.invite_permission_config")? else { return Ok(false) };
        let config = serde_json::from_str::<Config>(&config).ok();
        Ok(config.and_then(|config| config.default_action).is_some_and(|action| action == "block"))
    }

    /// The content of one piece, as JSON.
    pub fn get(&mut self, user: UserNum, room: Option<RoomNum>, kind: &str) -> Result<Option<String>, StoreError> {
        self.tx.one(
            "SELECT content FROM account_data WHERE usr = $1 AND room = $2 AND kind = $3",
            &[user.into(), room.map_or(GLOBAL, |room| room.0).into(), kind.as_bytes().into()],
            |row| Ok(row.utf8(0)?.to_owned()),
        )
    }

    /// Everything of a user, globally and in all rooms.
    pub fn all(&mut self, user: UserNum) -> Result<Vec<AccountDataEvent>, StoreError> {
        self.tx.query(
            "SELECT room, kind, content, position FROM account_data WHERE usr = $1 ORDER BY room, kind",
            &[user.into()],
            event,
        )
    }

    /// Everything of a user that is global (`None`) or of one room.
    pub fn all_of(&mut self, user: UserNum, room: Option<RoomNum>) -> Result<Vec<AccountDataEvent>, StoreError> {
        self.tx.query(
            "SELECT room, kind, content, position FROM account_data WHERE usr = $1 AND room = $2 ORDER BY kind",
            &[user.into(), room.map_or(GLOBAL, |room| room.0).into()],
            event,
        )
    }

    /// What was written after `from` and not after `to`, oldest first.
    pub fn changed_since(
        &mut self,
        user: UserNum,
        from: Position,
        to: Position,
    ) -> Result<Vec<AccountDataEvent>, StoreError> {
        self.tx.query(
            "SELECT room, kind, content, position FROM account_data WHERE usr = $1 AND position > $2 AND position <= $3 \
             ORDER BY position",
            &[user.into(), from.into(), to.into()],
            event,
        )
    }

    /// Whether anything was written after `from` and not after `to`.
    pub fn has_changed(&mut self, user: UserNum, from: Position, to: Position) -> Result<bool, StoreError> {
        let changed = self.tx.one(
            "SELECT 1 FROM account_data WHERE usr = $1 AND position > $2 AND position <= $3 LIMIT 1",
            &[user.into(), from.into(), to.into()],
            |_| Ok(()),
        )?;
        Ok(changed.is_some())
    }

    /// How many pieces a user has, globally and in all rooms.
    pub fn count(&mut self, user: UserNum) -> Result<i64, StoreError> {
        let count =
            self.tx.one("SELECT COUNT(*) FROM account_data WHERE usr = $1", &[user.into()], |row| row.int(0))?;
        Ok(count.unwrap_or(0))
    }

    /// Writes a piece: the content is a JSON object. The caller holds the user's lock.
    pub fn set(&mut self, user: UserNum, room: Option<RoomNum>, kind: &str, content: &str) -> Result<(), StoreError> {
        let push = room.is_none() && PUSH_KINDS.contains(&kind);
        let mut publication = Publication::new(Change::AccountData { user, room, push });
        publication.exec(
            "INSERT INTO account_data (usr, room, kind, content, position) VALUES ($1, $2, $3, $4, position($5)) \
             ON CONFLICT (usr, room, kind) DO UPDATE SET content = excluded.content, position = excluded.position",
            &[
                user.into(),
                room.map_or(GLOBAL, |room| room.0).into(),
                kind.as_bytes().into(),
                content.as_bytes().into(),
                Value::Position,
            ],
        );
        if push {
            publication.exec(
                "INSERT INTO push_profiles (usr, position) VALUES ($1, position($2))
                 ON CONFLICT (usr) DO UPDATE SET position = excluded.position",
                &[user.into(), Value::Position],
            );
        }
        self.tx.publish(publication);
        Ok(())
    }

    /// The number of a room that the user ever had to do with: to others it is not there.
    pub fn room_of(&mut self, user: UserNum, room_id: &str) -> Result<Option<RoomNum>, StoreError> {
        self.tx.one(
            "SELECT r.num FROM rooms r WHERE r.room_id = $1 \
             AND EXISTS (SELECT 1 FROM memberships m WHERE m.room = r.num AND m.usr = $2)",
            &[room_id.as_bytes().into(), user.into()],
            |row| Ok(RoomNum(row.int(0)?)),
        )
    }

    /// Forgets everything of a user, without telling anybody: he is gone.
    pub fn purge(&mut self, user: UserNum) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM account_data WHERE usr = $1", &[user.into()])
    }
}

//! A room taken over from another server: its state and what allows it as outliers in bulk, then one small commit that makes
//! it visible, with the join of our user as its first live event. A room we were in before is taken up again behind a gap.
//!
//! Spec: server-server API, "Joining Rooms", `send_join`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::rules;
use hearth_matrix::ruma::{OwnedEventId, OwnedServerName, RoomVersionId, ServerName, UserId};
use hearth_store::{Membership, Noun, RoomRecord, Standing, StoreError, StringNum, TakenMember};
use rustc_hash::FxHashSet;

use super::sorting::{By, reached, sorted};
use super::{JoinAnswer, signatures};
use crate::append::Appender;
use crate::{RoomError, Rooms};

/// Events of a room's state and auth chain.
const MOST: usize = 500_000;
/// Members written in one commit.
const MEMBERS: usize = 500;
/// Servers in a room that are believed to be there before its members are known.
const SERVERS: usize = 10_000;
/// Servers that are asked for the rest of a state.
const TOLD_BY: usize = 50;

/// Members of a state.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) joined: i64,
    pub(super) invited: i64,
    pub(super) knocked: i64,
    pub(super) joined_local: i64,
}

impl Rooms {
    /// Installs a room: the state before `join` as far as it was told, all that allows it, and `join` itself.
    pub async fn install(
        &self,
        server: &ServerName,
        version: RoomVersionId,
        join: Arc<Pdu>,
        answer: JoinAnswer,
    ) -> Result<(), RoomError> {
        let JoinAnswer { state, auth_chain, members_omitted, mut servers, .. } = answer;
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(join.room_id.to_string()));
        };
        if state.len() > MOST || auth_chain.len() > MOST {
            return Err(RoomError::BadEvent("the room that the other server sent is too large".into()));
        }
        let read = |json: &String| Pdu::from_remote(json, rules).ok().filter(|pdu| pdu.room_id == join.room_id);
        let state: Vec<Arc<Pdu>> = state.iter().filter_map(read).map(Arc::new).collect();
        let chain = auth_chain.iter().filter_map(read).map(Arc::new);
        let named = state.iter().map(|pdu| pdu.event_id.clone()).chain(join.auth_events.iter().cloned());
        let all = sorted(reached(state.iter().cloned().chain(chain).collect(), named), By::Auth);
        let outcomes = signatures::check(&**neighbours, &all, rules).await;
        let (mut good, mut refused) = (Vec::with_capacity(all.len()), 0_usize);
        for (pdu, outcome) in all.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => good.push(pdu),
                Err(error) => {
                    refused += 1;
                    tracing::debug!(event_id = %pdu.event_id, %error, "an event of a room that is joined is left out");
                }
            }
        }
        if refused > 0 {
            tracing::warn!(room_id = %join.room_id, refused, "signatures of events of a room that is joined are not good");
        }
        let room = self.record_of(version, &join, &state).await?;
        let good_ids: FxHashSet<OwnedEventId> = good.iter().map(|pdu| pdu.event_id.clone()).collect();
        self.keep_outliers(&room, good).await?;
        let told: Arc<[OwnedEventId]> =
            state.iter().map(|pdu| pdu.event_id.clone()).filter(|id| good_ids.contains(id)).collect();
        servers.retain(|name| *name != self.inner.config.server_name);
        servers.truncate(SERVERS);
        let counts = self.members_of(&room, &told, if members_omitted { &servers } else { &[] }).await?;
        // Who let us in is asked for the rest first.
        let mut told_by = vec![server.to_owned()];
        told_by.extend(servers.into_iter().filter(|name| name != server).take(TOLD_BY));
        self.open_room(&room, join, told, counts, members_omitted.then_some(told_by)).await?;
        if members_omitted {
            self.complete_state(room.room_id.clone());
        }
        Ok(())
    }

    /// The room's record: the one that is there, or a new one.
    async fn record_of(
        &self,
        version: RoomVersionId,
        join: &Arc<Pdu>,
        state: &[Arc<Pdu>],
    ) -> Result<Arc<RoomRecord>, RoomError> {
        let Some(create) = state.iter().find(|pdu| pdu.is_state("m.room.create", "")).cloned() else {
            return Err(RoomError::BadEvent("the room that the other server sent has no m.room.create event".into()));
        };
        let content: serde_json::Value = serde_json::from_str(create.content.get()).unwrap_or_default();
        let text = |field: &str| content.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        if text("room_version").as_deref().unwrap_or("1") != version.as_str() {
            return Err(RoomError::BadEvent("the room that the other server sent is of another version".into()));
        }
        let (room_type, room_id) = (text("type"), join.room_id.clone());
        let federate = content.get("m.federate").and_then(serde_json::Value::as_bool).unwrap_or(true);
        let write = self.inner.store.write(Self::moving_into(&join.room_id), move |tx| {
            let known = tx.rooms().by_id(&room_id)?;
            if let Some(room) = known.clone().filter(|room| !room.hearsay) {
                return Ok(room);
            }
            let creator = tx.intern(create.sender.as_str())?;
            let room_type = room_type.clone();
            let ts = create.origin_server_ts;
            let prepared = tx.rooms().prepare(&room_id, &version, creator, room_type, federate, ts)?;
            match known {
                Some(known) => {
                    // What invites told of it may have been wrong.
                    let record = Arc::new(RoomRecord { num: known.num, ..prepared });
                    tx.rooms().revise(&record)?;
                    Ok(record)
                }
                None => {
                    let record = Arc::new(prepared);
                    tx.rooms().insert(&record)?;
                    Ok(record)
                }
            }
        });
        Ok(write.await?)
    }

    /// Writes the members of a room that is new to us, and counts them. Of one we know the difference is written at the end.
    async fn members_of(
        &self,
        room: &Arc<RoomRecord>,
        told: &Arc<[OwnedEventId]>,
        named: &[OwnedServerName],
    ) -> Result<Option<Counts>, RoomError> {
        let num = room.num;
        let is_new = self.inner.store.read(move |tx| tx.rooms().tip(num)).await?.is_none();
        let (counts, mut servers) = match is_new {
            true => self.write_members(room, told).await?,
            false => (Counts::default(), BTreeMap::new()),
        };
        for server in named {
            servers.entry(server.to_string()).or_insert(1);
        }
        let write = self.inner.store.write_quiet(vec![Noun::Room(num)], move |tx| {
            let servers = servers.iter().map(|(name, joined)| Ok((tx.intern(name)?, *joined)));
            let servers: Vec<(StringNum, i64)> = servers.collect::<Result<_, StoreError>>()?;
            tx.members().take_over_servers(num, &servers)
        });
        write.await?;
        Ok(is_new.then_some(counts))
    }

    /// Writes members that are not written yet, and counts them, and the joined ones by server.
    pub(super) async fn write_members(
        &self,
        room: &Arc<RoomRecord>,
        told: &[OwnedEventId],
    ) -> Result<(Counts, BTreeMap<String, i64>), RoomError> {
        let num = room.num;
        let mut counts = Counts::default();
        let mut servers: BTreeMap<String, i64> = BTreeMap::new();
        for part in told.chunks(MEMBERS) {
            let (part, record, config) = (part.to_vec(), room.clone(), self.inner.config.clone());
            let write = self.inner.store.write_quiet(vec![Noun::Room(num)], move |tx| {
                let mut members = Vec::new();
                for id in &part {
                    let Some(row) = tx.events().by_id(&record, id)? else { continue };
                    let pdu = tx.events().pdu(&record, row.num)?;
                    let (Some(("m.room.member", target)), Some(membership)) =
                        (pdu.state_pair(), pdu.membership().and_then(Membership::from_spec))
                    else {
                        continue;
                    };
                    let Ok(user_id) = <&UserId>::try_from(target) else { continue };
                    if row.standing == Standing::Rejected {
                        continue;
                    }
                    let name = user_id.server_name();
                    let server = (name != &*config.server_name).then(|| tx.intern(name.as_str())).transpose()?;
                    let user = tx.intern(target)?;
                    let member = TakenMember { user, membership, event: row.num, sender: row.sender, server };
                    members.push((member, name.to_string()));
                }
                let rows: Vec<TakenMember> = members.iter().map(|(member, _)| *member).collect();
                tx.members().take_over(record.num, &rows)?;
                Ok(members)
            });
            for (member, server) in write.await? {
                match member.membership {
                    Membership::Join => {
                        counts.joined += 1;
                        counts.joined_local += i64::from(member.server.is_none());
                        *servers.entry(server).or_default() += 1;
                    }
                    Membership::Invite => counts.invited += 1,
                    Membership::Knock => counts.knocked += 1,
                    Membership::Leave | Membership::Ban => {}
                }
            }
        }
        Ok((counts, servers))
    }

    /// The last commit: the room is there.
    async fn open_room(
        &self,
        room: &Arc<RoomRecord>,
        join: Arc<Pdu>,
        told: Arc<[OwnedEventId]>,
        counts: Option<Counts>,
        servers: Option<Vec<OwnedServerName>>,
    ) -> Result<(), RoomError> {
        let (room, config) = (room.clone(), self.inner.config.clone());
        let write = self.inner.store.write(vec![Noun::Room(room.num)], move |tx| {
            let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
            match appender.take_over(&join, &told, counts, servers.as_deref())? {
                Ok(()) => {
                    appender.settle_hearsay()?;
                    appender.write().map(|_| Ok(()))
                }
                Err(refusal) => Ok(Err(refusal)),
            }
        });
        write.await?
    }
}

//! A room taken over from another server: its state and what allows it as outliers in bulk, then one small commit that makes
//! it visible, with the join of our user as its first live event. A room we were in before is taken up again behind a gap.
//!
//! Spec: server-server API, "Joining Rooms", `send_join`.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_matrix::ruma::{OwnedEventId, OwnedServerName, RoomVersionId, ServerName, UserId};
use hearth_matrix::{Pdu, auth, rules};
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
        let good_ids: FxHashSet<OwnedEventId> = good.iter().map(|pdu| pdu.event_id.clone()).collect();
        let is_create = |pdu: &&Arc<Pdu>| pdu.is_state("m.room.create", "") && good_ids.contains(&pdu.event_id);
        let Some(create) = state.iter().find(is_create).cloned() else {
            return Err(RoomError::BadEvent("the room that the other server sent has no m.room.create event".into()));
        };
        let room = self.record_of(version, &join, create).await?;
        self.keep_outliers(&room, good).await?;
        self.check_by_own(&room, join.clone()).await?;
        let told = self.one_each(state.iter().filter(|pdu| good_ids.contains(&pdu.event_id)))?;
        let told: Arc<[OwnedEventId]> = told.into();
        servers.retain(|name| *name != self.inner.config.server_name);
        servers.truncate(SERVERS);
        let counts = self.members_of(&room, &told).await?;
        let named = servers.iter().map(|name| (name.to_string(), 1)).collect();
        // Who let us in is asked for the rest first.
        let mut told_by = vec![server.to_owned()];
        told_by.extend(servers.into_iter().filter(|name| name != server).take(TOLD_BY));
        let opened = self.open_room(&room, join, told, counts, members_omitted.then_some(told_by)).await;
        if let Err(refusal) = opened {
            self.forget_members(&room).await?;
            return Err(refusal);
        }
        if members_omitted {
            // They are believed to be there until all members are known.
            self.write_servers(&room, named).await?;
            self.complete_state(room.room_id.clone());
        }
        // What waited for an event that came with it is staged.
        self.wake_worker(room.room_id.clone());
        Ok(())
    }

    /// The events of a state, each once: two for one place are no state. Nor is one in which somebody else says that a user of
    /// ours has come in.
    fn one_each<'a>(&self, state: impl Iterator<Item = &'a Arc<Pdu>>) -> Result<Vec<OwnedEventId>, RoomError> {
        let mut places: BTreeMap<(&str, &str), &OwnedEventId> = BTreeMap::new();
        for pdu in state {
            let Some(place) = pdu.state_pair() else { continue };
            let target = <&UserId>::try_from(place.1).ok().filter(|_| place.0 == "m.room.member");
            let ours = target.is_some_and(|target| target.server_name() == &*self.inner.config.server_name);
            if ours && pdu.membership() == Some("join") && pdu.sender.as_str() != place.1 {
                return Err(RoomError::BadEvent(format!("{} says that {} is in the room", pdu.sender, place.1)));
            }
            if places.insert(place, &pdu.event_id).is_some_and(|other| *other != pdu.event_id) {
                let (kind, key) = place;
                return Err(RoomError::BadEvent(format!("the state that was sent has two events for {kind} {key:?}")));
            }
        }
        Ok(places.into_values().cloned().collect())
    }

    /// Refuses a join that its own auth events don't allow, before anything is written of the room that it would bring.
    async fn check_by_own(&self, room: &Arc<RoomRecord>, join: Arc<Pdu>) -> Result<(), RoomError> {
        let (room, config) = (room.clone(), self.inner.config.clone());
        let read = self.inner.store.read(move |tx| Appender::at_tip(tx, room.clone(), &config)?.refused_by_own(&join));
        read.await?.map_or(Ok(()), Err)
    }

    /// Of a room that nobody of ours came into, what was said of its members is not believed: the next server says it anew.
    async fn forget_members(&self, room: &Arc<RoomRecord>) -> Result<(), RoomError> {
        let num = room.num;
        loop {
            let write = self.inner.store.write_quiet(vec![Noun::Room(num)], move |tx| {
                if tx.rooms().tip(num)?.is_some() {
                    return Ok(0);
                }
                tx.members().forget_taken(num, MEMBERS as i64)
            });
            if write.await? < MEMBERS as i64 {
                return Ok(());
            }
        }
    }

    /// Events of a join that failed, which were read by the rules of another version, are nothing to the next one.
    async fn forget_events(&self, room: &RoomRecord) -> Result<(), RoomError> {
        let num = room.num;
        loop {
            let write = self.inner.store.write_quiet(vec![Noun::Room(num)], move |tx| {
                if tx.rooms().tip(num)?.is_some() {
                    return Ok(0);
                }
                tx.events().forget_some(num, MEMBERS as i64)
            });
            if write.await? < MEMBERS as i64 {
                return Ok(());
            }
        }
    }

    /// The room's record: the one that is there, or a new one, which stands only once the join does.
    async fn record_of(
        &self,
        version: RoomVersionId,
        join: &Arc<Pdu>,
        create: Arc<Pdu>,
    ) -> Result<Arc<RoomRecord>, RoomError> {
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        auth::check(rules, &create, |_, _| None).map_err(|refusal| RoomError::BadEvent(refusal.to_string()))?;
        let content: serde_json::Value = serde_json::from_str(create.content.get()).unwrap_or_default();
        let text = |field: &str| content.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        if text("room_version").as_deref().unwrap_or("1") != version.as_str() {
            return Err(RoomError::BadEvent("the room that the other server sent is of another version".into()));
        }
        let (room_type, room_id) = (text("type"), join.room_id.clone());
        let federate = content.get("m.federate").and_then(serde_json::Value::as_bool).unwrap_or(true);
        let asked = room_id.clone();
        let known = self.inner.store.read(move |tx| tx.rooms().by_id(&asked)).await?;
        if let Some(room) = known.filter(|room| room.hearsay && room.version != version) {
            self.forget_events(&room).await?;
        }
        let write = self.inner.store.write(Self::moving_into(&join.room_id), move |tx| {
            let known = tx.rooms().by_id(&room_id)?;
            if let Some(room) = known.clone().filter(|room| !room.hearsay) {
                let same = room.version == version;
                let other = || RoomError::BadEvent("the room is of another version than the other server says".into());
                return Ok(if same { Ok(room) } else { Err(other()) });
            }
            let creator = tx.intern(create.sender.as_str())?;
            let room_type = room_type.clone();
            let ts = create.origin_server_ts;
            let prepared = tx.rooms().prepare(&room_id, &version, creator, room_type, federate, ts)?;
            // What invites, or a join that failed, told of it may have been wrong.
            let num = known.as_ref().map_or(prepared.num, |known| known.num);
            let record = Arc::new(RoomRecord { num, hearsay: true, ..prepared });
            match known {
                Some(_) => tx.rooms().revise(&record)?,
                None => tx.rooms().insert(&record)?,
            }
            Ok(Ok(record))
        });
        write.await?
    }

    /// Writes the members of a room that is new to us, and counts them. Of one we know the difference is written at the end.
    async fn members_of(
        &self,
        room: &Arc<RoomRecord>,
        told: &Arc<[OwnedEventId]>,
    ) -> Result<Option<Counts>, RoomError> {
        let num = room.num;
        if self.inner.store.read(move |tx| tx.rooms().tip(num)).await?.is_some() {
            return Ok(None);
        }
        // A server that did not let us in may have told of others.
        self.forget_members(room).await?;
        let (counts, servers) = self.write_members(room, told).await?;
        self.write_servers(room, servers).await?;
        Ok(Some(counts))
    }

    async fn write_servers(&self, room: &Arc<RoomRecord>, servers: BTreeMap<String, i64>) -> Result<(), RoomError> {
        let num = room.num;
        let write = self.inner.store.write_quiet(vec![Noun::Room(num)], move |tx| {
            let servers = servers.iter().map(|(name, joined)| Ok((tx.intern(name)?, *joined)));
            let servers: Vec<(StringNum, i64)> = servers.collect::<Result<_, StoreError>>()?;
            tx.members().take_over_servers(num, &servers)
        });
        Ok(write.await?)
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
                    let tx = appender.write()?;
                    if room.hearsay {
                        tx.rooms().confirm(&room)?;
                    }
                    Ok(Ok(()))
                }
                Err(refusal) => Ok(Err(refusal)),
            }
        });
        write.await?
    }
}

//! Several servers in one process, with links between them that can be cut.

mod answers;
mod fuzz;
mod gaps;
mod handovers;
mod invites;
mod knocks;
mod moves;
mod numbers;
mod other_rooms;
mod outcomes;
mod partial;
mod policy;
mod postgres;
mod sight;
mod simulation;
mod strangers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    ServerName, UserId,
};
use hearth_matrix::{Draft, Pdu, SigningKey};
use hearth_room::{
    Answer, CreateRoom, Invitation, JoinAnswer, MissingEvents, Neighbours, Preset, Refusal, RoomError, Rooms,
    RoomsConfig, StateAt, StateIdsAt, Template, Unanswered, WantedKey,
};
use hearth_store::{
    Change, DatabaseUrl, MembershipRow, NewAccount, Noun, Standing, StateKey, Store, StoreOptions, Tip, WallTime,
};

/// An event on its way.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: OwnedServerName,
    pub(super) to: OwnedServerName,
    pub(super) json: String,
}

/// One server.
pub(super) struct House {
    pub(super) name: OwnedServerName,
    pub(super) store: Store,
    pub(super) rooms: Rooms,
    pub(super) time: WallTime,
    outbox: Arc<Mutex<Vec<Arc<Pdu>>>>,
}

/// All servers, and the links between them.
#[derive(Default)]
pub(super) struct Net {
    houses: Mutex<BTreeMap<OwnedServerName, Arc<House>>>,
    cut: Mutex<BTreeSet<(OwnedServerName, OwnedServerName)>>,
    keys: Mutex<BTreeMap<OwnedServerName, (String, [u8; 32])>>,
    /// Servers that answer nothing but keys.
    pub(super) mute: Mutex<BTreeSet<OwnedServerName>>,
    /// Servers that never say who may come in, nor what was before.
    pub(super) silent: Mutex<BTreeSet<OwnedServerName>>,
    /// Servers that failed lately, as everybody sees it.
    pub(super) resting: Mutex<BTreeSet<OwnedServerName>>,
    /// What servers say instead of what they know.
    pub(super) lies: Mutex<BTreeMap<OwnedServerName, Lies>>,
    /// Questions that were answered.
    asked: AtomicUsize,
    /// Servers that were asked in vain.
    pub(super) asked_in_vain: Mutex<BTreeSet<OwnedServerName>>,
    /// Joins wait here until they may pass.
    pub(super) gate: Mutex<Option<Arc<tokio::sync::Semaphore>>>,
    /// Who is let in is not told of the members at first.
    pub(super) omit_members: AtomicBool,
    /// Servers that don't tell states.
    pub(super) stateless: Mutex<BTreeSet<OwnedServerName>>,
    /// Who asks for a state next breaks down.
    pub(super) breaks: AtomicBool,
    /// What serves as a policy server, under any name.
    pub(super) desk: Mutex<policy::Desk>,
}

/// An event made for an id.
pub(super) type CopyOf = Arc<dyn Fn(&EventId) -> String + Send + Sync>;

/// Answers of a server that makes them up.
#[derive(Clone, Default)]
pub(super) struct Lies {
    pub(super) missing_events: Option<Vec<String>>,
    pub(super) state_ids: BTreeMap<OwnedEventId, StateIdsAt>,
    pub(super) event_auth: Option<Vec<String>>,
    pub(super) events: BTreeMap<OwnedEventId, String>,
    pub(super) template: Option<Template>,
    pub(super) join: Option<JoinAnswer>,
    /// The copy of a join that it let pass, made for the join's id.
    pub(super) join_event: Option<CopyOf>,
    pub(super) backfill: Option<Vec<String>>,
    pub(super) knock_room_state: Option<Vec<String>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panicked")
}

pub(super) fn name(n: usize) -> OwnedServerName {
    OwnedServerName::try_from(format!("s{n}.test")).expect("a server name")
}

pub(super) fn user(n: usize, server: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@u{n}:s{server}.test")).expect("a user id")
}

pub(super) fn key(n: usize) -> SigningKey {
    SigningKey::from_seed([n as u8 + 1; 32], "a").expect("a key")
}

pub(super) fn object(value: serde_json::Value) -> CanonicalJsonObject {
    serde_json::from_value(value).expect("an object")
}

pub(super) fn joins(name: &str, user: &UserId) -> Draft {
    let content = object(serde_json::json!({ "membership": "join", "displayname": name }));
    Draft::state("m.room.member", user.as_str(), content)
}

pub(super) fn text(body: &str) -> Draft {
    Draft::message("m.room.message", object(serde_json::json!({ "msgtype": "m.text", "body": body })))
}

impl Net {
    /// This many servers, each with two users.
    pub(super) async fn of(servers: usize, seed: u64) -> Arc<Self> {
        let net = Arc::new(Self::default());
        for n in 0..servers {
            let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("opens");
            net.move_in(n, store, seed).await;
        }
        net
    }

    /// Starts a server on a store.
    pub(super) async fn move_in(self: &Arc<Self>, n: usize, store: Store, seed: u64) {
        for u in 0..2 {
            let user = user(u, n);
            let nouns = vec![Noun::Name(user.to_string())];
            let created = store.write(nouns, move |tx| {
                let (user_id, localpart) = (user.as_str(), user.localpart());
                let kind = hearth_store::UserKind::User;
                let account = NewAccount { user_id, localpart, password_hash: None, kind, admin: false, created_ts: 1 };
                tx.accounts().create(account)
            });
            created.await.expect("writes");
        }
        self.start(n, store, seed).await;
    }

    async fn start(self: &Arc<Self>, n: usize, store: Store, seed: u64) {
        let config =
            RoomsConfig { server_name: name(n), signing_key: key(n).into(), default_version: RoomVersionId::V12 };
        let time = WallTime::manual(1_000_000);
        let rooms = Rooms::seeded(config, store.clone(), time.clone(), seed.wrapping_mul(31).wrapping_add(n as u64));
        let outbox: Arc<Mutex<Vec<Arc<Pdu>>>> = Arc::default();
        let (out, own) = (outbox.clone(), name(n));
        store.on_commit(move |announced| {
            for announced in announced {
                if let Change::Event(event) = &announced.change
                    && event.pdu.sender.server_name() == own
                {
                    lock(&out).push(event.pdu.clone());
                }
            }
        });
        lock(&self.keys).insert(name(n), (key(n).key_id().to_owned(), key(n).public_key()));
        let house = Arc::new(House { name: name(n), store, rooms: rooms.clone(), time, outbox });
        lock(&self.houses).insert(name(n), house);
        let view = View { net: Arc::downgrade(self), me: name(n) };
        rooms.connect(Arc::new(view)).await.expect("connects");
    }

    /// The same server after a restart.
    pub(super) async fn move_in_again(self: &Arc<Self>, n: usize, seed: u64) {
        let store = self.house(n).store.clone();
        self.start(n, store, seed).await;
    }

    /// The same with stores on the disk.
    pub(super) async fn on_disk(servers: usize, seed: u64) -> (Arc<Self>, tempfile::TempDir) {
        let (net, directory) = (Arc::new(Self::default()), tempfile::tempdir().expect("a directory"));
        for n in 0..servers {
            net.move_in(n, open(&directory, n).await, seed).await;
        }
        (net, directory)
    }

    /// A restart after which a server remembers only what is on the disk.
    pub(super) async fn restart(self: &Arc<Self>, n: usize, directory: &tempfile::TempDir, seed: u64) {
        self.house(n).store.close().await;
        self.start(n, open(directory, n).await, seed).await;
    }

    pub(super) fn house(&self, n: usize) -> Arc<House> {
        self.by_name(&name(n)).expect("the server is there")
    }

    fn by_name(&self, name: &ServerName) -> Option<Arc<House>> {
        lock(&self.houses).get(name).cloned()
    }

    pub(super) fn cut(&self, a: usize, b: usize) {
        lock(&self.cut).insert((name(a.min(b)), name(a.max(b))));
    }

    /// How many questions servers have answered one another.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn heal(&self) {
        lock(&self.cut).clear();
    }

    pub(super) fn reaches(&self, a: &ServerName, b: &ServerName) -> bool {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        !lock(&self.cut).contains(&(low.to_owned(), high.to_owned()))
    }

    /// What the servers have to tell each other since they were asked last.
    pub(super) async fn packets(&self) -> Vec<Packet> {
        let houses: Vec<Arc<House>> = lock(&self.houses).values().cloned().collect();
        let mut packets = Vec::new();
        for house in houses {
            let sent = std::mem::take(&mut *lock(&house.outbox));
            for pdu in sent {
                let mut to = house.servers(&pdu.room_id).await;
                if let Some(("m.room.member", target)) = pdu.state_pair()
                    && let Ok(target) = <&UserId>::try_from(target)
                {
                    to.insert(target.server_name().to_owned());
                }
                to.remove(&house.name);
                packets.extend(to.into_iter().map(|to| Packet {
                    from: house.name.clone(),
                    to,
                    json: pdu.json.to_string(),
                }));
            }
        }
        packets
    }

    pub(super) async fn deliver(&self, packet: &Packet) {
        if self.reaches(&packet.from, &packet.to)
            && let Some(house) = self.by_name(&packet.to)
        {
            house.rooms.receive(&packet.from, std::slice::from_ref(&packet.json)).await.expect("the store works");
            house.let_work().await;
        }
    }

    /// Delivers everything until nobody has anything to say or do.
    pub(super) async fn calm_down(&self) {
        loop {
            let packets = self.packets().await;
            for packet in &packets {
                self.deliver(packet).await;
            }
            let houses: Vec<Arc<House>> = lock(&self.houses).values().cloned().collect();
            let idle = houses.iter().all(|house| house.rooms.is_idle());
            if packets.is_empty() && idle {
                return;
            }
            if !idle {
                // Passes at once where the clock is paused.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

async fn open(directory: &tempfile::TempDir, n: usize) -> Store {
    let url = DatabaseUrl::Sqlite(directory.path().join(format!("{n}.db")));
    Store::open(StoreOptions { url, threads: 2 }).await.expect("opens")
}

impl House {
    /// Lets the room's workers do what they can do at once.
    pub(super) async fn let_work(&self) {
        for _ in 0..200 {
            if self.rooms.is_idle() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Servers with members in a room, as this one sees it.
    pub(super) async fn servers(&self, room_id: &RoomId) -> BTreeSet<OwnedServerName> {
        let room_id = room_id.to_owned();
        let read = self.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Vec::new()) };
            tx.rooms().servers(room.num, 1000)
        });
        let servers = read.await.expect("reads");
        servers.iter().map(|server| OwnedServerName::try_from(&**server).expect("a server name")).collect()
    }

    pub(super) async fn tip(&self, room_id: &RoomId) -> Option<Tip> {
        let room_id = room_id.to_owned();
        let read = self.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            Some(room) => tx.rooms().tip(room.num),
            None => Ok(None),
        });
        read.await.expect("reads")
    }

    /// The room's current state: event ids by type and state key.
    pub(super) async fn state(&self, room_id: &RoomId) -> BTreeMap<(String, String), OwnedEventId> {
        let room_id = room_id.to_owned();
        let read = self.store.read(move |tx| {
            let mut state = BTreeMap::new();
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(state) };
            let Some(snapshot) = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot) else { return Ok(state) };
            for entry in tx.state().load(room.num, snapshot)? {
                let key = (tx.string(entry.key.kind)?.to_string(), tx.string(entry.key.state_key)?.to_string());
                state.insert(key, tx.events().id(entry.event)?);
            }
            Ok(state)
        });
        read.await.expect("reads")
    }

    /// Content of a piece of current state.
    pub(super) async fn content(&self, room_id: &RoomId, kind: &str, key: &str) -> Option<serde_json::Value> {
        let (room_id, kind, key) = (room_id.to_owned(), kind.to_owned(), key.to_owned());
        let read = self.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            let Some(snapshot) = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot) else { return Ok(None) };
            let (Some(kind), Some(state_key)) = (tx.string_num(&kind)?, tx.string_num(&key)?) else { return Ok(None) };
            let Some(num) = tx.state().get(room.num, snapshot, StateKey { kind, state_key })? else { return Ok(None) };
            let pdu = tx.events().pdu(&room, num)?;
            Ok(serde_json::from_str(pdu.content.get()).ok())
        });
        read.await.expect("reads")
    }

    pub(super) async fn membership(&self, room_id: &RoomId, user: &UserId) -> Option<String> {
        let content = self.content(room_id, "m.room.member", user.as_str()).await?;
        content.get("membership").and_then(|membership| membership.as_str()).map(str::to_owned)
    }

    pub(super) async fn standing(&self, room_id: &RoomId, event_id: &EventId) -> Option<Standing> {
        let found = self.rooms.event(room_id, event_id).await.expect("reads");
        found.map(|(_, standing)| standing)
    }

    pub(super) async fn send(&self, room_id: &RoomId, sender: &UserId, body: &str) -> Result<OwnedEventId, RoomError> {
        self.rooms.send(sender, room_id, text(body), None, None).await
    }

    pub(super) async fn set(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        kind: &str,
        key: &str,
        content: serde_json::Value,
    ) -> Result<OwnedEventId, RoomError> {
        self.rooms.set_state(sender, room_id, Draft::state(kind, key, object(content)), None).await
    }
}

/// A public room of the first server's first user.
pub(super) async fn public_room(house: &House, version: RoomVersionId) -> OwnedRoomId {
    house.rooms.create(new_room(version, Preset::PublicChat)).await.expect("a room")
}

/// A room to be of the first server's first user.
pub(super) fn new_room(version: RoomVersionId, preset: Preset) -> CreateRoom {
    CreateRoom {
        creator: user(0, 0),
        version: Some(version),
        preset,
        creation_content: CanonicalJsonObject::new(),
        power_levels: None,
        initial_state: Vec::new(),
        name: None,
        topic: None,
        alias_localpart: None,
        invite: Vec::new(),
        is_direct: false,
        published: false,
    }
}

/// The other servers as one of them sees them.
struct View {
    net: std::sync::Weak<Net>,
    me: OwnedServerName,
}

impl View {
    fn ask(&self, server: &ServerName) -> Result<Arc<House>, Unanswered> {
        let net = self.net.upgrade().ok_or_else(|| Unanswered::Unreachable("the end".into()))?;
        if !net.reaches(&self.me, server) || lock(&net.mute).contains(server) {
            lock(&net.asked_in_vain).insert(server.to_owned());
            return Err(Unanswered::Unreachable("the link is cut".into()));
        }
        net.asked.fetch_add(1, Ordering::Relaxed);
        net.by_name(server).ok_or_else(|| Unanswered::Unreachable("no such server".into()))
    }

    fn ask_for_state(&self, server: &ServerName) -> Result<Arc<House>, Unanswered> {
        let house = self.ask(server)?;
        assert!(!self.net.upgrade().is_some_and(|net| net.breaks.swap(false, Relaxed)), "as is wanted");
        match self.net.upgrade().is_some_and(|net| lock(&net.stateless).contains(server)) {
            true => Err(Unanswered::Unreachable("it takes its time".into())),
            false => Ok(house),
        }
    }
}

impl View {
    /// What a server says that makes it up.
    fn lie<T>(&self, server: &ServerName, pick: impl FnOnce(&Lies) -> Option<T>) -> Option<T> {
        let net = self.net.upgrade()?;
        lock(&net.lies).get(server).and_then(pick)
    }
}

fn refused(error: RoomError) -> Unanswered {
    let (status, errcode) = match &error {
        RoomError::InviteBlocked(_) => (403, "M_INVITE_BLOCKED"),
        RoomError::UnsupportedVersion(_) => (400, "M_INCOMPATIBLE_ROOM_VERSION"),
        RoomError::UnknownRoom => (404, "M_NOT_FOUND"),
        _ => return Unanswered::Refused(Refusal::because(error.to_string())),
    };
    Unanswered::Refused(Refusal { status, errcode: errcode.into(), message: error.to_string() })
}

fn jsons(pdus: &[Arc<Pdu>]) -> Vec<String> {
    pdus.iter().map(|pdu| fuzz::told(&pdu.json)).collect()
}

impl Neighbours for View {
    fn resting<'a>(&'a self, servers: &'a [OwnedServerName]) -> Answer<'a, Vec<OwnedServerName>> {
        Box::pin(async move {
            let Some(net) = self.net.upgrade() else { return Vec::new() };
            let resting = lock(&net.resting).clone();
            servers.iter().filter(|server| resting.contains(*server)).cloned().collect()
        })
    }

    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>> {
        Box::pin(async move { self.keys_at_hand(&wanted) })
    }

    fn keys_at_hand(&self, wanted: &[WantedKey]) -> Vec<(WantedKey, [u8; 32])> {
        let Some(net) = self.net.upgrade() else { return Vec::new() };
        let keys = lock(&net.keys);
        let find = |wanted: &WantedKey| {
            let (key_id, key) = keys.get(&wanted.server)?;
            (*key_id == wanted.key_id).then(|| (wanted.clone(), *key))
        };
        wanted.iter().filter_map(find).collect()
    }

    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        question: MissingEvents,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if let Some(lie) = self.lie(server, |lies| lies.missing_events.clone()) {
                return Ok(lie);
            }
            let found = house.rooms.missing_events(room_id, question).await.map_err(refused)?;
            Ok(jsons(&found))
        })
    }

    fn event<'a>(&'a self, server: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if let Some(lie) = self.lie(server, |lies| lies.events.get(event_id).cloned()) {
                return Ok(lie);
            }
            let found = house.find(event_id).await;
            found.ok_or_else(|| Unanswered::Refused(Refusal::because("not known")))
        })
    }

    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>> {
        Box::pin(async move {
            let house = self.ask_for_state(server)?;
            if let Some(lie) = self.lie(server, |lies| lies.state_ids.get(event_id).cloned()) {
                return Ok(lie);
            }
            house.rooms.state_ids_before(room_id, event_id).await.map_err(refused)
        })
    }

    fn state<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateAt, Unanswered>> {
        Box::pin(async move {
            let house = self.ask_for_state(server)?;
            let before = house.rooms.state_before(room_id, event_id).await.map_err(refused)?;
            Ok(StateAt { state: jsons(&before.state), auth_chain: jsons(&before.auth_chain) })
        })
    }

    fn event_auth<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if let Some(lie) = self.lie(server, |lies| lies.event_auth.clone()) {
                return Ok(lie);
            }
            let chain = house.rooms.auth_chain(room_id, event_id).await.map_err(refused)?;
            Ok(jsons(&chain))
        })
    }

    fn backfill<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        from: Vec<OwnedEventId>,
        limit: u32,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if self.net.upgrade().is_some_and(|net| lock(&net.silent).contains(server)) {
                return std::future::pending().await;
            }
            if let Some(lie) = self.lie(server, |lies| lies.backfill.clone()) {
                return Ok(lie);
            }
            let found = house.rooms.history_before(room_id, from, limit as usize).await.map_err(refused)?;
            Ok(jsons(&found))
        })
    }

    fn make_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if self.net.upgrade().is_some_and(|net| lock(&net.silent).contains(server)) {
                return std::future::pending().await;
            }
            if let Some(lie) = self.lie(server, |lies| lies.template.clone()) {
                return Ok(lie);
            }
            let template = house.rooms.join_template(room_id, user, versions).await.map_err(refused)?;
            Ok(Template { event: fuzz::told(&template.event), ..template })
        })
    }

    fn send_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            if let Some(lie) = self.lie(server, |lies| lies.join.clone()) {
                return Ok(lie);
            }
            let gate = self.net.upgrade().and_then(|net| lock(&net.gate).clone());
            if let Some(gate) = gate {
                drop(gate.acquire().await);
            }
            let omit = self.net.upgrade().is_some_and(|net| net.omit_members.load(Relaxed));
            let servers = house.rooms.servers(room_id, 100).await.map_err(refused)?;
            let welcomed = house.rooms.welcome(&self.me, room_id, event_id, &event, omit).await.map_err(refused)?;
            // Who lets somebody in tells the others.
            lock(&house.outbox).push(welcomed.event.clone());
            let copy = self.lie(server, |lies| lies.join_event.clone()).map(|made| made(event_id));
            Ok(JoinAnswer {
                event: copy.or_else(|| Some(welcomed.event.json.to_string())),
                state: jsons(&welcomed.before.state),
                auth_chain: jsons(&welcomed.before.auth_chain),
                members_omitted: omit,
                servers,
            })
        })
    }

    fn make_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move { self.ask(server)?.rooms.leave_template(room_id, user).await.map_err(refused) })
    }

    fn send_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<(), Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            let leave = house.rooms.take_leave(&self.me, room_id, event_id, &event).await.map_err(refused)?;
            lock(&house.outbox).push(leave);
            Ok(())
        })
    }

    fn make_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move { self.ask(server)?.rooms.knock_template(room_id, user, versions).await.map_err(refused) })
    }

    fn send_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let house = self.ask(server)?;
            let heard = house.rooms.take_knock(&self.me, room_id, event_id, &event).await.map_err(refused)?;
            lock(&house.outbox).push(heard.event);
            Ok(self.lie(server, |lies| lies.knock_room_state.clone()).unwrap_or(heard.room_state))
        })
    }

    fn policy_signature<'a>(&'a self, server: &'a ServerName, event: String) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let net = self.net.upgrade().ok_or_else(|| Unanswered::Unreachable("the end".into()))?;
            policy::answer(&net, &self.me, server, event).await
        })
    }

    fn invite<'a>(
        &'a self,
        server: &'a ServerName,
        invitation: &'a Invitation,
    ) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move { self.ask(server)?.rooms.take_invite(&self.me, invitation).await.map_err(refused) })
    }
}

impl House {
    /// How a user of ours stands to a room, as he is told.
    pub(super) async fn told(&self, room_id: &RoomId, user: &UserId) -> Option<MembershipRow> {
        let (room_id, user) = (room_id.to_owned(), user.to_owned());
        let read = self.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            let Some(user) = tx.string_num(user.as_str())? else { return Ok(None) };
            tx.members().current(room.num, user)
        });
        read.await.expect("reads")
    }

    /// An event of the one room that there is.
    async fn find(&self, event_id: &EventId) -> Option<String> {
        let event_id = event_id.to_owned();
        let read = self.store.read(move |tx| {
            for num in 1..3 {
                let Ok(room) = tx.rooms().by_num(hearth_store::RoomNum(num)) else { continue };
                if let Some(row) = tx.events().by_id(&room, &event_id)? {
                    return Ok(Some(tx.events().pdu(&room, row.num)?.json.to_string()));
                }
            }
            Ok(None)
        });
        read.await.expect("reads")
    }
}

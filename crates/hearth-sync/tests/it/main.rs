//! What clients are told of rooms with several branches: events of another server, made on purpose.

mod partial;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, ServerName, UserId, server_name,
    user_id,
};
use hearth_matrix::{Completion, Draft, Pdu, Place, SUPPORTED_VERSIONS, SigningKey, complete, rules, seal};
use hearth_room::{
    Answer, CreateRoom, JoinAnswer, MemberAction, MissingEvents, Neighbours, Preset, Refusal, Rooms, RoomsConfig,
    StateAt, StateIdsAt, Template, Unanswered, WantedKey,
};
use hearth_store::{DatabaseUrl, Noun, Store, StoreOptions, WallTime};
use hearth_sync::{Direction, Filter, MessagesRequest, Reader, SyncRequest, SyncToken, Syncs, Views};
use hearth_user::presence::{Presence, SetPresence};
use serde_json::{Value, json};

const NOW_MS: i64 = 1_000_000;

fn alice() -> &'static UserId {
    user_id!("@alice:here.test")
}

fn carol() -> &'static UserId {
    user_id!("@carol:here.test")
}

/// On the other server.
fn bob() -> &'static UserId {
    user_id!("@bob:far.test")
}

fn here_key() -> SigningKey {
    SigningKey::from_seed([7; 32], "a").expect("a key")
}

fn far_key() -> SigningKey {
    SigningKey::from_seed([9; 32], "a").expect("a key")
}

fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).expect("an object")
}

/// A server of ours, and a room in which somebody of another server is as powerful as its creator.
struct House {
    store: Store,
    rooms: Rooms,
    syncs: Syncs,
    room: OwnedRoomId,
    far: Arc<Far>,
}

/// Where a made-up event hangs on.
#[derive(Clone)]
struct Base {
    prev: Vec<OwnedEventId>,
    auth: Vec<OwnedEventId>,
    depth: u64,
}

impl House {
    async fn new() -> Self {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("opens");
        for user in [alice(), carol()] {
            store.write(vec![Noun::Name(user.to_string())], move |tx| tx.intern(user.as_str())).await.expect("writes");
        }
        let time = WallTime::manual(NOW_MS);
        let config = RoomsConfig {
            server_name: server_name!("here.test").to_owned(),
            signing_key: here_key().into(),
            default_version: RoomVersionId::V10,
        };
        let rooms = Rooms::new(config, store.clone(), time.clone());
        let far = Arc::new(Far::default());
        rooms.connect(far.clone()).await.expect("connects");
        let presence = Presence::new(false, store.clone(), time.clone());
        let typing = rooms.typing().clone();
        let syncs = Syncs::new(server_name!("here.test").to_owned(), store.clone(), time, typing, presence);
        let request = CreateRoom {
            creator: alice().to_owned(),
            version: Some(RoomVersionId::V10),
            preset: Preset::PublicChat,
            creation_content: CanonicalJsonObject::new(),
            power_levels: Some(object(json!({ "users": { alice(): 100, bob(): 100 } }))),
            initial_state: Vec::new(),
            name: None,
            topic: None,
            alias_localpart: None,
            invite: Vec::new(),
            is_direct: false,
            published: false,
        };
        let room = rooms.create(request).await.expect("a room");
        let house = Self { store, rooms, syncs, room, far };
        let template = house.rooms.join_template(&house.room, bob(), &SUPPORTED_VERSIONS).await.expect("a template");
        let with = Completion {
            content: &CanonicalJsonObject::new(),
            origin_server_ts: NOW_MS,
            server_name: bob().server_name(),
            key: &far_key(),
            opaque: "",
        };
        let join = complete(&template.event, &with, rules(&RoomVersionId::V10).expect("known")).expect("a join");
        let far = bob().server_name();
        house.rooms.welcome(far, &house.room, &join.event_id, &join.json, false).await.expect("comes in");
        house
    }

    /// The present end of the room, for events that will hang there whatever comes.
    async fn base(&self) -> Base {
        let room = self.room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let tip = tx.rooms().tip(room.num)?.expect("a tip");
            let prev = tip.extremities.iter().map(|num| tx.events().id(*num)).collect::<Result<Vec<_>, _>>()?;
            let mut auth = Vec::new();
            for entry in tx.state().load(room.num, tip.snapshot.expect("a state"))? {
                let (kind, key) = (tx.string(entry.key.kind)?, tx.string(entry.key.state_key)?);
                if matches!(
                    (&*kind, &*key),
                    ("m.room.create" | "m.room.power_levels", "") | ("m.room.member", "@bob:far.test")
                ) {
                    auth.push(tx.events().id(entry.event)?);
                }
            }
            Ok(Base { prev, auth, depth: tip.depth as u64 })
        });
        read.await.expect("reads")
    }

    fn made(&self, draft: Draft, base: &Base, ts: i64) -> Pdu {
        let place = Place {
            room_id: Some(&self.room),
            sender: bob(),
            prev_events: &base.prev,
            auth_events: &base.auth,
            depth: base.depth + 1,
            origin_server_ts: ts,
            server_name: bob().server_name(),
            v1: None,
        };
        seal(draft, &place, &far_key(), rules(&RoomVersionId::V10).expect("known")).expect("seals")
    }

    /// An event of the other server comes.
    async fn receive(&self, pdu: &Pdu) {
        let received = self.rooms.receive(bob().server_name(), &[pdu.json.to_string()]).await.expect("receives");
        received.into_iter().next().expect("an answer").outcome.expect("accepted for work");
        while !self.rooms.is_idle() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn sync(&self, user: &UserId, since: Option<&Value>, state_after: Option<&'static str>) -> Value {
        self.sync_with(user, since, state_after, Filter::none()).await
    }

    /// At most so many events.
    async fn sync_some(&self, user: &UserId, since: Option<&Value>, limit: usize) -> Value {
        let filter = json!({ "room": { "timeline": { "limit": limit } } }).to_string();
        let filter = Filter::new(hearth_user::filters::parse(&filter).expect("a filter"));
        self.sync_with(user, since, None, filter).await
    }

    /// What alice reads back from a token, without what made the room.
    async fn page_back(&self, from: &Value) -> Vec<String> {
        let id = alice().to_owned();
        let user = self.store.read(move |tx| Ok(tx.string_num(id.as_str())?.expect("known"))).await.expect("reads");
        let views = Views::new(self.store.clone(), WallTime::manual(NOW_MS));
        let mut said = Vec::new();
        let mut from = from.as_str().map(str::to_owned);
        while from.is_some() {
            let reader = Reader { user, user_id: alice().to_owned(), device: None, now_ms: NOW_MS };
            let direction = Some(Direction::Backward);
            let request = MessagesRequest { from, direction, limit: Some(2), ..MessagesRequest::default() };
            let page = views.messages(reader, self.room.clone(), request).await.expect("a page");
            let page: Value = serde_json::from_str(&page.json).expect("JSON");
            said.extend(bodies(&page["chunk"]).into_iter().map(str::to_owned));
            from = page["end"].as_str().map(str::to_owned);
        }
        said
    }

    async fn sync_with(
        &self,
        user: &UserId,
        since: Option<&Value>,
        state_after: Option<&'static str>,
        filter: Filter,
    ) -> Value {
        let id = user.to_owned();
        let num = self.store.read(move |tx| Ok(tx.string_num(id.as_str())?.expect("known"))).await.expect("reads");
        let since = since.map(|answer| answer["next_batch"].as_str().expect("a token"));
        let request = SyncRequest {
            user: num,
            user_id: user.to_owned(),
            device: None,
            since: since.map(|token| token.parse::<SyncToken>().expect("a token")),
            filter: Arc::new(filter),
            full_state: false,
            state_after,
            timeout: Duration::ZERO,
            set_presence: SetPresence::default(),
        };
        let answer = self.syncs.sync(request, std::future::pending()).await.expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    fn topic(topic: &str) -> Draft {
        Draft::state("m.room.topic", "", object(json!({ "topic": topic })))
    }

    fn part<'a>(&self, answer: &'a Value, section: &str) -> &'a Value {
        &answer["rooms"][section][self.room.as_str()]
    }
}

fn topics(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("events");
    events
        .iter()
        .filter(|event| event["type"] == "m.room.topic")
        .filter_map(|e| e["content"]["topic"].as_str())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn state_after_tells_what_was_decided_between_branches() {
    for (ts, decided) in [(NOW_MS - 5, "ours"), (NOW_MS + 5, "theirs")] {
        let house = House::new().await;
        let base = house.base().await;
        let (plain, after) =
            (house.sync(alice(), None, None).await, house.sync(alice(), None, Some("state_after")).await);
        house.rooms.set_state(alice(), &house.room, House::topic("ours"), None).await.expect("may");
        let theirs = house.made(House::topic("theirs"), &base, ts);
        house.receive(&theirs).await;
        for (since, state_after) in [(&plain, None), (&after, Some("state_after"))] {
            let answer = house.sync(alice(), Some(since), state_after).await;
            let part = house.part(&answer, "join");
            assert_eq!(topics(&part["timeline"]["events"]), ["ours", "theirs"], "in the order of arrival");
            if let Some(name) = state_after {
                assert_eq!(topics(&part[name]["events"]), [decided]);
            }
        }
        // Who comes anew is told the same.
        let answer = house.sync(alice(), None, Some("state_after")).await;
        assert_eq!(topics(&house.part(&answer, "join")["state_after"]["events"]), [decided]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_loses_his_place_between_branches_is_told_that_he_left() {
    let house = House::new().await;
    let base = house.base().await;
    house
        .rooms
        .change_membership(carol(), &house.room, MemberAction::Join { guest: false }, None)
        .await
        .expect("may join");
    let (her, his) = (house.sync(carol(), None, None).await, house.sync(alice(), None, None).await);
    assert_eq!(house.part(&his, "join")["summary"]["m.joined_member_count"], 3);
    // A branch that knows nothing of her shuts the door: her join does not stand.
    let shut = Draft::state("m.room.join_rules", "", object(json!({ "join_rule": "invite" })));
    let shut = house.made(shut, &base, NOW_MS + 5);
    house.receive(&shut).await;
    let his = house.sync(alice(), Some(&his), None).await;
    assert_eq!(house.part(&his, "join")["summary"]["m.joined_member_count"], 2);
    let her = house.sync(carol(), Some(&her), None).await;
    assert!(house.part(&her, "leave").is_object(), "{her}");
    assert!(house.part(&her, "join").is_null(), "{her}");
}

#[tokio::test(start_paused = true)]
async fn a_timeline_is_cut_where_events_are_missing() {
    let house = House::new().await;
    let base = house.base().await;
    house.far.tell_state(&house).await;
    let since = house.sync(alice(), None, None).await;
    house.rooms.send(alice(), &house.room, text("before"), None, None).await.expect("may talk");
    let lost = house.made(text("lost"), &base, NOW_MS);
    let after = Base { prev: vec![lost.event_id.clone()], depth: base.depth + 1, ..base };
    house.receive(&house.made(text("after"), &after, NOW_MS)).await;
    let answer = house.sync(alice(), Some(&since), None).await;
    let timeline = &house.part(&answer, "join")["timeline"];
    assert_eq!(timeline["limited"], true);
    let bodies: Vec<_> = timeline["events"].as_array().expect("events").iter().map(|e| &e["content"]["body"]).collect();
    assert_eq!(bodies, [&json!("after")]);
}

#[tokio::test(start_paused = true)]
async fn what_came_late_hides_nothing_from_who_pages_back() {
    let house = House::new().await;
    let base = house.base().await;
    let since = house.sync(alice(), None, None).await;
    for body in ["one", "two", "three"] {
        house.rooms.send(alice(), &house.room, text(body), None, None).await.expect("may talk");
    }
    // Its place in the room is beside the first of them, and it comes last.
    let late = house.made(text("late"), &base, NOW_MS);
    house.receive(&late).await;
    house.rooms.send(alice(), &house.room, text("four"), None, None).await.expect("may talk");
    // Who knows the room hears what came last, and pages back through what came before that, and nothing twice.
    let answer = house.sync_some(alice(), Some(&since), 2).await;
    let timeline = &house.part(&answer, "join")["timeline"];
    assert_eq!((bodies(&timeline["events"]), &timeline["limited"]), (vec!["late", "four"], &json!(true)), "{answer}");
    assert_eq!(house.page_back(&timeline["prev_batch"]).await, ["three", "two", "one"]);
    // Who does not know it gets it in its order.
    let answer = house.sync_some(alice(), None, 2).await;
    let timeline = &house.part(&answer, "join")["timeline"];
    assert_eq!(bodies(&timeline["events"]), ["three", "four"], "{answer}");
    let mut before = house.page_back(&timeline["prev_batch"]).await;
    before.sort_unstable();
    assert_eq!(before, ["late", "one", "two"]);
}

fn bodies(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("events").iter();
    events.filter_map(|event| event["content"]["body"].as_str()).collect()
}

fn text(body: &str) -> Draft {
    Draft::message("m.room.message", object(json!({ "msgtype": "m.text", "body": body })))
}

/// The other server: its keys are known; it tells no events, but a state if it has one.
#[derive(Default)]
struct Far {
    state: Mutex<Option<StateIdsAt>>,
}

impl Far {
    /// From now on it says that the state is what it is now.
    async fn tell_state(&self, house: &House) {
        let room = house.room.clone();
        let read = house.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let snapshot = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot).expect("a state");
            let entries = tx.state().load(room.num, snapshot)?;
            entries.into_iter().map(|entry| tx.events().id(entry.event)).collect::<Result<Vec<_>, _>>()
        });
        let state = read.await.expect("reads");
        *self.state.lock().expect("nobody panicked") = Some(StateIdsAt { state, auth_chain: Vec::new() });
    }
}

fn refused<'a, T: Send + 'a>() -> Answer<'a, Result<T, Unanswered>> {
    Box::pin(async { Err(Unanswered::Refused(Refusal::because("not told"))) })
}

impl Neighbours for Far {
    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>> {
        let key = |wanted: &WantedKey| match wanted.server.as_str() {
            "there.test" => SigningKey::from_seed([5; 32], "a").expect("a key").public_key(),
            _ => far_key().public_key(),
        };
        Box::pin(async move { wanted.into_iter().map(|wanted| (wanted.clone(), key(&wanted))).collect() })
    }

    fn missing_events<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: MissingEvents,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        refused()
    }

    fn event<'a>(&'a self, _: &'a ServerName, _: &'a EventId) -> Answer<'a, Result<String, Unanswered>> {
        refused()
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>> {
        let state = self.state.lock().expect("nobody panicked").clone();
        Box::pin(async move { state.ok_or_else(|| Unanswered::Refused(Refusal::because("not told"))) })
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<StateAt, Unanswered>> {
        refused()
    }

    fn event_auth<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        refused()
    }

    fn backfill<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: Vec<OwnedEventId>,
        _: u32,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        refused()
    }

    fn make_join<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a UserId,
        _: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        refused()
    }

    fn send_join<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
        _: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>> {
        refused()
    }
}

//! What clients are told of a room that a join brought without its members, before they come and after.

use std::sync::atomic::{AtomicBool, Ordering};

use hearth_user::filters;

use super::*;

/// A server that lets others in without telling them of members.
struct Resident {
    rooms: Rooms,
    room: OwnedRoomId,
    /// It tells them now.
    tells: AtomicBool,
}

fn dave() -> &'static UserId {
    user_id!("@dave:there.test")
}

/// A server of which somebody comes into the room of a house.
struct Newcomer {
    store: Store,
    rooms: Rooms,
    syncs: Syncs,
    resident: Arc<Resident>,
}

impl Newcomer {
    async fn join(house: &House) -> Self {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("opens");
        store.write(vec![Noun::Name("dave".into())], |tx| tx.intern(dave().as_str())).await.expect("writes");
        let time = WallTime::manual(NOW_MS);
        let config = RoomsConfig {
            server_name: server_name!("there.test").to_owned(),
            signing_key: there_key().into(),
            default_version: RoomVersionId::V10,
        };
        let rooms = Rooms::new(config, store.clone(), time.clone());
        let resident =
            Arc::new(Resident { rooms: house.rooms.clone(), room: house.room.clone(), tells: AtomicBool::new(false) });
        rooms.connect(resident.clone()).await.expect("connects");
        let presence = Presence::new(false, store.clone(), time.clone());
        let syncs =
            Syncs::new(server_name!("there.test").to_owned(), store.clone(), time, rooms.typing().clone(), presence);
        let newcomer = Self { store, rooms, syncs, resident };
        let via = [server_name!("here.test").to_owned()];
        let joined = newcomer.rooms.join_through(dave(), &house.room, &via, CanonicalJsonObject::new()).await;
        joined.expect("joins");
        newcomer
    }

    async fn sync(&self, since: Option<&Value>, lazy: bool, timeout: Duration) -> Value {
        let num = self.store.read(|tx| Ok(tx.string_num(dave().as_str())?.expect("known"))).await.expect("reads");
        let filter = match lazy {
            true => Filter::new(filters::parse(r#"{"room":{"state":{"lazy_load_members":true}}}"#).expect("a filter")),
            false => Filter::none(),
        };
        let since = since.map(|answer| answer["next_batch"].as_str().expect("a token"));
        let request = SyncRequest {
            user: num,
            user_id: dave().to_owned(),
            device: None,
            since: since.map(|token| token.parse::<SyncToken>().expect("a token")),
            filter: Arc::new(filter),
            full_state: false,
            state_after: None,
            timeout,
            set_presence: SetPresence::default(),
        };
        let answer = self.syncs.sync(request, std::future::pending()).await.expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    async fn hear(&self, pdu: &Pdu) {
        let json = pdu.json.to_string();
        self.rooms.receive(server_name!("here.test"), &[json]).await.expect("the store works");
    }
}

fn there_key() -> SigningKey {
    SigningKey::from_seed([5; 32], "a").expect("a key")
}

fn members(part: &Value) -> Vec<&str> {
    let events = part["state"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let events = events.iter().chain(part["timeline"]["events"].as_array().expect("a timeline"));
    let mut members: Vec<&str> =
        events.filter(|e| e["type"] == "m.room.member").filter_map(|e| e["state_key"].as_str()).collect();
    members.sort_unstable();
    members
}

#[tokio::test(start_paused = true)]
async fn clients_that_want_all_members_hear_of_a_room_when_they_are_known() {
    let house = House::new().await;
    house.rooms.set_state(alice(), &house.room, room_name(), None).await.expect("may");
    let newcomer = Newcomer::join(&house).await;
    let room = house.room.as_str();
    let (eager, lazy) =
        (newcomer.sync(None, false, Duration::ZERO).await, newcomer.sync(None, true, Duration::ZERO).await);
    assert!(eager["rooms"]["join"][room].is_null(), "{eager}");
    assert_eq!(members(&lazy["rooms"]["join"][room]), [dave().as_str()]);

    // Who speaks is known by what he says.
    let said = house.rooms.send(alice(), &house.room, text("hello"), None, None).await.expect("may talk");
    let (pdu, _) = house.rooms.event(&house.room, &said).await.expect("reads").expect("the event");
    newcomer.hear(&pdu).await;
    let lazy = newcomer.sync(Some(&lazy), true, Duration::from_secs(60)).await;
    let part = &lazy["rooms"]["join"][room];
    assert_eq!(part["timeline"]["events"][0]["event_id"], said.as_str(), "{lazy}");
    assert_eq!(members(part), [alice().as_str()], "{lazy}");
    let eager = newcomer.sync(Some(&eager), false, Duration::ZERO).await;
    assert!(eager["rooms"]["join"][room].is_null(), "{eager}");

    // A client that waits is told as soon as all are known.
    let tell = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        newcomer.resident.tells.store(true, Ordering::SeqCst);
    };
    let (answer, ()) = tokio::join!(newcomer.sync(Some(&eager), false, Duration::from_secs(200)), tell);
    let part = &answer["rooms"]["join"][room];
    assert_eq!(members(part), [alice().as_str(), bob().as_str(), dave().as_str()], "{answer}");
    assert_eq!(part["summary"]["m.joined_member_count"], 3, "{answer}");
    assert_eq!(part["timeline"]["limited"], true, "{answer}");
    // The same room anew is the same for everybody.
    let lazy = newcomer.sync(Some(&lazy), true, Duration::ZERO).await;
    assert_eq!(lazy["rooms"]["join"][room]["summary"]["m.joined_member_count"], 3, "{lazy}");
    let anew = newcomer.sync(None, false, Duration::ZERO).await;
    assert_eq!(members(&anew["rooms"]["join"][room]).len(), 3);
}

fn room_name() -> Draft {
    Draft::state("m.room.name", "", object(json!({ "name": "The room" })))
}

fn unreachable() -> Unanswered {
    Unanswered::Unreachable("it takes its time".into())
}

fn jsons(pdus: &[Arc<Pdu>]) -> Vec<String> {
    pdus.iter().map(|pdu| pdu.json.to_string()).collect()
}

impl Neighbours for Resident {
    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>> {
        let key = |wanted: &WantedKey| match wanted.server.as_str() {
            "here.test" => here_key().public_key(),
            "there.test" => there_key().public_key(),
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

    fn event<'a>(&'a self, _: &'a ServerName, event: &'a EventId) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let found = self.rooms.event(&self.room, event).await.map_err(|_| unreachable())?;
            found.map(|(pdu, _)| pdu.json.to_string()).ok_or_else(unreachable)
        })
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        room: &'a RoomId,
        event: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>> {
        Box::pin(async move {
            if !self.tells.load(Ordering::SeqCst) {
                return Err(unreachable());
            }
            let before = self.rooms.state_before(room, event).await.map_err(|_| unreachable())?;
            let ids = |pdus: &[Arc<Pdu>]| pdus.iter().map(|pdu| pdu.event_id.clone()).collect();
            Ok(StateIdsAt { state: ids(&before.state), auth_chain: ids(&before.auth_chain) })
        })
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
        room: &'a RoomId,
        event: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move { Ok(jsons(&self.rooms.auth_chain(room, event).await.map_err(|_| unreachable())?)) })
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
        room: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move { self.rooms.join_template(room, user, versions).await.map_err(|_| unreachable()) })
    }

    fn send_join<'a>(
        &'a self,
        _: &'a ServerName,
        room: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>> {
        Box::pin(async move {
            let welcomed = self.rooms.welcome(dave().server_name(), room, event_id, &event, true).await;
            let welcomed = welcomed.map_err(|_| unreachable())?;
            Ok(JoinAnswer {
                event: Some(welcomed.event.json.to_string()),
                state: jsons(&welcomed.before.state),
                auth_chain: jsons(&welcomed.before.auth_chain),
                members_omitted: true,
                servers: vec![server_name!("here.test").to_owned(), server_name!("far.test").to_owned()],
            })
        })
    }
}

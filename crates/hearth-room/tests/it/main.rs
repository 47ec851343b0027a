//! Rooms on an in-memory store: what the doors' tests cannot see.

mod federation;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId, UserId, server_name, user_id};
use hearth_matrix::{Draft, SUPPORTED_VERSIONS, SigningKey};
use hearth_room::{CreateRoom, MemberAction, Preset, RoomError, Rooms, RoomsConfig, Txn};
use hearth_store::{DatabaseUrl, DeviceNum, Membership, Noun, Position, Store, StoreOptions, Tip, WallTime};

fn alice() -> &'static UserId {
    user_id!("@alice:hearth.test")
}

fn bob() -> &'static UserId {
    user_id!("@bob:hearth.test")
}

async fn house() -> (Store, Rooms) {
    let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap();
    for user in [alice(), bob()] {
        store.write(vec![Noun::Name(user.to_string())], move |tx| tx.intern(user.as_str())).await.unwrap();
    }
    let config = RoomsConfig {
        server_name: server_name!("hearth.test").to_owned(),
        signing_key: SigningKey::from_seed([7; 32], "abcdef").unwrap().into(),
        default_version: RoomVersionId::V12,
    };
    let rooms = Rooms::new(config, store.clone(), WallTime::manual(1_000));
    (store, rooms)
}

fn new_room(version: RoomVersionId) -> CreateRoom {
    CreateRoom {
        creator: alice().to_owned(),
        version: Some(version),
        preset: Preset::PrivateChat,
        creation_content: CanonicalJsonObject::new(),
        power_levels: None,
        initial_state: Vec::new(),
        name: Some("Hall".into()),
        topic: Some("Warmth".into()),
        alias_localpart: None,
        invite: vec![bob().to_owned()],
        is_direct: false,
        published: false,
    }
}

fn message(body: &str) -> Draft {
    let content = serde_json::json!({ "msgtype": "m.text", "body": body });
    let content = serde_json::from_value(content).expect("this is an object");
    Draft::message("m.room.message", content)
}

async fn tip(store: &Store, room: &OwnedRoomId) -> Tip {
    let room = room.clone();
    store
        .read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room is there");
            Ok(tx.rooms().tip(room.num)?.expect("the room has events"))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn rooms_of_every_version_can_be_created_and_talked_in() {
    for version in SUPPORTED_VERSIONS {
        let (store, rooms) = house().await;
        let room = rooms.create(new_room(version.clone())).await.unwrap_or_else(|e| panic!("version {version}: {e}"));
        rooms.change_membership(bob(), &room, MemberAction::Join { guest: false }, None).await.unwrap();
        for i in 0..3 {
            rooms.send(bob(), &room, message(&format!("{i}")), None, None).await.unwrap();
        }
        let tip = tip(&store, &room).await;
        assert_eq!((tip.joined, tip.invited), (2, 0), "version {version}");
        assert_eq!(tip.unread, 3, "version {version}");
        assert_eq!(tip.extremities.len(), 1, "version {version}");
    }
}

#[tokio::test]
async fn two_rooms_alike_in_one_millisecond_are_two_rooms() {
    let (_, rooms) = house().await;
    let one = rooms.create(new_room(RoomVersionId::V12)).await.unwrap();
    let other = rooms.create(new_room(RoomVersionId::V12)).await.unwrap();
    assert_ne!(one, other);
}

#[tokio::test]
async fn a_retried_transaction_makes_one_event() {
    let (store, rooms) = house().await;
    let room = rooms.create(new_room(RoomVersionId::V10)).await.unwrap();
    let txn = || Some(Txn { device: DeviceNum(1), txn_id: "t1".into() });
    let before = tip(&store, &room).await.room_order;
    let (one, two) = tokio::join!(
        rooms.send(alice(), &room, message("hi"), txn(), None),
        rooms.send(alice(), &room, message("hi"), txn(), None)
    );
    let three = rooms.send(alice(), &room, message("hi"), txn(), None).await.unwrap();
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(tip(&store, &room).await.room_order, before + 1);
    let other = Some(Txn { device: DeviceNum(2), txn_id: "t1".into() });
    assert_ne!(rooms.send(alice(), &room, message("hi"), other, None).await.unwrap(), three);
}

#[tokio::test]
async fn nothing_of_a_refused_room_remains() {
    let (store, rooms) = house().await;
    let mut request = new_room(RoomVersionId::V12);
    request.alias_localpart = Some("hall".into());
    request.initial_state = vec![Draft::state("m.room.member", "@carol:hearth.test", CanonicalJsonObject::new())];
    let refused = rooms.create(request).await.unwrap_err();
    assert!(matches!(refused, RoomError::InvalidRoomState(_)), "{refused:?}");
    let alias = hearth_matrix::ruma::room_alias_id!("#hall:hearth.test");
    assert!(matches!(rooms.resolve_alias(alias).await, Err(RoomError::NotFound(_))));
    assert_eq!(store.position(), Position(0));
}

#[tokio::test]
async fn memberships_are_intervals_on_the_clock() {
    let (store, rooms) = house().await;
    let room = rooms.create(new_room(RoomVersionId::V10)).await.unwrap();
    let change = async |user: &'static UserId, action| rooms.change_membership(user, &room, action, None).await;
    change(bob(), MemberAction::Join { guest: false }).await.unwrap();
    assert!(!change(bob(), MemberAction::Join { guest: false }).await.unwrap(), "joined already");
    change(alice(), MemberAction::Ban(bob().to_owned())).await.unwrap();
    assert!(matches!(change(bob(), MemberAction::Join { guest: false }).await, Err(RoomError::Forbidden(_))));
    change(alice(), MemberAction::Unban(bob().to_owned())).await.unwrap();
    let id = room.clone();
    let history = store
        .read(move |tx| {
            let room = tx.rooms().by_id(&id)?.expect("the room is there");
            let user = tx.string_num(bob().as_str())?.expect("bob is known");
            tx.members().history(room.num, user)
        })
        .await
        .unwrap();
    let memberships: Vec<_> = history.iter().map(|row| row.membership).collect();
    assert_eq!(memberships, [Membership::Invite, Membership::Join, Membership::Ban, Membership::Leave]);
    for pair in history.windows(2) {
        assert_eq!(pair[0].until, Some(pair[1].since));
    }
    assert!(history[0].stripped.as_deref().is_some_and(|stripped| stripped.contains("Hall")));
}

#[tokio::test]
async fn a_bystander_may_neither_write_nor_redact() {
    let (_, rooms) = house().await;
    let room = rooms.create(new_room(RoomVersionId::V12)).await.unwrap();
    assert!(matches!(rooms.send(bob(), &room, message("hi"), None, None).await, Err(RoomError::Forbidden(_))));
    let event = rooms.send(alice(), &room, message("hi"), None, None).await.unwrap();
    rooms.change_membership(bob(), &room, MemberAction::Join { guest: false }, None).await.unwrap();
    assert!(matches!(rooms.redact(bob(), &room, &event, None, None).await, Err(RoomError::Forbidden(_))));
    rooms.redact(alice(), &room, &event, Some("typo".into()), None).await.unwrap();
}

#[tokio::test]
async fn dropped_state_is_swept_from_the_disk() {
    let (store, rooms) = house().await;
    let room = rooms.create(new_room(RoomVersionId::V10)).await.unwrap();
    let swept = store
        .write(vec![Noun::Name("sweep".into())], move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room is there");
            let nothing = tx.state().garbage(room.num, 1000)?;
            // A state that nobody refers to: as after a purge.
            let kind = tx.intern("m.dropped")?;
            let entries: Vec<_> = (0..200)
                .map(|i| Ok((hearth_store::StateKey { kind, state_key: tx.intern(&format!("{i}"))? }, i + 1)))
                .collect::<Result<_, hearth_store::StoreError>>()?;
            let changes: Vec<_> = entries.iter().map(|(key, i)| (*key, Some(hearth_store::EventNum(*i)))).collect();
            let snapshot = tx.state().apply(room.num, None, &changes)?;
            assert_eq!(tx.state().load(room.num, snapshot)?.len(), 200);
            let garbage = tx.state().garbage(room.num, 1000)?;
            tx.state().sweep(&garbage)?;
            let rest = tx.state().garbage(room.num, 1000)?;
            Ok((nothing.len(), garbage.len(), rest.len()))
        })
        .await
        .unwrap();
    assert_eq!(swept.0, 0);
    assert!(swept.1 > 10, "200 entries are more than ten nodes");
    assert_eq!(swept.2, 0);
}

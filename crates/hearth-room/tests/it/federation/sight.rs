//! What other servers see of a room that shows its history to members of then alone.

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_room::MemberAction;
use serde_json::{Value, json};

use super::{House, Net, name, public_room, user};

async fn room_of(net: &Net, visibility: &str) -> OwnedRoomId {
    room_of_version(net, RoomVersionId::V11, visibility).await
}

async fn room_of_version(net: &Net, version: RoomVersionId, visibility: &str) -> OwnedRoomId {
    let first = net.house(0);
    let room = public_room(&first, version).await;
    let content = json!({ "history_visibility": visibility });
    first.set(&room, &user(0, 0), "m.room.history_visibility", "", content).await.expect("may");
    room
}

async fn come(net: &Net, n: usize, who: &OwnedUserId, room: &OwnedRoomId) {
    let house = net.house(n);
    if house.tip(room).await.is_some_and(|tip| tip.joined_local > 0) {
        house.rooms.change_membership(who, room, MemberAction::Join { guest: false }, None).await.expect("may");
    } else {
        house.rooms.join_through(who, room, &[name(0)], Default::default()).await.expect("joins");
    }
    net.calm_down().await;
}

async fn go(net: &Net, n: usize, who: &OwnedUserId, room: &OwnedRoomId) {
    net.house(n).rooms.change_membership(who, room, MemberAction::Leave, None).await.expect("may");
    net.calm_down().await;
}

impl House {
    async fn say(&self, room: &OwnedRoomId, body: &str) -> OwnedEventId {
        self.send(room, &user(0, 0), body).await.expect("may talk")
    }

    /// Contents of events as a server gets them.
    async fn shown_contents(&self, server: usize, room: &OwnedRoomId, events: &[OwnedEventId]) -> Vec<Value> {
        let mut pdus: Vec<Arc<Pdu>> = Vec::new();
        for event in events {
            pdus.push(self.rooms.event(room, event).await.expect("reads").expect("is there").0);
        }
        let shown = self.rooms.shown_to(&name(server), pdus).await.expect("reads");
        let content = |json: &String| serde_json::from_str::<Value>(json).expect("JSON")["content"].take();
        shown.iter().map(content).collect()
    }

    /// Bodies of messages as a server gets them.
    async fn shown(&self, server: usize, room: &OwnedRoomId, events: &[OwnedEventId]) -> Vec<Option<String>> {
        let contents = self.shown_contents(server, room, events).await;
        contents.iter().map(|content| content["body"].as_str().map(str::to_owned)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_sees_what_was_said_while_one_of_its_users_was_there() {
    let net = Net::of(3, 1).await;
    let room = room_of(&net, "joined").await;
    let (first, one, other) = (net.house(0), user(0, 1), user(1, 1));
    let mut said = vec![first.say(&room, "nobody").await];
    come(&net, 1, &one, &room).await;
    said.push(first.say(&room, "one").await);
    come(&net, 1, &other, &room).await;
    go(&net, 1, &one, &room).await;
    said.push(first.say(&room, "the other").await);
    net.calm_down().await;
    go(&net, 1, &other, &room).await;
    said.push(first.say(&room, "gone").await);
    come(&net, 1, &one, &room).await;
    said.push(first.say(&room, "back").await);
    let body = |body: &str| Some(body.to_owned());
    let seen = first.shown(1, &room, &said).await;
    assert_eq!(seen, [None, body("one"), body("the other"), None, body("back")]);
    assert_eq!(first.shown(2, &room, &said).await, vec![None; 5], "who was never there sees nothing");
}

#[tokio::test(start_paused = true)]
async fn who_is_invited_sees_where_the_room_says_so() {
    for (visibility, seen) in [("invited", Some("hello")), ("joined", None)] {
        let net = Net::of(2, 1).await;
        let room = room_of(&net, visibility).await;
        let first = net.house(0);
        let before = first.say(&room, "before").await;
        let invite = MemberAction::Invite(user(0, 1));
        first.rooms.change_membership(&user(0, 0), &room, invite, None).await.expect("may");
        let said = first.say(&room, "hello").await;
        let shown = first.shown(1, &room, &[before, said]).await;
        assert_eq!(shown, [None, seen.map(str::to_owned)], "{visibility}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_are_judged_by_is_told_whole_also_to_who_may_not_see_it() {
    for (version, notes) in [(RoomVersionId::V10, json!("why")), (RoomVersionId::V11, Value::Null)] {
        let net = Net::of(2, 1).await;
        let room = room_of_version(&net, version.clone(), "joined").await;
        let first = net.house(0);
        let levels = json!({ "users": { user(0, 0): 100 }, "invite": 50, "notes": "why" });
        let levels = first.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
        let said = first.say(&room, "nobody").await;
        let shown = first.shown_contents(1, &room, &[said, levels]).await;
        assert_eq!(shown[0], json!({}));
        // What redaction takes away of it before version 11 is what others are judged by.
        assert_eq!((&shown[1]["invite"], &shown[1]["notes"]), (&json!(50), &notes), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_what_takes_too_long_to_find_out_the_newest_is_told_and_the_rest_left_out() {
    let net = Net::of(2, 1).await;
    let room = room_of(&net, "joined").await;
    let first = net.house(0);
    let users: Vec<OwnedUserId> = (0..60).map(|n| user(n, 1)).collect();
    let body = |body: &str| Some(body.to_owned());
    for who in &users {
        come(&net, 1, who, &room).await;
    }
    let mut events = vec![first.say(&room, "all were there").await];
    net.calm_down().await;
    for who in &users {
        go(&net, 1, who, &room).await;
    }
    // Each after another state: for each all are looked for.
    for n in 0..100 {
        events.push(first.set(&room, &user(0, 0), "test.state", "", json!({ "body": n })).await.expect("may"));
    }
    come(&net, 1, &users[59], &room).await;
    events.push(first.say(&room, "seen").await);
    events.reverse();
    let shown = first.shown(1, &room, &events).await;
    assert_eq!(shown[0], body("seen"));
    assert!((70..100).contains(&shown.len()), "{} are told", shown.len());
    assert_eq!(shown[1..], vec![None; shown.len() - 1], "of which it is known that the server may not see them");
    // Asked about from there on, it is told the others.
    let rest = first.shown(1, &room, &events[shown.len()..]).await;
    assert_eq!((shown.len() + rest.len(), rest.last()), (events.len(), Some(&body("all were there"))));
}

//! What an event costs on its way in and out. Goal: sealed in less than 60 µs.

use divan::{Bencher, black_box};
use hearth_matrix::{
    Draft, Level, Pdu, Place, PowerLevels, RoomVersionRules, SigningKey,
    client_format::{ClientFormat, write_event},
    push::PushEvent,
    rules,
    ruma::{EventId, OwnedEventId, RoomId, RoomVersionId, ServerName, UserId},
    seal, signatures,
};
use serde_json::json;

fn main() {
    divan::main();
}

fn v11() -> &'static RoomVersionRules {
    rules(&RoomVersionId::V11).unwrap()
}

fn draft() -> Draft {
    let content = json!({"msgtype": "m.text", "body": "Some words that a message might well have in it. ".repeat(5),
        "m.mentions": {"user_ids": ["@somebody:server.example"]}});
    Draft::message("m.room.message", serde_json::from_value(content).unwrap())
}

fn sealed(key: &SigningKey, draft: Draft, ids: &[OwnedEventId]) -> Pdu {
    let place = Place {
        room_id: Some(<&RoomId>::try_from("!abcdefghijklmnopqr:server.example").unwrap()),
        sender: <&UserId>::try_from("@somebody:server.example").unwrap(),
        prev_events: &ids[..1],
        auth_events: ids,
        depth: 1234,
        origin_server_ts: 1_700_000_000_000,
        server_name: <&ServerName>::try_from("server.example").unwrap(),
        v1: None,
    };
    seal(draft, &place, key, v11()).unwrap()
}

fn given() -> (SigningKey, Vec<OwnedEventId>) {
    let ids =
        ["a", "b", "c"].map(|letter| <&EventId>::try_from(&*format!("${}", letter.repeat(43))).unwrap().to_owned());
    (SigningKey::from_seed([1; 32], "a_1").unwrap(), ids.to_vec())
}

#[divan::bench]
fn seal_message(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    bencher.with_inputs(draft).bench_local_values(|draft| sealed(&key, draft, &ids));
}

#[divan::bench]
fn from_remote(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    let json = sealed(&key, draft(), &ids).json;
    bencher.bench_local(|| Pdu::from_remote(black_box(&json), v11()).unwrap());
}

#[divan::bench]
fn from_stored(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    let pdu = sealed(&key, draft(), &ids);
    bencher.bench_local(|| Pdu::from_stored(pdu.json.clone(), &pdu.event_id, &pdu.room_id, v11()).unwrap());
}

#[divan::bench]
fn verify(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    let pdu = sealed(&key, draft(), &ids);
    let public = key.public_key();
    bencher.bench_local(|| signatures::verify(&pdu, v11(), |_, _| Some(public)).unwrap());
}

#[divan::bench]
fn client_format(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    let pdu = sealed(&key, draft(), &ids);
    let mut out = String::with_capacity(4096);
    bencher.bench_local(|| {
        out.clear();
        write_event(&mut out, &pdu, v11(), ClientFormat { unsigned: "\"age\":5", ..ClientFormat::default() });
        black_box(out.len())
    });
}

#[divan::bench]
fn push_for_all_members(bencher: Bencher<'_, '_>) {
    let (key, ids) = given();
    let pdu = sealed(&key, draft(), &ids);
    let levels = PowerLevels::new(None, None, v11());
    assert_eq!(levels.invite(), Level::Finite(0));
    bencher.bench_local(|| PushEvent::new(&pdu, v11(), 5_000, &levels).for_anybody());
}

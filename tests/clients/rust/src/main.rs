//! Two users of matrix-rust-sdk talk in a room while their server is restarted, and then killed, under them.
//!
//! Each message must reach the other exactly once and in order, the one in flight when the server dies included, and
//! a fresh login must find all of them when it pages back to the start of the room.

mod person;
mod server;

use anyhow::{Result, ensure};
use matrix_sdk::{
    RoomMemberships, RoomState,
    ruma::{OwnedRoomId, api::client::room::create_room},
};

use person::{Person, page_back};
use server::{Server, until};

const MESSAGES_A_PART: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let mut server = Server::start().await?;
    let mut alice = Person::register("alice").await?;
    let mut bob = Person::register("bob").await?;
    let room_id = share_a_room(&alice, &bob).await?;

    let mut spoken = talk("first", &mut alice, &mut bob, &room_id).await?;

    server.restart().await?;
    spoken.extend(talk("after a restart", &mut alice, &mut bob, &room_id).await?);

    let in_flight = "sent as the server dies";
    let (sent, restarted) = tokio::join!(alice.say(&room_id, in_flight), server.crash());
    sent.and(restarted)?;
    spoken.push(in_flight.to_owned());
    spoken.extend(talk("after a crash", &mut alice, &mut bob, &room_id).await?);

    let found = page_back(&bob.user_id, &room_id).await?;
    ensure!(found == spoken, "paging back found {found:#?}\nbut sent were {spoken:#?}");
    println!("matrix-rust-sdk: {} messages, each once and in order, over a restart and a crash", spoken.len());
    server.stop().await
}

/// A room of Alice's that Bob has been invited to and has joined.
async fn share_a_room(alice: &Person, bob: &Person) -> Result<OwnedRoomId> {
    let mut request = create_room::v3::Request::new();
    request.preset = Some(create_room::v3::RoomPreset::PrivateChat);
    request.invite = vec![bob.user_id.clone()];
    let room_id = alice.client.create_room(request).await?.room_id().to_owned();
    until("bob sees the invite", || async {
        bob.client.get_room(&room_id).is_some_and(|room| room.state() == RoomState::Invited)
    })
    .await?;
    bob.room(&room_id)?.join().await?;
    for person in [alice, bob] {
        until("both see two members", || async {
            let Ok(room) = person.room(&room_id) else { return false };
            room.members_no_sync(RoomMemberships::JOIN).await.is_ok_and(|members| members.len() == 2)
        })
        .await?;
    }
    Ok(room_id)
}

/// Some messages each way, in turn; returns when both have all that the other ever said.
async fn talk(part: &str, alice: &mut Person, bob: &mut Person, room_id: &OwnedRoomId) -> Result<Vec<String>> {
    let spoken: Vec<String> = (1..=MESSAGES_A_PART).map(|n| format!("{part}, message {n}")).collect();
    for (n, body) in spoken.iter().enumerate() {
        let speaker = if n % 2 == 0 { &mut *alice } else { &mut *bob };
        speaker.say(room_id, body).await?;
    }
    alice.has_heard(bob).await?;
    bob.has_heard(alice).await?;
    Ok(spoken)
}

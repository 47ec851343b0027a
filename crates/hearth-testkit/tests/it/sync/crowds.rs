//! People who come into rooms of many: told from memory, and as the store would tell it.

use hearth_testkit::{json, on_each_backend};

use super::{Ask, bodies, caught_up, events, join, keys, part, public_room, send, sync, token};

const MEMBERS: usize = 10;

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_comes_into_a_crowd_is_counted_and_known() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = public_room(&alice).await;
        for n in 0..MEMBERS {
            join(&server.user(&format!("user{n}")).await, &room).await;
        }
        let (bob, filter) = (server.user("bob").await, json!({ "room": { "state": { "lazy_load_members": true } } }));
        let whole = caught_up(&alice).await;
        let lazy = token(&sync(&alice, Ask::default().filter(filter.clone())).await).to_owned();
        // Once from the store, so that this client is followed; then bob comes.
        let whole = token(&sync(&alice, Ask::since(&whole)).await).to_owned();
        join(&bob, &room).await;
        let answer = sync(&alice, Ask::since(&whole)).await;
        let told = part(&answer, "join", &room);
        assert_eq!(keys(&told["timeline"]), [("m.room.member", bob.user_id.as_str())]);
        assert!(events(&told["state"]).is_empty(), "{told}");
        assert_eq!(told["summary"]["m.joined_member_count"], json!(MEMBERS + 2));
        assert_eq!(told["summary"]["m.invited_member_count"], json!(0));
        // Who loads members where they are needed knows bob from his own event.
        let answer = sync(&alice, Ask::since(&lazy).filter(filter.clone())).await;
        let told = part(&answer, "join", &room);
        assert_eq!(keys(&told["timeline"]), [("m.room.member", bob.user_id.as_str())]);
        assert_eq!(told["summary"]["m.joined_member_count"], json!(MEMBERS + 2));
        send(&bob, &room, "1", "hello").await;
        let answer = sync(&alice, Ask::since(token(&answer)).filter(filter)).await;
        let told = part(&answer, "join", &room);
        assert_eq!(bodies(told), ["hello"]);
        assert!(events(&told["state"]).is_empty(), "{told}");
    })
    .await;
}

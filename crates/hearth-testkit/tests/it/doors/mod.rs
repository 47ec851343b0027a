//! Every endpoint of the client's door is knocked on: by strangers, by those who are not in the room, and by those who do not
//! know how to ask.

mod dice;
mod knocks;
mod mutations;
mod table;

use std::collections::BTreeSet;

use hearth_testkit::{TestServer, User, json};

/// Status and code.
type Refusal = (u16, &'static str);

/// Routes that no client asks for, and that have tests of their own.
const OF_OPERATORS: [&str; 3] = ["/health", "/ready", "/metrics"];

/// Whether only other servers ask there: those doors have tests of their own, too.
fn is_of_servers(path: &str) -> bool {
    path.starts_with("/_matrix/federation/")
        || path.starts_with("/_matrix/key/")
        || path == "/.well-known/matrix/server"
}

/// A house in which the doors are knocked on.
struct House {
    server: TestServer,
    /// May do everything in her room.
    alice: User,
    /// Was never in it.
    outsider: User,
    /// Was banned from it.
    banned: User,
    room: String,
    event: String,
    media: String,
}

impl House {
    async fn new() -> Self {
        let server = TestServer::start().await;
        let (alice, outsider) = (server.user("alice").await, server.user("outsider").await);
        let (banned, other) = (server.user("banned").await, server.user("other").await);
        let create = async |user: &User, body| {
            let (status, created) = user.post("/_matrix/client/v3/createRoom", &body).await;
            assert_eq!(status, 200, "{created}");
            created["room_id"].as_str().expect("a room id").to_owned()
        };
        let invited = json!([banned.user_id, other.user_id]);
        let room = create(&alice, json!({ "invite": invited, "room_alias_name": "taken" })).await;
        create(&other, json!({ "room_alias_name": "others" })).await;
        let path = |rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        assert_eq!(banned.post(&path("join"), &json!({})).await.0, 200);
        assert_eq!(alice.post(&path("ban"), &json!({ "user_id": banned.user_id })).await.0, 200);
        let text = json!({ "msgtype": "m.text", "body": "x" });
        let (_, sent) = alice.put(&path("send/m.room.message/first"), &text).await;
        let event = sent["event_id"].as_str().expect("an event id").to_owned();
        let file = alice.request("POST", "/_matrix/media/v3/upload").header("content-type", "image/png");
        let uploaded = file.body(&b"no picture"[..]).send().await.json();
        let media = uploaded["content_uri"].as_str().and_then(|uri| uri.rsplit('/').next()).expect("a URI").to_owned();
        Self { server, alice, outsider, banned, room, event, media }
    }

    /// A path or a body with all names filled in, as the user would.
    fn filled(&self, text: &str, user: &User) -> String {
        let names: [(&str, &str); 24] = [
            ("{roomId}", &self.room),
            ("{room}", &self.room),
            ("{roomIdOrAlias}", &self.room),
            ("{eventId}", &self.event),
            ("{userId}", &user.user_id),
            ("{other}", "@other:hearth.test"),
            ("{roomAlias}", "%23free:hearth.test"),
            ("{authType}", "m.login.dummy"),
            ("{deviceId}", &user.device_id),
            ("{eventType}", "m.room.topic"),
            ("{stateKey}", "key"),
            ("{txnId}", "txn"),
            ("{receiptType}", "m.read"),
            ("{relType}", "m.thread"),
            ("{filterId}", "0"),
            ("{kind}", "override"),
            ("{ruleId}", ".m.rule.master"),
            ("{type}", "org.example"),
            ("{tag}", "u.work"),
            ("{keyName}", "displayname"),
            ("{field}", "displayname"),
            ("{serverName}", "hearth.test"),
            ("{mediaId}", &self.media),
            ("{fileName}", "name.png"),
        ];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// A path without the names of its parameters, and `r0` as `v3`.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| match segment {
        "r0" => "v3",
        parameter if parameter.starts_with('{') => "{}",
        other => other,
    });
    segments.collect::<Vec<_>>().join("/")
}

#[test]
fn every_route_is_in_the_table() {
    let routes = hearth_api::routes();
    let served: BTreeSet<(&str, String)> = routes
        .iter()
        .filter(|route| !OF_OPERATORS.contains(&route.path.as_str()) && !is_of_servers(&route.path))
        .map(|route| (route.method.as_str(), shape(&route.path)))
        .collect();
    let rows = table::rows();
    let listed: BTreeSet<(&str, String)> = rows.iter().map(|row| (row.method, shape(row.path))).collect();
    assert_eq!(listed.len(), rows.len(), "a row stands there twice");
    let missing: Vec<_> = served.difference(&listed).collect();
    let too_many: Vec<_> = listed.difference(&served).collect();
    assert!(missing.is_empty() && too_many.is_empty(), "no row: {missing:#?}, no route: {too_many:#?}");
}

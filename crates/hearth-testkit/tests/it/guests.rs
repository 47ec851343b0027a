//! Guests: where they may go, how they stay, and when they must leave. And what newcomers must accept.

use hearth_testkit::{Settings, TestServer, User, Value, json, on_each_backend_with};

const REGISTER: &str = "/_matrix/client/v3/register";

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

fn guests_welcome(settings: &mut Settings) {
    settings.registration.guests = true;
}

async fn guest(server: &TestServer, known: &User) -> User {
    let (status, guest) = server.post(&format!("{REGISTER}?kind=guest"), &json!({})).await;
    assert_eq!(status, 200, "{guest}");
    let text = |field: &str| guest[field].as_str().expect("a string").to_owned();
    let mut session = known.with_session(&text("access_token"), &text("device_id"));
    session.user_id = text("user_id");
    session
}

async fn room(user: &User, guest_access: &str) -> String {
    let body = json!({ "preset": "public_chat", "initial_state": [
        { "type": "m.room.guest_access", "state_key": "", "content": { "guest_access": guest_access } },
    ] });
    let (status, created) = user.post("/_matrix/client/v3/createRoom", &body).await;
    assert_eq!(status, 200, "{created}");
    created["room_id"].as_str().expect("a room id").to_owned()
}

#[tokio::test]
async fn guests_enter_only_where_guests_may_and_leave_when_they_may_no_more() {
    on_each_backend_with(guests_welcome, async |server| {
        let alice = server.user("alice").await;
        let guest = guest(&server, &alice).await;
        let (open, closed) = (room(&alice, "can_join").await, room(&alice, "forbidden").await);
        let of = |room: &str, rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        let forbidden = (403, "M_GUEST_ACCESS_FORBIDDEN");
        assert_eq!(refused(&guest.post(&of(&closed, "join"), &json!({})).await), forbidden);
        let myself = of(&closed, &format!("state/m.room.member/{}", guest.user_id));
        assert_eq!(refused(&guest.put(&myself, &json!({ "membership": "join" })).await), forbidden);
        assert_eq!(guest.post(&of(&open, "join"), &json!({})).await.0, 200);
        let hello = json!({ "msgtype": "m.text", "body": "hello" });
        assert_eq!(guest.put(&of(&open, "send/m.room.message/1"), &hello).await.0, 200);
        for (method, path) in [
            ("POST", of(&open, "invite")),
            ("POST", "/_matrix/client/v3/createRoom".to_owned()),
            ("POST", "/_matrix/client/v3/account/password".to_owned()),
            ("POST", "/_matrix/client/v3/account/deactivate".to_owned()),
            ("GET", "/_matrix/client/v3/pushrules/".to_owned()),
            ("PUT", format!("/_matrix/client/v3/user/{}/account_data/a", guest.user_id)),
        ] {
            let answer = guest.request(method, &path).json(&json!({})).send().await;
            assert_eq!(answer.refusal(), (403, forbidden.1.to_owned()), "{method} {path}");
        }

        let access = of(&open, "state/m.room.guest_access");
        assert_eq!(alice.put(&access, &json!({ "guest_access": "forbidden" })).await.0, 200);
        let member = of(&open, &format!("state/m.room.member/{}", guest.user_id));
        assert_eq!(alice.get(&member).await.1["membership"], "leave");
        assert_eq!(refused(&guest.post(&of(&open, "join"), &json!({})).await), forbidden);
        assert_eq!(alice.get(&of(&open, "joined_members")).await.1["joined"].as_object().map(|all| all.len()), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_guest_becomes_a_user_and_keeps_what_is_his() {
    on_each_backend_with(guests_welcome, async |server| {
        let alice = server.user("alice").await;
        let guest = guest(&server, &alice).await;
        let open = room(&alice, "can_join").await;
        assert_eq!(guest.post(&format!("/_matrix/client/v3/rooms/{open}/join"), &json!({})).await.0, 200);
        let name = guest.user_id.trim_start_matches('@').split(':').next().expect("a localpart");
        let wish = |name: Option<&str>, token: &str| {
            let mut body = json!({ "password": "correct horse battery staple", "guest_access_token": token,
                                   "auth": { "type": "m.login.dummy" } });
            if let Some(name) = name {
                body["username"] = name.into();
            }
            body
        };
        for (name, token) in [
            (Some("other"), &*guest.access_token),
            (None, &*guest.access_token),
            (Some("alice"), &*alice.access_token),
            (Some(name), "nonsense"),
        ] {
            assert_eq!(refused(&server.post(REGISTER, &wish(name, token)).await), (403, "M_FORBIDDEN"));
        }
        let (status, registered) = server.post(REGISTER, &wish(Some(name), &guest.access_token)).await;
        assert_eq!((status, &registered["user_id"]), (200, &json!(guest.user_id)), "{registered}");

        let (_, me) = guest.get("/_matrix/client/v3/account/whoami").await;
        assert_eq!(me["is_guest"], false);
        let user = server.login(&guest).await;
        assert_eq!(user.get("/_matrix/client/v3/joined_rooms").await.1, json!({ "joined_rooms": [open] }));
        assert_eq!(user.get("/_matrix/client/v3/pushrules/").await.0, 200);
        assert_eq!(refused(&server.post(REGISTER, &wish(Some(name), &guest.access_token)).await), (403, "M_FORBIDDEN"));
    })
    .await;
}

#[tokio::test]
async fn newcomers_accept_the_documents_that_the_settings_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hearth.toml");
    std::fs::write(
        &file,
        "[registration.terms.terms_of_service]\nversion = \"1.2\"\n\
         en = { name = \"Terms\", url = \"https://example.org/en\" }\n\
         fr = { name = \"Conditions\", url = \"https://example.org/fr\" }\n",
    )
    .unwrap();
    let sources = hearth::settings::Sources { file: Some(file), ..Default::default() };
    let terms = sources.load().unwrap().registration.terms;
    let server = TestServer::start_with(|settings| settings.registration.terms = terms.clone()).await;
    let mut body = json!({ "username": "alice", "password": "correct horse battery staple" });
    let (status, challenge) = server.post(REGISTER, &body).await;
    assert_eq!((status, &challenge["flows"]), (401, &json!([{ "stages": ["m.login.terms"] }])));
    let documents = json!({ "policies": { "terms_of_service": {
        "version": "1.2",
        "en": { "name": "Terms", "url": "https://example.org/en" },
        "fr": { "name": "Conditions", "url": "https://example.org/fr" },
    } } });
    assert_eq!(challenge["params"]["m.login.terms"], documents);
    let page = format!(
        "/_matrix/client/v3/auth/m.login.terms/fallback/web?session={}",
        challenge["session"].as_str().expect("a session")
    );
    assert!(server.request("GET", &page).send().await.text().contains("https://example.org/en"));
    body["auth"] = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    assert_eq!(server.post(REGISTER, &body).await.0, 401);
    body["auth"] = json!({ "type": "m.login.terms", "session": challenge["session"] });
    let (status, registered) = server.post(REGISTER, &body).await;
    assert_eq!((status, &registered["user_id"]), (200, &json!("@alice:hearth.test")), "{registered}");
}

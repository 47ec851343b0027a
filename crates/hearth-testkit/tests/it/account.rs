//! Registration, login, sessions.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend, on_each_backend_with};

const REGISTER: &str = "/_matrix/client/v3/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

fn wish(username: &str) -> Value {
    json!({ "username": username, "password": "sUp3rs3kr1t", "auth": { "type": "m.login.dummy" } })
}

fn by_password(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
}

async fn whoami(server: &TestServer, token: &Value) -> (u16, Value) {
    let token = token.as_str().expect("a token");
    let answer = server.request("GET", WHOAMI).token(token).send().await;
    (answer.status, answer.json())
}

// endpoint: POST /_matrix/client/v3/register
#[tokio::test]
async fn whoever_registers_is_asked_for_stages_first() {
    on_each_backend(async |server| {
        let (status, challenge) = server.post(REGISTER, &json!({})).await;
        assert_eq!(status, 401);
        assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.dummy"] }]));
        assert_eq!(challenge["params"], json!({}));
        assert!(challenge.get("completed").is_none() && challenge.get("errcode").is_none(), "{challenge}");

        // Clients learn the session before they know the name.
        let mut body = wish("user-UPPER");
        body["auth"]["session"] = challenge["session"].clone();
        body["device_id"] = "my_device_id".into();
        let (status, registered) = server.post(REGISTER, &body).await;
        assert_eq!((status, &registered["user_id"]), (200, &json!("@user-upper:hearth.test")));
        assert_eq!(registered["device_id"], "my_device_id");
        let (status, me) = whoami(&server, &registered["access_token"]).await;
        assert_eq!(status, 200);
        let user_id = "@user-upper:hearth.test";
        assert_eq!(me, json!({ "user_id": user_id, "device_id": "my_device_id", "is_guest": false }));
        let (_, profile) = server.get(&format!("/_matrix/client/v3/profile/{user_id}")).await;
        assert_eq!(profile, json!({ "displayname": "user-upper" }));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/register
#[tokio::test]
async fn what_can_not_be_registered_is_refused() {
    let server = TestServer::start().await;
    assert_eq!(server.post(REGISTER, &wish("alice")).await.0, 200);
    assert_eq!(refused(&server.post(REGISTER, &wish("alice")).await), (400, "M_USER_IN_USE"));
    assert_eq!(refused(&server.post(REGISTER, &wish("al ice")).await), (400, "M_INVALID_USERNAME"));
    assert_eq!(refused(&server.post(REGISTER, &wish("_alice")).await), (400, "M_INVALID_USERNAME"));
    let mut weak = wish("bob");
    weak["password"] = "x".into();
    assert_eq!(refused(&server.post(REGISTER, &weak).await), (400, "M_WEAK_PASSWORD"));
    let mut none = wish("bob");
    none.as_object_mut().unwrap().remove("password");
    assert_eq!(refused(&server.post(REGISTER, &none).await), (400, "M_MISSING_PARAM"));
    let mut wrong = wish("bob");
    wrong["auth"] = "me".into();
    assert_eq!(refused(&server.post(REGISTER, &wrong).await), (400, "M_BAD_JSON"));
    wrong["auth"] = json!({ "type": "m.login.recaptcha" });
    assert_eq!(refused(&server.post(REGISTER, &wrong).await), (401, "M_FORBIDDEN"));
    assert_eq!(refused(&server.post(REGISTER, &json!({ "username": 5 })).await), (400, "M_BAD_JSON"));
    assert_eq!(refused(&server.post(&format!("{REGISTER}?kind=robot"), &wish("bob")).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&server.post(&format!("{REGISTER}?kind=guest"), &wish("bob")).await), (403, "M_FORBIDDEN"));
    let mut bridge = wish("bob");
    bridge["type"] = "m.login.application_service".into();
    assert_eq!(server.post(REGISTER, &bridge).await.0, 401);
    let garbled = server.request("POST", REGISTER).body(&b"{ \"test\":\"a\x81\" }"[..]).send().await;
    assert_eq!(garbled.refusal(), (400, "M_NOT_JSON".to_owned()));
}

// endpoint: POST /_matrix/client/v3/register
#[tokio::test]
async fn an_account_can_be_made_without_a_session() {
    let server = TestServer::start().await;
    let mut quiet = wish("alice");
    quiet["inhibit_login"] = true.into();
    let (status, registered) = server.post(REGISTER, &quiet).await;
    assert_eq!((status, registered), (200, json!({ "user_id": "@alice:hearth.test" })));
}

// endpoint: POST /_matrix/client/v3/register
// endpoint: GET /_matrix/client/v3/register/available
// endpoint: GET /_matrix/client/v1/register/m.login.registration_token/validity
#[tokio::test]
async fn a_closed_server_takes_nobody() {
    let server = TestServer::start_with(|settings| settings.registration.enabled = false).await;
    assert_eq!(refused(&server.post(REGISTER, &wish("alice")).await), (403, "M_FORBIDDEN"));
    assert_eq!(refused(&server.get(&format!("{REGISTER}/available?username=alice")).await), (403, "M_FORBIDDEN"));
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=a";
    assert_eq!(refused(&server.get(validity).await), (403, "M_FORBIDDEN"));
}

// endpoint: POST /_matrix/client/v3/register
// endpoint: GET /_matrix/client/v1/register/m.login.registration_token/validity
#[tokio::test]
async fn a_registration_token_is_asked_for_where_it_is_required() {
    on_each_backend_with(
        |settings| settings.registration.token_required = true,
        async |server| {
            let token = hearth_store::RegistrationToken {
                token: "fBVFdqVE".to_owned(),
                uses_allowed: Some(1),
                completed: 0,
                expires_ts: None,
            };
            let accounts = &server.running().doors().accounts;
            assert!(accounts.create_registration_token(token).await.unwrap());
            let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=fBVFdqVE";
            assert_eq!(server.get(validity).await, (200, json!({ "valid": true })));

            let mut body = wish("alice");
            assert_eq!(server.post(REGISTER, &body).await.0, 401);
            body["auth"] = json!({ "type": "m.login.registration_token", "token": "wrong" });
            assert_eq!(refused(&server.post(REGISTER, &body).await), (401, "M_FORBIDDEN"));
            body["auth"]["token"] = "fBVFdqVE".into();
            assert_eq!(server.post(REGISTER, &body).await.0, 200);
            assert_eq!(server.get(validity).await, (200, json!({ "valid": false })));
        },
    )
    .await;
}

// endpoint: POST /_matrix/client/v3/register
#[tokio::test]
async fn guests_come_only_where_guests_may() {
    let server = TestServer::start_with(|settings| settings.registration.guests = true).await;
    let (status, guest) = server.post(&format!("{REGISTER}?kind=guest"), &json!({ "username": "ignored" })).await;
    assert_eq!(status, 200, "{guest}");
    let token = guest["access_token"].as_str().unwrap();
    let ask = async |method: &str, path: &str| {
        server.request(method, path).token(token).json(&json!({})).send().await.refusal()
    };
    assert_eq!(whoami(&server, &guest["access_token"]).await.1["is_guest"], true);
    assert_eq!(ask("GET", "/_matrix/client/v3/devices").await.0, 200);
    let forbidden = (403, "M_GUEST_ACCESS_FORBIDDEN".to_owned());
    assert_eq!(ask("GET", "/_matrix/client/v3/pushrules/").await, forbidden);
    assert_eq!(ask("POST", "/_matrix/client/v3/account/deactivate").await, forbidden);
    let me = guest["user_id"].as_str().unwrap();
    let avatar = format!("/_matrix/client/v3/profile/{me}/avatar_url");
    assert_eq!(ask("PUT", &avatar).await, (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(ask("POST", "/_matrix/client/v3/logout").await.0, 200);
}

// endpoint: GET /_matrix/client/v3/register/available
#[tokio::test]
async fn a_name_is_available_or_not() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let ask = async |name: &str| server.get(&format!("{REGISTER}/available?username={name}")).await;
    assert_eq!(ask("bob").await, (200, json!({ "available": true })));
    assert_eq!(refused(&ask("alice").await), (400, "M_USER_IN_USE"));
    assert_eq!(refused(&ask("a,b").await), (400, "M_INVALID_USERNAME"));
    assert_eq!(refused(&server.get(&format!("{REGISTER}/available")).await), (400, "M_MISSING_PARAM"));
}

fn mac(nonce: &str, username: &str, rights: &str) -> String {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(b"complement").unwrap();
    mac.update(format!("{nonce}\0{username}\0sUp3rs3kr1t\0{rights}").as_bytes());
    mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect()
}

// endpoint: GET /_synapse/admin/v1/register
// endpoint: POST /_synapse/admin/v1/register
#[tokio::test]
async fn whoever_knows_the_shared_secret_makes_accounts() {
    const PATH: &str = "/_synapse/admin/v1/register";
    let secret = |settings: &mut hearth_testkit::Settings| {
        settings.registration.enabled = false;
        settings.registration.shared_secret = Some(hearth::settings::Secret::new("complement"));
    };
    on_each_backend_with(secret, async |server| {
        let nonce = async || server.get(PATH).await.1["nonce"].as_str().expect("a nonce").to_owned();
        let body = |nonce: &str, username: &str, admin: bool| {
            let mac = mac(nonce, username, if admin { "admin" } else { "notadmin" });
            json!({ "nonce": nonce, "username": username, "password": "sUp3rs3kr1t", "mac": mac, "admin": admin })
        };
        let first = nonce().await;
        let (status, made) = server.post(PATH, &body(&first, "adminUser", true)).await;
        assert_eq!((status, &made["user_id"]), (200, &json!("@adminuser:hearth.test")), "{made}");
        assert_eq!(made["home_server"], "hearth.test");
        assert_eq!(whoami(&server, &made["access_token"]).await.0, 200);

        assert_eq!(server.post(PATH, &body(&first, "again", false)).await.0, 400);
        let mut forged = body(&nonce().await, "eve", false);
        forged["admin"] = true.into();
        assert_eq!(refused(&server.post(PATH, &forged).await), (403, "M_FORBIDDEN"));
        let bad_name = body(&nonce().await, "us,er", false);
        assert_eq!(refused(&server.post(PATH, &bad_name).await), (400, "M_INVALID_USERNAME"));
        assert_eq!(refused(&server.post(PATH, &json!({})).await), (400, "M_BAD_JSON"));
    })
    .await;
    let server = TestServer::start().await;
    assert_eq!(server.get(PATH).await.0, 400);
}

// endpoint: GET /_matrix/client/v3/login
#[tokio::test]
async fn the_ways_to_log_in_are_told() {
    let server = TestServer::start().await;
    let flows = json!([{ "type": "m.login.password" }, { "type": "m.login.token", "get_login_token": true }]);
    assert_eq!(server.get(LOGIN).await, (200, json!({ "flows": flows })));
}

// endpoint: POST /_matrix/client/v3/login
#[tokio::test]
async fn a_user_logs_in_by_id_or_localpart() {
    on_each_backend(async |server| {
        server.post(REGISTER, &wish("alice")).await;
        for name in ["alice", "@alice:hearth.test", "@ALICE:hearth.test"] {
            let (status, session) = server.post(LOGIN, &by_password(name, "sUp3rs3kr1t")).await;
            assert_eq!((status, &session["user_id"]), (200, &json!("@alice:hearth.test")), "{name}");
            assert_eq!(session["home_server"], "hearth.test");
            assert_eq!(whoami(&server, &session["access_token"]).await.0, 200);
        }
        let old = json!({ "type": "m.login.password", "user": "alice", "password": "sUp3rs3kr1t", "device_id": "OLD" });
        assert_eq!(server.post(LOGIN, &old).await.1["device_id"], "OLD");
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/login
#[tokio::test]
async fn who_is_not_known_does_not_come_in() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let forbidden = (403, "M_FORBIDDEN");
    assert_eq!(refused(&server.post(LOGIN, &by_password("alice", "wrong_password")).await), forbidden);
    assert_eq!(refused(&server.post(LOGIN, &by_password("i-dont-exist", "superuser")).await), forbidden);
    let by_mail = json!({
        "type": "m.login.password", "password": "x",
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "alice@example.org" },
    });
    assert_eq!(refused(&server.post(LOGIN, &by_mail).await), forbidden);
    let by_token = json!({ "type": "m.login.token", "token": alice.access_token });
    assert_eq!(refused(&server.post(LOGIN, &by_token).await), forbidden);

    let cases = [
        (json!({}), "M_BAD_JSON"),
        (json!({ "type": 5 }), "M_BAD_JSON"),
        (json!({ "type": "m.login.unknown" }), "M_UNKNOWN"),
        (json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "a" } }), "M_MISSING_PARAM"),
        (json!({ "type": "m.login.password", "password": "a" }), "M_MISSING_PARAM"),
        (json!({ "type": "m.login.password", "identifier": { "type": "x" }, "password": "a" }), "M_UNKNOWN"),
        (json!({ "type": "m.login.token" }), "M_MISSING_PARAM"),
    ];
    for (body, errcode) in cases {
        assert_eq!(refused(&server.post(LOGIN, &body).await), (400, errcode), "{body}");
    }
    assert_eq!(server.request("POST", LOGIN).body("{").send().await.refusal(), (400, "M_NOT_JSON".to_owned()));
}

// endpoint: POST /_matrix/client/v1/login/get_token
// endpoint: POST /_matrix/client/v3/login
#[tokio::test]
async fn a_signed_in_user_lets_another_device_in() {
    on_each_backend(async |server| {
        let (_, registered) = server.post(REGISTER, &wish("alice")).await;
        let token = registered["access_token"].as_str().unwrap();
        let get_token = async |auth: Value| {
            let request = server.request("POST", "/_matrix/client/v1/login/get_token").token(token);
            let answer = request.json(&auth).send().await;
            (answer.status, answer.json())
        };
        assert_eq!(get_token(json!({})).await.0, 401);
        let (status, made) = get_token(json!({ "auth": by_password("alice", "sUp3rs3kr1t") })).await;
        assert_eq!((status, &made["expires_in_ms"]), (200, &json!(120_000)), "{made}");
        let by_token = json!({ "type": "m.login.token", "token": made["login_token"] });
        let (status, session) = server.post(LOGIN, &by_token).await;
        assert_eq!((status, &session["user_id"]), (200, &registered["user_id"]));
        assert_ne!(session["device_id"], registered["device_id"]);
        assert_eq!(refused(&server.post(LOGIN, &by_token).await), (403, "M_FORBIDDEN"));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/refresh
#[tokio::test]
async fn an_expired_token_is_refreshed() {
    on_each_backend(async |server| {
        server.post(REGISTER, &wish("alice")).await;
        let mut login = by_password("alice", "sUp3rs3kr1t");
        login["refresh_token"] = true.into();
        let (_, session) = server.post(LOGIN, &login).await;
        let lifetime_ms = session["expires_in_ms"].as_i64().expect("a lifetime");
        assert_eq!(whoami(&server, &session["access_token"]).await.0, 200);
        server.time.advance(lifetime_ms);
        let expired = whoami(&server, &session["access_token"]).await;
        assert_eq!(refused(&expired), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(expired.1["soft_logout"], true);

        let refresh =
            async |token: &Value| server.post("/_matrix/client/v3/refresh", &json!({ "refresh_token": token })).await;
        let (status, fresh) = refresh(&session["refresh_token"]).await;
        assert_eq!(status, 200, "{fresh}");
        let me = whoami(&server, &fresh["access_token"]).await;
        assert_eq!((me.0, &me.1["device_id"]), (200, &session["device_id"]));
        // Shown a second time, the token has been stolen.
        assert_eq!(refused(&refresh(&session["refresh_token"]).await), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(whoami(&server, &fresh["access_token"]).await.0, 401);
        assert_eq!(refused(&refresh(&"nonsense".into()).await), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(refused(&refresh(&5.into()).await), (400, "M_BAD_JSON"));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/logout
// endpoint: POST /_matrix/client/v3/logout/all
// endpoint: GET /_matrix/client/v3/account/whoami
#[tokio::test]
async fn logout_ends_sessions() {
    on_each_backend(async |server| {
        let first = server.user("alice").await;
        let (second, third) = (server.login(&first).await, server.login(&first).await);
        let is_alive = async |user: &User| user.get(WHOAMI).await.0 == 200;
        assert!(is_alive(&first).await && is_alive(&second).await);

        assert_eq!(second.post("/_matrix/client/v3/logout", &json!({})).await, (200, json!({})));
        let gone = second.get(WHOAMI).await;
        assert_eq!((refused(&gone), &gone.1["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(false)));
        let (_, devices) = first.get("/_matrix/client/v3/devices").await;
        assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));

        // Clients send no body at all.
        let answer = first.request("POST", "/_matrix/client/v3/logout/all").send().await;
        assert_eq!(answer.status, 200);
        assert!(!is_alive(&first).await && !is_alive(&third).await);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/logout
// endpoint: GET /_matrix/client/v3/account/whoami
#[tokio::test]
async fn a_locked_user_may_only_leave() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.get(WHOAMI).await;
    let accounts = &server.running().doors().accounts;
    let id = hearth_matrix::ruma::user_id!("@alice:hearth.test");
    accounts.set_locked(id, true).await.unwrap();
    let locked = alice.get(WHOAMI).await;
    assert_eq!((refused(&locked), &locked.1["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)));
    assert_eq!(alice.post("/_matrix/client/v3/logout", &json!({})).await.0, 200);
}

// endpoint: POST /_matrix/client/v3/register
// endpoint: POST /_matrix/client/v3/login
#[tokio::test]
async fn sessions_and_stages_survive_a_restart() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (_, challenge) = server.post(REGISTER, &json!({})).await;
    server.restart().await;
    let alice = alice.at(server.target().clone());
    assert_eq!(alice.get(WHOAMI).await.0, 200);
    server.login(&alice).await;
    let mut body = wish("bob");
    body["auth"]["session"] = challenge["session"].clone();
    assert_eq!(server.post(REGISTER, &body).await.0, 200);
}

//! Devices, passwords, deactivation, and the interactive authentication before them.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend};

const DEVICES: &str = "/_matrix/client/v3/devices";
const PASSWORD: &str = "/_matrix/client/v3/account/password";
const DEACTIVATE: &str = "/_matrix/client/v3/account/deactivate";
const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

fn auth(user: &User, password: &str) -> Value {
    let identifier = json!({ "type": "m.id.user", "user": user.user_id });
    json!({ "type": "m.login.password", "identifier": identifier, "password": password })
}

async fn register(server: &TestServer, localpart: &str, password: &str) -> User {
    let user = server.user(localpart).await;
    let id = hearth_matrix::ruma::UserId::parse(user.user_id.as_str()).unwrap();
    let password = hearth_account::Secret::new(password);
    server.running().doors().accounts.reset_password(&id, &password, false).await.unwrap();
    user
}

async fn login(server: &TestServer, user: &User, password: &str) -> (u16, Value) {
    let identifier = json!({ "type": "m.id.user", "user": user.user_id });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    server.post("/_matrix/client/v3/login", &body).await
}

async fn whoami(server: &TestServer, session: &Value) -> u16 {
    let token = session["access_token"].as_str().expect("a token");
    server.request("GET", WHOAMI).token(token).send().await.status
}

// endpoint: GET /_matrix/client/v3/devices
// endpoint: GET /_matrix/client/v3/devices/{deviceId}
// endpoint: PUT /_matrix/client/v3/devices/{deviceId}
#[tokio::test]
async fn devices_are_shown_and_renamed() {
    on_each_backend(async |server| {
        let alice = register(&server, "alice", "superuser").await;
        let login = json!({
            "type": "m.login.password", "user": "alice", "password": "superuser",
            "device_id": "login_device", "initial_device_display_name": "device display",
        });
        assert_eq!(server.post("/_matrix/client/v3/login", &login).await.0, 200);
        let path = format!("{DEVICES}/login_device");
        let (status, device) = alice.get(&path).await;
        assert_eq!((status, &device["display_name"]), (200, &json!("device display")));
        assert_eq!(alice.put(&path, &json!({ "display_name": "new" })).await, (200, json!({})));
        let (_, devices) = alice.get(DEVICES).await;
        let devices = devices["devices"].as_array().expect("devices");
        let named = |id: &str| devices.iter().find(|device| device["device_id"] == id).expect("the device");
        assert_eq!(named("login_device")["display_name"], "new");
        let mine = named(&alice.device_id);
        assert_eq!((&mine["last_seen_ip"], mine["last_seen_ts"].is_i64()), (&json!("127.0.0.1"), true));

        let unknown = format!("{DEVICES}/unknown_device");
        assert_eq!(refused(&alice.get(&unknown).await), (404, "M_NOT_FOUND"));
        assert_eq!(refused(&alice.put(&unknown, &json!({ "display_name": "x" })).await), (404, "M_NOT_FOUND"));
        assert_eq!(refused(&alice.put(&path, &json!({ "display_name": 5 })).await), (400, "M_BAD_JSON"));
        let long = json!({ "display_name": "x".repeat(1000) });
        assert_eq!(refused(&alice.put(&path, &long).await), (413, "M_TOO_LARGE"));
        let bob = server.user("bob").await;
        assert_eq!(refused(&bob.get(&path).await), (404, "M_NOT_FOUND"));
    })
    .await;
}

// endpoint: DELETE /_matrix/client/v3/devices/{deviceId}
#[tokio::test]
async fn a_device_is_deleted_by_whoever_shows_his_password() {
    on_each_backend(async |server| {
        let alice = register(&server, "alice", "superuser").await;
        let bob = register(&server, "bob", "bobspassword").await;
        let (_, other) = login(&server, &alice, "superuser").await;
        let path = format!("{DEVICES}/{}", other["device_id"].as_str().unwrap());
        let delete = async |body: Option<Value>| {
            let request = alice.request("DELETE", &path);
            let answer = body.map_or(request.clone(), |auth| request.json(&json!({ "auth": auth }))).send().await;
            (answer.status, answer.json())
        };
        let (status, challenge) = delete(None).await;
        assert_eq!((status, &challenge["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
        assert!(challenge["params"].is_object() && challenge["session"].is_string());

        let wrong = delete(Some(auth(&alice, "super-wrong-password"))).await;
        assert_eq!(refused(&wrong), (401, "M_FORBIDDEN"));
        assert!(wrong.1["params"].is_object() && wrong.1["session"].is_string() && wrong.1["flows"].is_array());
        assert_eq!(refused(&delete(Some(auth(&bob, "bobspassword"))).await), (403, "M_FORBIDDEN"));
        assert_eq!(alice.get(&path).await.0, 200);

        let mut right = auth(&alice, "superuser");
        right["session"] = challenge["session"].clone();
        assert_eq!(delete(Some(right)).await, (200, json!({})));
        assert_eq!(alice.get(&path).await.0, 404);
        assert_eq!(whoami(&server, &other).await, 401);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/delete_devices
#[tokio::test]
async fn a_session_is_good_for_one_request_only() {
    on_each_backend(async |server| {
        let alice = register(&server, "alice", "superuser").await;
        let (_, other) = login(&server, &alice, "superuser").await;
        let path = "/_matrix/client/v3/delete_devices";
        let mut body = json!({ "devices": [other["device_id"]] });
        let (status, challenge) = alice.post(path, &body).await;
        assert_eq!(status, 401);
        body["auth"] = auth(&alice, "superuser");
        body["auth"]["session"] = challenge["session"].clone();

        let mut changed = body.clone();
        changed["devices"] = json!([alice.device_id]);
        assert_eq!(refused(&alice.post(path, &changed).await), (403, "M_FORBIDDEN"));
        assert_eq!(refused(&alice.post(DEACTIVATE, &body).await), (403, "M_FORBIDDEN"));
        // The old name of the same path is the same request.
        assert_eq!(alice.post("/_matrix/client/r0/delete_devices", &body).await.0, 200);
        assert_eq!(whoami(&server, &other).await, 401);
        assert_eq!(alice.post(path, &body).await.0, 401);
        assert_eq!(refused(&alice.post(path, &json!({})).await), (400, "M_BAD_JSON"));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/account/password
#[tokio::test]
async fn a_password_is_changed() {
    on_each_backend(async |server| {
        let alice = register(&server, "alice", "superuser").await;
        let (_, other) = login(&server, &alice, "superuser").await;
        let weak = json!({ "new_password": "x", "auth": auth(&alice, "superuser") });
        assert_eq!(refused(&alice.post(PASSWORD, &weak).await), (400, "M_WEAK_PASSWORD"));
        assert_eq!(alice.post(PASSWORD, &json!({ "new_password": "my_new_password" })).await.0, 401);
        let body = json!({ "new_password": "my_new_password", "auth": auth(&alice, "superuser") });
        assert_eq!(alice.post(PASSWORD, &body).await, (200, json!({})));
        assert_eq!(refused(&login(&server, &alice, "superuser").await), (403, "M_FORBIDDEN"));
        assert_eq!(alice.get(WHOAMI).await.0, 200);
        assert_eq!(whoami(&server, &other).await, 401);

        let (status, other) = login(&server, &alice, "my_new_password").await;
        assert_eq!(status, 200);
        let body = json!({
            "new_password": "new_optional_password", "logout_devices": false, "auth": auth(&alice, "my_new_password"),
        });
        assert_eq!(alice.post(PASSWORD, &body).await.0, 200);
        assert_eq!(whoami(&server, &other).await, 200);
        let none = json!({ "auth": auth(&alice, "new_optional_password") });
        assert_eq!(refused(&alice.post(PASSWORD, &none).await), (400, "M_MISSING_PARAM"));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/account/deactivate
#[tokio::test]
async fn an_account_is_deactivated() {
    on_each_backend(async |server| {
        let alice = register(&server, "alice", "superuser").await;
        let (status, challenge) = alice.post(DEACTIVATE, &json!({})).await;
        assert_eq!((status, &challenge["flows"][0]["stages"][0]), (401, &json!("m.login.password")));
        let wrong = json!({ "auth": auth(&alice, "wrong_password") });
        assert_eq!(refused(&alice.post(DEACTIVATE, &wrong).await), (401, "M_FORBIDDEN"));

        let (status, done) = alice.post(DEACTIVATE, &json!({ "auth": auth(&alice, "superuser"), "erase": true })).await;
        assert_eq!((status, done), (200, json!({ "id_server_unbind_result": "success" })));
        assert_eq!(refused(&login(&server, &alice, "superuser").await), (403, "M_USER_DEACTIVATED"));
        assert_eq!(refused(&alice.get(WHOAMI).await), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(server.get(&format!("/_matrix/client/v3/profile/{}", alice.user_id)).await.0, 404);
        let again = json!({ "username": "alice", "password": "superuser" });
        assert_eq!(refused(&server.post("/_matrix/client/v3/register", &again).await), (400, "M_USER_IN_USE"));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/account/3pid
#[tokio::test]
async fn accounts_have_no_addresses() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.get("/_matrix/client/v3/account/3pid").await, (200, json!({ "threepids": [] })));
}

// endpoint: GET /_matrix/client/v3/auth/{authType}/fallback/web
// endpoint: POST /_matrix/client/v3/auth/{authType}/fallback/web
#[tokio::test]
async fn a_stage_is_passed_on_a_page() {
    let server = TestServer::start().await;
    let alice = register(&server, "alice", "superuser").await;
    let (_, challenge) = alice.post(DEACTIVATE, &json!({})).await;
    let session = challenge["session"].as_str().expect("a session");
    let path = format!("/_matrix/client/v3/auth/m.login.password/fallback/web?session={session}");

    let page = server.request("GET", &path).send().await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("<form method=\"post\""));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    let wrong = server.request("POST", &path).body("user=alice&password=wrong").send().await;
    assert!(wrong.text().contains("Invalid password") && wrong.text().contains("<form"));
    let right = server.request("POST", &path).body("user=alice&password=superuser").send().await;
    assert!(right.text().contains("onAuthDone"));
    assert_eq!(alice.post(DEACTIVATE, &json!({ "auth": { "session": session } })).await.0, 200);

    let elsewhere = path.replace(session, "nonsense");
    assert!(!server.request("GET", &elsewhere).send().await.text().contains("<form"));
    let unknown = "/_matrix/client/v3/auth/m.login.recaptcha/fallback/web?session=x";
    assert_eq!(server.request("GET", unknown).send().await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    let none = "/_matrix/client/v3/auth/m.login.dummy/fallback/web";
    assert_eq!(server.request("GET", none).send().await.refusal(), (400, "M_MISSING_PARAM".to_owned()));
}

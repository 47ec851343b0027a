//! Why a message has not arrived at another server: what `hearth admin federation status` and `hearth doctor federation` tell.

use hearth_testkit::{Federation, TestServer, on_each_backend_together};

use super::*;

async fn local(server: &TestServer, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = hearth_api::ask_local_door(server.running().doors(), "POST", path, body.to_string()).await;
    (status, serde_json::from_slice(&answer).expect("JSON"))
}

async fn status_of(federation: &Federation, server: Option<String>) -> Vec<Value> {
    let (status, told) = local(&federation.servers[0], "/federation/status", json!({ "server": server })).await;
    assert_eq!(status, 200, "{told}");
    told["servers"].as_array().expect("a list").clone()
}

fn sentences(status: &Value) -> String {
    let all = status["sentences"].as_array().expect("sentences").iter();
    all.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_server_that_is_away_is_explained_and_looked_into() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let there = federation.name(1);
        let unknown = &status_of(&federation, Some(there.clone())).await[0];
        assert!(sentences(unknown).contains("in no room of this server"), "{unknown}");
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let first = send(&alice, &room, "first").await;
        arrives(&bob, &room, &first).await;
        until("nobody lacks anything", async || status_of(&federation, None).await.is_empty()).await;
        federation.links[1].cut();
        let lacking = send(&alice, &room, "can you hear me?").await;
        let status = async || status_of(&federation, Some(there.clone())).await.remove(0);
        until("it is known to be away", async || status().await["failures"] == json!(1)).await;
        federation.time.advance(3_000);
        let status = status().await;
        assert_eq!((&status["events_behind"], &status["behind_ms"]), (&json!(1), &json!(3_000)), "{status}");
        assert_eq!(status["rooms"], json!([room]));
        let text = sentences(&status);
        for part in
            ["lacks 1 event, the oldest sent 3 seconds ago", "has not answered for 3 seconds", "Last:", "is left alone"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let listed = status_of(&federation, None).await;
        assert_eq!(listed.iter().map(|status| &status["server"]).collect::<Vec<_>>(), [&json!(there)]);
        // The doctor ends the wait, once it gets through. The clock stands still.
        let doctor = async || local(&federation.servers[0], "/federation/doctor", json!({ "server": there })).await.1;
        let bad = |told: &Value| told["steps"].as_array().expect("steps").iter().any(|step| step["verdict"] == "bad");
        let told = doctor().await;
        assert!(bad(&told), "{told}");
        federation.links[1].heal();
        let told = doctor().await;
        assert!(!bad(&told), "{told}");
        arrives(&bob, &room, &lacking).await;
    })
    .await;
}

/// What a page of metrics says of a label's value, by metric.
async fn measured(server: &TestServer, label: &str) -> Vec<(String, f64)> {
    let page = server.request("GET", "/metrics").send().await.text();
    let lines = page.lines().filter_map(|line| line.split_once(&format!("{{{label}}} ")));
    lines.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

// endpoint: GET /metrics
#[tokio::test]
async fn servers_and_rooms_that_lag_are_measured_as_long_as_they_do() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let here = &federation.servers[0];
        let (destination, in_room) = (format!("destination=\"{}\"", federation.name(1)), format!("room=\"{room}\""));
        // The two don't hear each other, and a third passes on what can't be judged without what came before.
        federation.links[..2].iter().for_each(|link| link.cut());
        let unheard = send(&alice, &room, "can you hear me?").await;
        send(&bob, &room, "before").await;
        let after = send(&bob, &room, "after").await;
        let passed_on = pdu(&federation, 1, &room, &after).await;
        for (from, to) in [(0, 1), (1, 0)] {
            until("the other is known to be away", async || {
                let name = hearth_matrix::ruma::ServerName::parse(federation.name(to)).expect("a server name");
                let known = federation.servers[from].running().doors().remote.destination(&name).await;
                known.expect("the store answers").is_some_and(|known| known.failures > 0)
            })
            .await;
        }
        federation.links[0].heal();
        assert_eq!(transaction(&federation, 2, 0, "p", json!([passed_on]), json!([])).await.0, 200);
        federation.time.advance(12_000);
        until("both are measured", async || {
            let of_server = measured(here, &destination).await;
            let of_room = measured(here, &in_room).await;
            let is = |of: &[(String, f64)], name: &str, what: &dyn Fn(f64) -> bool| {
                of.iter().any(|(known, value)| known == name && what(*value))
            };
            is(&of_server, "hearth_delivery_destination_lacking_events", &|events| events == 1.0)
                && is(&of_server, "hearth_delivery_destination_failures", &|failures| failures >= 1.0)
                && is(&of_server, "hearth_delivery_destination_behind_seconds", &|seconds| seconds >= 12.0)
                && is(&of_room, "hearth_room_staged_events", &|events| events == 1.0)
                && is(&of_room, "hearth_room_staged_oldest_seconds", &|seconds| seconds >= 12.0)
        })
        .await;
        federation.links[1].heal();
        federation.time.advance(3_600_000);
        arrives(&bob, &room, &unheard).await;
        arrives(&alice, &room, &after).await;
        until("neither is named any more", async || {
            measured(here, &destination).await.is_empty() && measured(here, &in_room).await.is_empty()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn settings_that_forbid_a_server_are_named() {
    let server = TestServer::start_with(|settings| {
        settings.federation.denied_servers = vec!["denied.test".to_owned()];
    })
    .await;
    let (_, told) = local(&server, "/federation/status", json!({ "server": "denied.test" })).await;
    assert!(sentences(&told["servers"][0]).contains("`federation.denied_servers` names it"), "{told}");
    let (_, told) = local(&server, "/federation/doctor", json!({ "server": "denied.test" })).await;
    assert_eq!(told["steps"][0]["verdict"], json!("bad"));
    let (status, _) = local(&server, "/federation/status", json!({ "server": "no name" })).await;
    assert_eq!(status, 400);
}

//! What other servers answer.

use hearth_fuzz::fuzz_json;

use super::*;

const EVENT: &str = r#"{"type":"m.room.member","room_id":"!r:one.test","content":{"membership":"join"},"depth":1.5}"#;

#[test]
fn answers_of_other_servers() {
    let good = [
        format!(r#"{{"pdus":[{EVENT},{EVENT}],"auth_chain":[{EVENT}],"origin":"one.test"}}"#),
        format!(r#"{{"events":[{EVENT}],"auth_chain_ids":["$a"],"pdu_ids":["$b","$c:one.test"]}}"#),
        format!(r#"{{"room_version":"11","event":{EVENT}}}"#),
        format!(r#"{{"state":[{EVENT}],"auth_chain":[{EVENT}],"event":{EVENT},"members_omitted":false}}"#),
        format!(r#"[200,{{"state":[],"auth_chain":[],"knock_room_state":[{EVENT}],"event":{EVENT}}}]"#),
        r##"{"room_id":"!r:one.test","servers":["one.test","[::1]:8448"]}"##.to_owned(),
    ];
    let good: Vec<&str> = good.iter().map(String::as_str).collect();
    fuzz_json("answers of other servers", &good, |text| {
        fn is_there(text: &str, events: impl IntoIterator<Item = String>) {
            for event in events {
                assert!(text.contains(&event), "{event} was never said");
                serde_json::from_str::<&RawValue>(&event).expect("an event is JSON");
            }
        }
        let body = text.as_bytes();
        is_there(text, read::<Pdus>(body).into_iter().flat_map(|Pdus { pdus }| at_most(pdus, 1)));
        is_there(text, read::<Missing>(body).into_iter().flat_map(|Missing { events }| texts(events.taken())));
        is_there(text, read::<State>(body).into_iter().flat_map(|state| texts(state.pdus.taken())));
        is_there(text, read::<AuthChain>(body).into_iter().flat_map(|chain| texts(chain.auth_chain.taken())));
        is_there(text, read::<Made>(body).map(|made| Template::from(made).event));
        is_there(text, read::<Invited>(body).map(|Invited { event }| super::text(event)));
        let joined = read::<SentJoin>(body).or_else(|_| read::<(u16, SentJoin)>(body).map(|(_, answer)| answer));
        is_there(text, joined.into_iter().flat_map(|joined| texts(joined.state.taken())));
        is_there(text, read::<SentKnock>(body).into_iter().flat_map(|knock| texts(knock.knock_room_state.taken())));
        let _ = (read::<StateIds>(body), read::<Directory>(body), read::<Nothing>(body));
    });
}

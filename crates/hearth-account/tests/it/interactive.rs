//! Interactive authentication: stages, sessions, and what they are bound to.

use hearth_account::interactive::FallbackOutcome;
use hearth_account::{Attempt, Challenge, InteractiveError, RegisterError, Registered, Stage};
use serde_json::{Map, Value, json};

use crate::{House, PASSWORD, attempt, object, shown_password, wish};

fn challenge(outcome: Result<Registered, RegisterError>) -> Challenge {
    match outcome {
        Err(RegisterError::Interactive(InteractiveError::Required(challenge))) => *challenge,
        other => panic!("no challenge: {other:?}"),
    }
}

async fn with_terms() -> House {
    House::with(|options| {
        options.terms = Some(object(json!({ "tos": { "version": "1", "en": { "name": "T", "url": "https://x/" } } })));
        options.token_required = true;
    })
    .await
}

#[tokio::test]
async fn stages_are_passed_in_order() {
    let house = with_terms().await;
    let token =
        hearth_store::RegistrationToken { token: "abc".to_owned(), uses_allowed: None, completed: 0, expires_ts: None };
    house.accounts.create_registration_token(token).await.unwrap();

    let first = challenge(house.accounts.register(&attempt(Value::Null), wish()).await);
    assert_eq!(first.flows, [[Stage::RegistrationToken, Stage::Terms]]);
    assert_eq!(first.completed, []);
    assert_eq!(first.params["m.login.terms"]["policies"]["tos"]["version"], "1");
    assert_eq!(first.error, None);

    let session = first.session.as_str();
    let terms = || attempt(json!({ "type": "m.login.terms", "session": session }));
    let early = challenge(house.accounts.register(&terms(), wish()).await);
    assert_eq!((early.session.as_str(), early.completed.len()), (session, 0));
    assert!(early.error.is_some());

    let token = attempt(json!({ "type": "m.login.registration_token", "token": "abc", "session": session }));
    let second = challenge(house.accounts.register(&token, wish()).await);
    assert_eq!((second.completed, second.error), (vec![Stage::RegistrationToken], None));
    // A stage that is passed is not tried again.
    let wrong = attempt(json!({ "type": "m.login.registration_token", "token": "wrong", "session": session }));
    assert_eq!(challenge(house.accounts.register(&wrong, wish()).await).error, None);

    house.accounts.register(&terms(), wish()).await.unwrap();
    // The session is used up.
    let spent = challenge(house.accounts.register(&terms(), wish()).await);
    assert_ne!(spent.session, session);
}

#[tokio::test]
async fn a_session_lets_only_its_request_through() {
    let house = House::open().await;
    let alice = house.user("alice").await;
    let alice = house.must_be(&alice).await;
    let request = |path: &str, body: Value, auth: Value| {
        let auth = (!auth.is_null()).then(|| object(auth));
        Attempt::new("POST", path, Some(&alice.user_id), &object(body), auth)
    };
    let one = json!({ "devices": ["ONE"] });
    let asked =
        house.accounts.delete_devices(&request("/delete_devices", one.clone(), json!(null)), &alice, vec![]).await;
    let Err(InteractiveError::Required(challenge)) = asked else { panic!("{asked:?}") };
    let auth = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD, "session": challenge.session,
    });
    for (path, body) in [("/delete_devices", json!({ "devices": ["OTHER"] })), ("/account/deactivate", one.clone())] {
        let refused = house.accounts.delete_devices(&request(path, body, auth.clone()), &alice, vec![]).await;
        assert!(matches!(refused, Err(InteractiveError::OtherRequest)), "{refused:?}");
    }
    house.accounts.delete_devices(&request("/delete_devices", one, auth), &alice, vec![]).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_s_password_counts() {
    let house = House::open().await;
    let alice = house.user("alice").await;
    let alice = house.must_be(&alice).await;
    house.user("bob").await;
    let refused = house.accounts.delete_devices(&shown_password("@bob:hs1", PASSWORD), &alice, vec![]).await;
    assert!(matches!(refused, Err(InteractiveError::OtherUser)));
    let refused = house.accounts.delete_devices(&shown_password("alice", "wrong"), &alice, vec![]).await;
    let Err(InteractiveError::Required(challenge)) = refused else { panic!("{refused:?}") };
    assert_eq!(challenge.error.unwrap().0, "M_FORBIDDEN");
    assert_eq!(challenge.flows, [[Stage::Password]]);
}

#[tokio::test]
async fn sessions_expire() {
    let house = House::open().await;
    let asked = challenge(house.accounts.register(&attempt(Value::Null), wish()).await);
    house.time.advance(60 * 60 * 1000);
    let late = attempt(json!({ "type": "m.login.dummy", "session": asked.session }));
    let again = challenge(house.accounts.register(&late, wish()).await);
    assert_ne!(again.session, asked.session);
    assert_eq!(again.error.unwrap().0, "M_UNKNOWN");
    house.accounts.keep_house_once().await.unwrap();
}

#[tokio::test]
async fn a_stage_can_be_passed_on_a_page() {
    let house = House::open().await;
    let asked = challenge(house.accounts.register(&attempt(Value::Null), wish()).await);
    let session = asked.session.as_str();
    let page = |stage| house.accounts.fallback_try(session, stage, Map::new());
    assert_eq!(page(Stage::Terms).await.unwrap(), FallbackOutcome::NotOffered);
    assert_eq!(
        house.accounts.fallback_try("nonsense", Stage::Dummy, Map::new()).await.unwrap(),
        FallbackOutcome::NotOffered
    );
    assert_eq!(page(Stage::Dummy).await.unwrap(), FallbackOutcome::Passed);
    assert_eq!(page(Stage::Dummy).await.unwrap(), FallbackOutcome::Passed);
    house.accounts.register(&attempt(json!({ "session": session })), wish()).await.unwrap();
}

#[tokio::test]
async fn a_password_shown_on_a_page_must_be_the_owner_s() {
    let house = House::open().await;
    let alice = house.user("alice").await;
    let alice = house.must_be(&alice).await;
    house.user("bob").await;
    let request = |auth: Value| attempt(auth);
    let asked = house.accounts.delete_devices(&request(json!(null)), &alice, vec![]).await;
    let Err(InteractiveError::Required(challenge)) = asked else { panic!("{asked:?}") };
    let form = object(json!({ "user": "bob", "password": PASSWORD }));
    let outcome = house.accounts.fallback_try(&challenge.session, Stage::Password, form).await.unwrap();
    assert_eq!(outcome, FallbackOutcome::Passed);
    let refused =
        house.accounts.delete_devices(&request(json!({ "session": challenge.session })), &alice, vec![]).await;
    assert!(matches!(refused, Err(InteractiveError::OtherUser)));
}

#[tokio::test]
async fn a_session_lets_one_request_through_though_many_come_at_once() {
    let house = House::open().await;
    let asked = challenge(house.accounts.register(&attempt(Value::Null), wish()).await);
    let auth = || attempt(json!({ "type": "m.login.dummy", "session": asked.session }));
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let (accounts, attempt) = (house.accounts.clone(), auth());
            tokio::spawn(async move { accounts.register(&attempt, wish()).await.is_ok() })
        })
        .collect();
    let mut passed = 0;
    for attempt in tries {
        passed += usize::from(attempt.await.unwrap());
    }
    assert_eq!(passed, 1);
    assert!(house.accounts.register(&auth(), wish()).await.is_err());
}

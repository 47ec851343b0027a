//! Login, logout, and what stands against them.

use hearth_account::{AuthenticateError, Credentials, Login, LoginError, Secret};
use hearth_matrix::ruma::user_id;

use crate::{House, PASSWORD, by_password, shown_password};

#[tokio::test]
async fn a_user_is_known_by_id_and_by_localpart() {
    let house = House::open().await;
    house.user("alice").await;
    for name in ["@alice:hs1", "alice", "@ALICE:hs1"] {
        let session = house.login(by_password(name, PASSWORD)).await.unwrap();
        assert_eq!(house.must_be(&session).await.user_id, "@alice:hs1", "{name}");
        assert_eq!(session.device_id.as_str().len(), 10);
    }
    for (name, password) in [("alice", "wrong"), ("nobody", PASSWORD), ("@alice:elsewhere", PASSWORD), ("alice", "")] {
        assert!(matches!(house.login(by_password(name, password)).await, Err(LoginError::Forbidden)), "{name}");
    }
}

#[tokio::test]
async fn a_device_used_again_keeps_its_name_and_loses_its_token() {
    let house = House::open().await;
    house.user("alice").await;
    let at = |name: &str| Login {
        device_id: Some("PHONE".to_owned()),
        initial_device_display_name: Some(name.to_owned()),
        ..by_password("alice", PASSWORD)
    };
    let first = house.login(at("old name")).await.unwrap();
    house.must_be(&first).await;
    let second = house.login(at("new name")).await.unwrap();
    assert!(house.whoami(&first).await.is_none());
    let known = house.must_be(&second).await;
    let device = house.accounts.device(known.user, "PHONE").await.unwrap();
    assert_eq!(device.display_name.as_deref(), Some("old name"));
}

#[tokio::test]
async fn logout_ends_one_session_and_logout_all_every_one() {
    let house = House::open().await;
    let first = house.user("alice").await;
    let second = house.login(by_password("alice", PASSWORD)).await.unwrap();
    let session = house.must_be(&second).await;
    house.accounts.logout(session.user, session.device.unwrap()).await.unwrap();
    assert!(house.whoami(&second).await.is_none());
    let known = house.must_be(&first).await;
    assert_eq!(house.accounts.devices(known.user).await.unwrap().len(), 1);

    let third = house.login(by_password("alice", PASSWORD)).await.unwrap();
    house.must_be(&third).await;
    house.accounts.logout_all(known.user).await.unwrap();
    assert!(house.whoami(&first).await.is_none());
    assert!(house.whoami(&third).await.is_none());
    assert!(house.accounts.devices(known.user).await.unwrap().is_empty());
}

#[tokio::test]
async fn nonsense_is_nobody_s_token() {
    let house = House::open().await;
    for token in ["", "ha_nonsense", &"x".repeat(10_000), "\0"] {
        let refused = house.accounts.authenticate(token).await;
        assert!(matches!(refused, Err(AuthenticateError::Unknown { soft_logout: false })));
    }
}

#[tokio::test]
async fn a_login_token_lets_one_device_in_for_two_minutes() {
    let house = House::open().await;
    let alice = house.user("alice").await;
    let alice = house.must_be(&alice).await;
    let make =
        || async { house.accounts.create_login_token(&shown_password("alice", PASSWORD), &alice).await.unwrap() };
    let by_token = |token: &Secret| Login { credentials: Credentials::Token(token.clone()), ..by_password("", "") };

    let token = make().await.token;
    let session = house.login(by_token(&token)).await.unwrap();
    assert_eq!(house.must_be(&session).await.user_id, "@alice:hs1");
    assert!(matches!(house.login(by_token(&token)).await, Err(LoginError::Forbidden)));

    let token = make().await.token;
    house.time.advance(120_000);
    assert!(matches!(house.login(by_token(&token)).await, Err(LoginError::Forbidden)));
    assert!(matches!(house.login(by_token(&Secret::new("nonsense"))).await, Err(LoginError::Forbidden)));
}

#[tokio::test]
async fn rights_that_change_are_seen_at_once() {
    let house = House::open().await;
    let session = house.user("alice").await;
    let alice = user_id!("@alice:hs1");
    assert!(!house.must_be(&session).await.is_admin);
    house.accounts.set_admin(alice, true).await.unwrap();
    assert!(house.must_be(&session).await.is_admin);
    house.accounts.set_suspended(alice, true).await.unwrap();
    assert!(house.must_be(&session).await.is_suspended);

    house.accounts.set_locked(alice, true).await.unwrap();
    let token = session.access_token.reveal();
    assert!(matches!(house.accounts.authenticate(token).await, Err(AuthenticateError::Locked)));
    assert!(house.accounts.authenticate_even_locked(token).await.is_ok());
    assert!(matches!(house.login(by_password("alice", PASSWORD)).await, Err(LoginError::Locked)));
    house.accounts.set_locked(alice, false).await.unwrap();
    house.must_be(&session).await;
}

#[tokio::test]
async fn a_changed_password_ends_other_sessions_if_wished() {
    let house = House::open().await;
    let mine = house.user("alice").await;
    let other = house.login(by_password("alice", PASSWORD)).await.unwrap();
    let session = house.must_be(&mine).await;
    let change = |old: &'static str, new: &'static str, logout_devices| {
        let (accounts, session) = (house.accounts.clone(), session.clone());
        async move {
            accounts
                .change_password(&shown_password("alice", old), &session, Some(Secret::new(new)), logout_devices)
                .await
        }
    };
    assert!(change("wrong!", "my_new_password", true).await.is_err());
    house.must_be(&other).await;
    change(PASSWORD, "my_new_password", true).await.unwrap();
    house.must_be(&mine).await;
    assert!(house.whoami(&other).await.is_none());
    assert!(house.login(by_password("alice", PASSWORD)).await.is_err());
    let other = house.login(by_password("alice", "my_new_password")).await.unwrap();
    change("my_new_password", "another_password", false).await.unwrap();
    house.must_be(&other).await;
    assert!(change("another_password", "weak", true).await.is_err());

    house.accounts.reset_password(user_id!("@alice:hs1"), &Secret::new("by the admin"), true).await.unwrap();
    assert!(house.whoami(&mine).await.is_none());
    house.login(by_password("alice", "by the admin")).await.unwrap();
}

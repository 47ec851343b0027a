//! Refreshing: rotation, lost answers, stolen tokens, soft logout.

use hearth_account::{AuthenticateError, Login, RefreshError, Secret, SignedIn};

use crate::{House, PASSWORD, by_password};

async fn refreshable(house: &House) -> SignedIn {
    house.user("alice").await;
    house.login(Login { refresh_token: true, ..by_password("alice", PASSWORD) }).await.unwrap()
}

async fn is_alive(house: &House, token: &Secret) -> bool {
    house.accounts.authenticate(token.reveal()).await.is_ok()
}

#[tokio::test]
async fn an_expired_session_is_soft_logged_out_and_refreshed() {
    let house = House::open().await;
    let session = refreshable(&house).await;
    assert_eq!(session.expires_in_ms, Some(300_000));
    let device = house.must_be(&session).await.device;
    house.time.advance(300_000);
    let refused = house.accounts.authenticate(session.access_token.reveal()).await;
    assert!(matches!(refused, Err(AuthenticateError::Unknown { soft_logout: true })));

    let refresh = session.refresh_token.unwrap();
    let fresh = house.accounts.refresh(refresh.reveal()).await.unwrap();
    assert_eq!(house.accounts.authenticate(fresh.access_token.reveal()).await.unwrap().device, device);
    assert_eq!(fresh.expires_in_ms, Some(300_000));
}

#[tokio::test]
async fn a_lost_answer_can_be_asked_for_again() {
    let house = House::open().await;
    let session = refreshable(&house).await;
    let refresh = session.refresh_token.clone().unwrap();
    let lost = house.accounts.refresh(refresh.reveal()).await.unwrap();
    // The old tokens are good until the new ones are used.
    assert!(is_alive(&house, &session.access_token).await);
    let got = house.accounts.refresh(refresh.reveal()).await.unwrap();
    assert!(!is_alive(&house, &lost.access_token).await);
    assert!(is_alive(&house, &got.access_token).await);
    assert!(!is_alive(&house, &session.access_token).await);
    // What was lost opens nothing.
    assert!(matches!(house.accounts.refresh(lost.refresh_token.unwrap().reveal()).await, Err(RefreshError::Unknown)));
    assert!(is_alive(&house, &got.access_token).await);
}

#[tokio::test]
async fn a_used_refresh_token_shown_again_signs_the_device_out() {
    let house = House::open().await;
    let session = refreshable(&house).await;
    let stolen = session.refresh_token.unwrap();
    let fresh = house.accounts.refresh(stolen.reveal()).await.unwrap();
    assert!(is_alive(&house, &fresh.access_token).await);
    assert!(matches!(house.accounts.refresh(stolen.reveal()).await, Err(RefreshError::Unknown)));
    assert!(!is_alive(&house, &fresh.access_token).await);
    assert!(house.accounts.refresh(fresh.refresh_token.unwrap().reveal()).await.is_err());
}

#[tokio::test]
async fn using_the_next_refresh_token_spends_the_one_before() {
    let house = House::open().await;
    let session = refreshable(&house).await;
    let first = session.refresh_token.unwrap();
    let second = house.accounts.refresh(first.reveal()).await.unwrap().refresh_token.unwrap();
    let third = house.accounts.refresh(second.reveal()).await.unwrap();
    assert!(house.accounts.refresh(first.reveal()).await.is_err(), "theft");
    assert!(!is_alive(&house, &third.access_token).await);
}

#[tokio::test]
async fn nonsense_and_logged_out_sessions_are_not_refreshed() {
    let house = House::open().await;
    let session = refreshable(&house).await;
    assert!(matches!(house.accounts.refresh("nonsense").await, Err(RefreshError::Unknown)));
    let known = house.must_be(&session).await;
    house.accounts.logout(known.user, known.device.unwrap()).await.unwrap();
    assert!(house.accounts.refresh(session.refresh_token.unwrap().reveal()).await.is_err());
}

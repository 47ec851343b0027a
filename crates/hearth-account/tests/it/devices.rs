//! Devices: names, where they were last seen, deletion.

use hearth_account::{DeviceError, Login, LoginError};

use crate::{House, PASSWORD, by_password, shown_password};

#[tokio::test]
async fn devices_are_read_renamed_and_deleted() {
    let house = House::open().await;
    let mine = house.user("alice").await;
    let other = house.login(by_password("alice", PASSWORD)).await.unwrap();
    let session = house.must_be(&mine).await;
    let user = session.user;
    let id = other.device_id.as_str();

    house.accounts.rename_device(user, id, Some("laptop".to_owned())).await.unwrap();
    house.accounts.rename_device(user, id, None).await.unwrap();
    assert_eq!(house.accounts.device(user, id).await.unwrap().display_name.as_deref(), Some("laptop"));
    let too_long = house.accounts.rename_device(user, id, Some("x".repeat(300))).await;
    assert!(matches!(too_long, Err(DeviceError::TooLong)));
    assert!(matches!(house.accounts.rename_device(user, "NONE", None).await, Err(DeviceError::NotFound)));
    assert!(matches!(house.accounts.device(user, "NONE").await, Err(DeviceError::NotFound)));

    house.must_be(&other).await;
    let delete = vec![id.to_owned(), "NONE".to_owned()];
    house.accounts.delete_devices(&shown_password("alice", PASSWORD), &session, delete).await.unwrap();
    assert!(house.whoami(&other).await.is_none());
    assert!(matches!(house.accounts.device(user, id).await, Err(DeviceError::NotFound)));
    house.must_be(&mine).await;
}

#[tokio::test]
async fn a_user_does_not_see_the_devices_of_another() {
    let house = House::open().await;
    let alice = house.user("alice").await;
    let bob = house.user("bob").await;
    let bob = house.must_be(&bob).await;
    let id = alice.device_id.as_str();
    assert!(matches!(house.accounts.device(bob.user, id).await, Err(DeviceError::NotFound)));
    let delete = vec![id.to_owned()];
    house.accounts.delete_devices(&shown_password("bob", PASSWORD), &bob, delete).await.unwrap();
    house.must_be(&alice).await;
}

#[tokio::test]
async fn where_a_device_was_last_seen_is_known_at_once_and_written_down_later() {
    let house = House::open().await;
    let session = house.user("alice").await;
    let known = house.must_be(&session).await;
    let id = session.device_id.as_str();
    assert_eq!(house.accounts.device(known.user, id).await.unwrap().last_seen, None);
    house.accounts.note_seen(&known, [192, 0, 2, 1].into());
    let seen = Some(("192.0.2.1".to_owned(), house.time.now_ms()));
    assert_eq!(house.accounts.device(known.user, id).await.unwrap().last_seen, seen);
    house.accounts.keep_house_once().await.unwrap();
    assert_eq!(house.accounts.devices(known.user).await.unwrap()[0].last_seen, seen);
    let device = id.to_owned();
    let stored = house.store.read(move |tx| tx.devices().get(known.user, &device)).await.unwrap().unwrap();
    assert_eq!(stored.last_seen, seen);
}

#[tokio::test]
async fn a_user_has_only_so_many_devices() {
    let house = House::open().await;
    let first = house.user("alice").await;
    for _ in 1..20 {
        house.login(by_password("alice", PASSWORD)).await.unwrap();
    }
    let refused = house.login(by_password("alice", PASSWORD)).await;
    assert!(matches!(refused, Err(LoginError::TooManyDevices)));
    // On one that is there already he may sign in.
    let device_id = Some(first.device_id.to_string());
    house.login(Login { device_id, ..by_password("alice", PASSWORD) }).await.unwrap();
    let bob = house.user("bob").await;
    house.must_be(&bob).await;
}

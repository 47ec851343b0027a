//! The end of an account, and lists of accounts.

use std::sync::{Arc, Mutex};

use hearth_account::{AdminError, LoginError, Residence, Secret, Work};
use hearth_matrix::ruma::{OwnedUserId, user_id};

use crate::{House, PASSWORD, by_password, shown_password};

/// Rooms that can't be left at first.
#[derive(Default)]
struct Rooms {
    asked: Mutex<Vec<String>>,
}

impl Residence for Rooms {
    fn leave_all(&self, user_id: OwnedUserId) -> Work<Result<(), String>> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(user_id.to_string());
        let outcome = if asked.len() < 2 { Err("not now".to_owned()) } else { Ok(()) };
        Box::pin(std::future::ready(outcome))
    }

    fn profile_changed(&self, _: OwnedUserId) -> Work<()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test]
async fn a_deactivated_account_is_signed_out_and_leaves_its_rooms() {
    let rooms = Arc::new(Rooms::default());
    let house = House::with_residence(|_| {}, rooms.clone()).await;
    let session = house.user("alice").await;
    let known = house.must_be(&session).await;

    assert!(house.accounts.deactivate(&shown_password("alice", "wrong"), &known, false).await.is_err());
    house.must_be(&session).await;
    house.accounts.deactivate(&shown_password("alice", PASSWORD), &known, true).await.unwrap();
    assert!(house.whoami(&session).await.is_none());
    assert!(matches!(house.login(by_password("alice", PASSWORD)).await, Err(LoginError::Deactivated)));
    let account = house.accounts.account(user_id!("@alice:hs1")).await.unwrap().unwrap();
    assert!(account.state.deactivated && account.erased && account.password_hash.is_none());
    let refused = house.accounts.reset_password(user_id!("@alice:hs1"), &Secret::new(PASSWORD), false).await;
    assert!(matches!(refused, Err(AdminError::Deactivated)));

    // The first try runs beside; what it could not do is done with the housekeeping, once.
    while rooms.asked.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    house.accounts.keep_house_once().await.unwrap();
    house.accounts.keep_house_once().await.unwrap();
    assert_eq!(*rooms.asked.lock().unwrap(), ["@alice:hs1", "@alice:hs1"]);
}

#[tokio::test]
async fn accounts_are_listed_by_name_and_searched() {
    let house = House::open().await;
    for name in ["carol", "alice", "bob", "alicia"] {
        house.accounts.create_user(name, &Secret::new(PASSWORD), name == "bob").await.unwrap();
    }
    let list = |after: &'static str, containing: &'static str, limit| {
        let accounts = house.accounts.clone();
        async move {
            let listed = accounts.list_accounts(after, containing, limit).await.unwrap();
            listed.into_iter().map(|listed| listed.user_id.to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(list("", "", 10).await, ["@alice:hs1", "@alicia:hs1", "@bob:hs1", "@carol:hs1"]);
    assert_eq!(list("alicia", "", 1).await, ["@bob:hs1"]);
    assert_eq!(list("", "ALI", 10).await, ["@alice:hs1", "@alicia:hs1"]);
    assert_eq!(house.accounts.account_count().await.unwrap(), 4);
    assert!(house.accounts.account(user_id!("@bob:hs1")).await.unwrap().unwrap().admin);
    let unknown = house.accounts.set_admin(user_id!("@eve:hs1"), true).await;
    assert!(matches!(unknown, Err(AdminError::UnknownUser)));
}

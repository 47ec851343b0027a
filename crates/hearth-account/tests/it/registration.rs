//! Who may register, under which name.

use hearth_account::{
    InteractiveError, PasswordError, RegisterError, Registration, Secret, SharedSecretError, SharedSecretRegistration,
    UsernameError,
};
use hearth_store::RegistrationToken;
use serde_json::json;

use crate::{House, PASSWORD, attempt, by_password, dummy, user_id, wish};

#[tokio::test]
async fn a_user_registers_and_is_signed_in() {
    let house = House::open().await;
    let wish = Registration {
        username: Some("user-UPPER".to_owned()),
        device_id: Some("my_device_id".to_owned()),
        initial_device_display_name: Some("phone".to_owned()),
        ..wish()
    };
    let registered = house.accounts.register(&dummy(), wish).await.unwrap();
    assert_eq!(user_id(&registered), "@user-upper:hs1");
    let session = registered.session.unwrap();
    assert_eq!(session.device_id, "my_device_id");
    assert_eq!((session.refresh_token, session.expires_in_ms), (None, None));
    let known = house.accounts.authenticate(session.access_token.reveal()).await.unwrap();
    assert_eq!(known.user_id, "@user-upper:hs1");
    assert_eq!(known.device_id.as_deref().map(|id| id.as_str()), Some("my_device_id"));
    assert!(!known.is_guest && !known.is_admin);
    let devices = house.accounts.devices(known.user).await.unwrap();
    assert_eq!(devices[0].display_name.as_deref(), Some("phone"));
}

#[tokio::test]
async fn a_name_is_given_once_and_stays_taken() {
    let house = House::open().await;
    house.user("alice").await;
    let again = || Registration { username: Some("Alice".to_owned()), ..wish() };
    let refused = house.accounts.register(&dummy(), again()).await;
    assert!(matches!(refused, Err(RegisterError::UserInUse)));
    // Also before any stage.
    assert!(matches!(house.accounts.register(&attempt(json!(null)), again()).await, Err(RegisterError::UserInUse)));
    assert!(matches!(house.accounts.is_username_available("alice").await, Err(RegisterError::UserInUse)));
    assert!(house.accounts.is_username_available("bob").await.is_ok());
    let id = hearth_matrix::ruma::user_id!("@alice:hs1");
    house.accounts.deactivate_user(id, false).await.unwrap();
    assert!(matches!(house.accounts.register(&dummy(), again()).await, Err(RegisterError::UserInUse)));
}

#[tokio::test]
async fn bad_names_and_passwords_are_refused() {
    let house = House::open().await;
    let named = |name: &str| Registration { username: Some(name.to_owned()), ..wish() };
    let refused = house.accounts.register(&dummy(), named("us,er")).await;
    assert!(matches!(refused, Err(RegisterError::Username(UsernameError::Characters))));
    assert!(matches!(
        house.accounts.is_username_available("username,should_not_be_valid").await,
        Err(RegisterError::Username(_))
    ));
    let weak = Registration { password: Some(Secret::new("a")), ..wish() };
    let refused = house.accounts.register(&dummy(), weak).await;
    assert!(matches!(refused, Err(RegisterError::Password(PasswordError::TooShort))));
    let none = Registration::default();
    assert!(matches!(house.accounts.register(&dummy(), none).await, Err(RegisterError::MissingPassword)));
}

#[tokio::test]
async fn whoever_gives_no_name_gets_one() {
    let house = House::open().await;
    let one = house.accounts.register(&dummy(), wish()).await.unwrap();
    let other = house.accounts.register(&dummy(), wish()).await.unwrap();
    assert_ne!(one.user_id, other.user_id);
}

#[tokio::test]
async fn an_account_can_be_made_without_a_session() {
    let house = House::open().await;
    let wish = Registration { username: Some("alice".to_owned()), inhibit_login: true, ..wish() };
    assert!(house.accounts.register(&dummy(), wish).await.unwrap().session.is_none());
    house.login(by_password("alice", PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn a_closed_server_takes_nobody() {
    let house = House::with(|options| options.enabled = false).await;
    assert!(matches!(house.accounts.register(&dummy(), wish()).await, Err(RegisterError::Disabled)));
    assert!(matches!(house.accounts.is_username_available("bob").await, Err(RegisterError::Disabled)));
    assert!(matches!(house.accounts.register_guest(None).await, Err(RegisterError::GuestsDisabled)));
}

#[tokio::test]
async fn guests_have_no_password() {
    let house = House::with(|options| options.guests = true).await;
    let guest = house.accounts.register_guest(Some("browser".to_owned())).await.unwrap().session.unwrap();
    assert!(house.must_be(&guest).await.is_guest);
    assert!(house.login(by_password(guest.user_id.as_str(), "")).await.is_err());
}

#[tokio::test]
async fn a_registration_token_is_used_as_often_as_it_may() {
    let house = House::with(|options| options.token_required = true).await;
    let now_ms = house.time.now_ms();
    let token = |name: &str, uses_allowed, expires_ts| RegistrationToken {
        token: name.to_owned(),
        uses_allowed,
        completed: 0,
        expires_ts,
    };
    assert!(house.accounts.create_registration_token(token("once", Some(1), None)).await.unwrap());
    assert!(!house.accounts.create_registration_token(token("once", None, None)).await.unwrap());
    assert!(house.accounts.create_registration_token(token("hour", None, Some(now_ms + 3_600_000))).await.unwrap());

    let show = |name: &str| attempt(json!({ "type": "m.login.registration_token", "token": name }));
    // A dummy is not enough.
    assert!(matches!(house.accounts.register(&dummy(), wish()).await, Err(RegisterError::Interactive(_))));
    assert!(house.accounts.is_registration_token_valid("once").await.unwrap());
    house.accounts.register(&show("once"), wish()).await.unwrap();
    assert!(!house.accounts.is_registration_token_valid("once").await.unwrap());
    let refused = house.accounts.register(&show("once"), wish()).await;
    let Err(RegisterError::Interactive(InteractiveError::Required(challenge))) = refused else { panic!("{refused:?}") };
    assert_eq!(challenge.error.unwrap().0, "M_FORBIDDEN");

    house.accounts.register(&show("hour"), wish()).await.unwrap();
    house.time.advance(3_600_000);
    assert!(house.accounts.register(&show("hour"), wish()).await.is_err());
    assert!(!house.accounts.is_registration_token_valid("nonsense").await.unwrap());
}

fn signed(nonce: &str, username: &str, admin: bool, secret: &str) -> SharedSecretRegistration {
    use hmac::{KeyInit, Mac};
    let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    let rights = if admin { "admin" } else { "notadmin" };
    mac.update(format!("{nonce}\0{username}\0{PASSWORD}\0{rights}").as_bytes());
    let mac = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    SharedSecretRegistration {
        nonce: nonce.to_owned(),
        username: username.to_owned(),
        displayname: None,
        password: Secret::new(PASSWORD),
        admin,
        user_type: None,
        mac,
    }
}

#[tokio::test]
async fn whoever_knows_the_secret_makes_accounts() {
    let house = House::with(|options| {
        options.enabled = false;
        options.shared_secret = Some(Secret::new("complement"));
    })
    .await;
    let nonce = house.accounts.shared_secret_nonce().await.unwrap();
    let wish = signed(&nonce, "user-UPPER-shared-SECRET", true, "complement");
    let session = house.accounts.register_with_shared_secret(wish.clone()).await.unwrap();
    assert_eq!(session.user_id, "@user-upper-shared-secret:hs1");
    assert!(house.must_be(&session).await.is_admin);

    // A nonce is good once, whatever came of it.
    let refused = house.accounts.register_with_shared_secret(wish).await;
    assert!(matches!(refused, Err(SharedSecretError::Nonce)));
    let nonce = house.accounts.shared_secret_nonce().await.unwrap();
    let refused = house.accounts.register_with_shared_secret(signed(&nonce, "eve", false, "guess")).await;
    assert!(matches!(refused, Err(SharedSecretError::Mac)));
    let refused = house.accounts.register_with_shared_secret(signed(&nonce, "eve", false, "complement")).await;
    assert!(matches!(refused, Err(SharedSecretError::Nonce)));

    let nonce = house.accounts.shared_secret_nonce().await.unwrap();
    house.time.advance(61_000);
    let refused = house.accounts.register_with_shared_secret(signed(&nonce, "late", false, "complement")).await;
    assert!(matches!(refused, Err(SharedSecretError::Nonce)));
}

#[tokio::test]
async fn without_a_secret_that_door_is_closed() {
    let house = House::open().await;
    assert!(matches!(house.accounts.shared_secret_nonce().await, Err(SharedSecretError::Disabled)));
}

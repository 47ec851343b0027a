//! Who may in: registration, login, sessions, devices, interactive authentication.
//!
//! Spec: client-server API, "Legacy API" of client authentication, and "Device Management".

mod devices;
mod errors;
mod interactive;
mod login;
mod management;
mod register;
mod sessions;
mod shared_secret;

use hearth_account::Authenticated;

use crate::Sender;
use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    [
        register::routes(),
        shared_secret::routes(),
        login::routes(),
        sessions::routes(),
        management::routes(),
        devices::routes(),
        interactive::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Sender {
    /// The sender as accounts know him.
    fn session(&self) -> Authenticated {
        let Self { user_id, user, device_id, device, is_guest, is_admin, is_suspended } = self.clone();
        Authenticated { user_id, user, device_id, device, is_guest, is_admin, is_suspended }
    }
}

//! Registration, login, sessions, devices, interactive authentication.

use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    Vec::new()
}

//! Profile, account data, push rules, capabilities.

use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    Vec::new()
}

//! /sync, filters, /events and their kin.

use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    Vec::new()
}

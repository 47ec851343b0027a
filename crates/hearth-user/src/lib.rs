//! What belongs to a user: profile, account data, filters, push rules.

/// Everything that belongs to a user. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Users;

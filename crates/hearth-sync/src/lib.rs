//! What a client sees change: /sync over streams, and the hub that wakes it.

/// What clients see change. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Syncs;

//! What a client sees change: /sync over streams, and the hub that wakes it.

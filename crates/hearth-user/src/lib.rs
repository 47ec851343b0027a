//! What belongs to a user: profile, account data, filters, push rules.

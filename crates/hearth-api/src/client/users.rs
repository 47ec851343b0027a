//! Profile, account data, push rules, capabilities.

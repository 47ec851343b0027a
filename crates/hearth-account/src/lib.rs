//! Who may in: registration, sessions, tokens, passwords, interactive authentication.

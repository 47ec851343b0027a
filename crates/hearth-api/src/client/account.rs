//! Registration, login, sessions, devices, interactive authentication.

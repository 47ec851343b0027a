//! Rate limits: how much one user or one address may ask in a time.
//!
//! Each request falls into one [`Class`]. With a good access token it is counted for its user, else for its address;
//! whatever it is, it is counted once more for all that its address asks. Buckets live in this process alone: a cluster of
//! nodes lets through as many times as much.
//! Spec: client-server API, "Rate limiting".

mod buckets;
mod classes;

use std::net::IpAddr;
use std::sync::Arc;

use hearth_matrix::ruma::ServerName;
use hearth_store::{UserNum, WallTime};

use crate::ApiError;
pub(crate) use buckets::Of;
use buckets::{Buckets, Key};
pub(crate) use classes::{Class, is_same};

/// A bucket's size, and how fast it fills again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// What may come at once.
    pub burst: u32,
    /// What may come in a minute, in the long run.
    pub per_minute: u32,
}

impl Rate {
    const fn new(burst: u32, per_minute: u32) -> Self {
        Self { burst, per_minute }
    }
}

/// What the settings say about limits. The defaults are such that no person meets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOptions {
    /// All requests of an address.
    pub address: Rate,
    /// Requests of an address without an access token, or with a wrong one.
    pub anonymous: Rate,
    /// Logins of an address.
    pub login: Rate,
    /// Wrong passwords for one account, from wherever they come.
    pub login_failures: Rate,
    /// Registrations of an address, counted by request: one takes two or more.
    pub registration: Rate,
    /// Events that a user sends.
    pub sends: Rate,
    /// Rooms that a user joins, knocks on or creates.
    pub joins: Rate,
    /// Users that a user invites.
    pub invites: Rate,
    /// Invites that come from one other server.
    pub server_invites: Rate,
    /// Those of them that are for one user.
    pub server_invites_to_user: Rate,
    /// Servers whose keys an address has us look for.
    pub key_lookups: Rate,
    /// Files that a user uploads, or reserves places for.
    pub uploads: Rate,
    /// Files and thumbnails that a user downloads.
    pub downloads: Rate,
    /// Files and thumbnails that another server fetches.
    pub federation_downloads: Rate,
    /// All other requests of a user.
    pub requests: Rate,
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            address: Rate::new(20_000, 12_000),
            anonymous: Rate::new(1_000, 600),
            login: Rate::new(60, 30),
            login_failures: Rate::new(20, 6),
            registration: Rate::new(60, 20),
            sends: Rate::new(500, 1_200),
            joins: Rate::new(200, 120),
            invites: Rate::new(500, 300),
            server_invites: Rate::new(500, 300),
            server_invites_to_user: Rate::new(50, 20),
            key_lookups: Rate::new(1_000, 600),
            uploads: Rate::new(500, 600),
            downloads: Rate::new(5_000, 6_000),
            federation_downloads: Rate::new(5_000, 6_000),
            requests: Rate::new(5_000, 6_000),
        }
    }
}

/// Counts requests. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    options: LimitOptions,
    time: WallTime,
    buckets: Buckets,
}

impl Limits {
    /// With these rates, by this clock.
    pub fn new(options: LimitOptions, time: WallTime) -> Self {
        Self { inner: Some(Arc::new(Inner { options, time, buckets: Buckets::new() })) }
    }

    /// None at all.
    pub fn off() -> Self {
        Self { inner: None }
    }

    /// Before a request is looked at: its address, and its class if that is counted by address.
    pub(crate) fn arrival(&self, address: IpAddr, class: Class, has_token: bool) -> Result<(), ApiError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let of = Of::address(address);
        inner.take(Kind::Address, of, 1)?;
        match class {
            Class::Login => inner.take(Kind::Login, of, 1),
            Class::Registration => inner.take(Kind::Registration, of, 1),
            _ if !has_token => inner.take(Kind::Anonymous, of, 1),
            _ => Ok(()),
        }
    }

    /// A request's access token was good.
    pub(crate) fn of_user(&self, user: UserNum, class: Class) -> Result<(), ApiError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let kind = match class {
            // Counted on arrival.
            Class::Login | Class::Registration => return Ok(()),
            Class::Send => Kind::Sends,
            Class::Join => Kind::Joins,
            Class::Invite => Kind::Invites,
            Class::Upload => Kind::Uploads,
            Class::Download => Kind::Downloads,
            Class::Other => Kind::Requests,
        };
        inner.take(kind, Of::User(user.0), 1)
    }

    /// A request's access token was not good.
    pub(crate) fn of_wrong_token(&self, address: IpAddr) -> Result<(), ApiError> {
        self.inner.as_ref().map_or(Ok(()), |inner| inner.take(Kind::Anonymous, Of::address(address), 1))
    }

    /// A request invites many at once.
    pub(crate) fn invites(&self, user: UserNum, count: usize) -> Result<(), ApiError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.inner.as_ref().map_or(Ok(()), |inner| inner.take(Kind::Invites, Of::User(user.0), count))
    }

    /// Another server invites a user of ours.
    pub(crate) fn server_invites(&self, server: &str, user: &str) -> Result<(), ApiError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let of = |text: &str| Of::Account(inner.buckets.fingerprint(text));
        inner.take(Kind::ServerInvitesToUser, of(&format!("{server} {user}")), 1)?;
        inner.take(Kind::ServerInvites, of(server), 1)
    }

    /// An address has us look for a server's keys: it asks about them, or what comes from there is signed with them.
    pub(crate) fn key_lookup(&self, address: IpAddr) -> Result<(), ApiError> {
        self.key_lookups(address, 1)
    }

    /// An address asks about the keys of so many servers: a hundred that are known cost as much as one that is looked for.
    pub(crate) fn key_query(&self, address: IpAddr, servers: usize) -> Result<(), ApiError> {
        match u32::try_from(servers / 100).unwrap_or(u32::MAX) {
            0 => Ok(()),
            hundreds => self.key_lookups(address, hundreds),
        }
    }

    fn key_lookups(&self, address: IpAddr, count: u32) -> Result<(), ApiError> {
        self.inner.as_ref().map_or(Ok(()), |inner| inner.take(Kind::KeyLookups, Of::address(address), count))
    }

    /// Another server fetches a file.
    pub(crate) fn of_server(&self, server: &ServerName) -> Result<(), ApiError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        inner.take(Kind::FederationDownloads, Of::Account(inner.buckets.fingerprint(server.as_str())), 1)
    }

    /// A password is about to be tried for an account. It counts as wrong until [`PasswordTry::was_right`] is told.
    pub(crate) fn try_password(&self, user: &str) -> Result<PasswordTry, ApiError> {
        let Some(inner) = &self.inner else { return Ok(PasswordTry(None)) };
        // `alice` and `@Alice:example.org` are the same account; that of another server's is nobody's.
        let localpart = user.trim_start_matches('@').split(':').next().unwrap_or_default();
        let of = Of::Account(inner.buckets.fingerprint(&localpart.to_lowercase()));
        inner.take(Kind::LoginFailures, of, 1)?;
        Ok(PasswordTry(Some((inner.clone(), of))))
    }
}

/// A password that is being tried.
#[must_use]
pub(crate) struct PasswordTry(Option<(Arc<Inner>, Of)>);

impl PasswordTry {
    /// It was the right one, or none was looked at after all.
    pub(crate) fn was_right(self) {
        if let Some((inner, of)) = self.0 {
            let rate = Kind::LoginFailures.rate(&inner.options);
            inner.buckets.give_back(Key { kind: Kind::LoginFailures, of }, rate);
        }
    }
}

impl Inner {
    fn take(&self, kind: Kind, of: Of, count: u32) -> Result<(), ApiError> {
        let now_us = self.time.now_ms().saturating_mul(1000);
        self.buckets.take(Key { kind, of }, kind.rate(&self.options), count, now_us).map_err(|wait_us| {
            metrics::counter!("hearth_rate_limited_total", "limit" => kind.name()).increment(1);
            let wait_ms = u64::try_from(wait_us).unwrap_or_default().div_ceil(1000);
            ApiError::limit_exceeded(wait_ms.max(1))
        })
    }
}

/// What a bucket counts; each has a key in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Address,
    Anonymous,
    Login,
    LoginFailures,
    Registration,
    Sends,
    Joins,
    Invites,
    ServerInvites,
    ServerInvitesToUser,
    KeyLookups,
    Uploads,
    Downloads,
    FederationDownloads,
    Requests,
}

impl Kind {
    fn rate(self, options: &LimitOptions) -> Rate {
        match self {
            Self::Address => options.address,
            Self::Anonymous => options.anonymous,
            Self::Login => options.login,
            Self::LoginFailures => options.login_failures,
            Self::Registration => options.registration,
            Self::Sends => options.sends,
            Self::Joins => options.joins,
            Self::Invites => options.invites,
            Self::ServerInvites => options.server_invites,
            Self::ServerInvitesToUser => options.server_invites_to_user,
            Self::KeyLookups => options.key_lookups,
            Self::Uploads => options.uploads,
            Self::Downloads => options.downloads,
            Self::FederationDownloads => options.federation_downloads,
            Self::Requests => options.requests,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Anonymous => "anonymous",
            Self::Login => "login",
            Self::LoginFailures => "login_failures",
            Self::Registration => "registration",
            Self::Sends => "sends",
            Self::Joins => "joins",
            Self::Invites => "invites",
            Self::ServerInvites => "server_invites",
            Self::ServerInvitesToUser => "server_invites_to_user",
            Self::KeyLookups => "key_lookups",
            Self::Uploads => "uploads",
            Self::Downloads => "downloads",
            Self::FederationDownloads => "federation_downloads",
            Self::Requests => "requests",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(time: &WallTime) -> Limits {
        let options = LimitOptions {
            login: Rate::new(2, 60),
            login_failures: Rate::new(2, 1),
            sends: Rate::new(3, 60),
            anonymous: Rate::new(1, 60),
            ..LimitOptions::default()
        };
        Limits::new(options, time.clone())
    }

    fn retry_after_ms(refusal: Result<(), ApiError>) -> Option<u64> {
        refusal.err()?.body().extra["retry_after_ms"].as_u64()
    }

    #[test]
    fn a_user_who_sends_too_fast_is_told_when_to_go_on() {
        let time = WallTime::manual(1_000_000);
        let limits = limits(&time);
        for _ in 0..3 {
            assert!(limits.of_user(hearth_store::StringNum(1), Class::Send).is_ok());
        }
        assert_eq!(retry_after_ms(limits.of_user(hearth_store::StringNum(1), Class::Send)), Some(1000));
        // Others, and other things, are not touched.
        assert!(limits.of_user(hearth_store::StringNum(2), Class::Send).is_ok());
        assert!(limits.of_user(hearth_store::StringNum(1), Class::Other).is_ok());
        time.advance(999);
        assert_eq!(retry_after_ms(limits.of_user(hearth_store::StringNum(1), Class::Send)), Some(1));
        time.advance(1);
        assert!(limits.of_user(hearth_store::StringNum(1), Class::Send).is_ok());
    }

    #[test]
    fn neighbours_in_a_small_network_of_the_sixth_version_are_one() {
        let limits = limits(&WallTime::manual(1_000_000));
        let arrive = |address: &str| limits.arrival(address.parse().unwrap(), Class::Other, false).is_ok();
        assert!(arrive("2001:db8:1:2::1"));
        assert!(!arrive("2001:db8:1:2:ffff::9"));
        assert!(arrive("2001:db8:1:3::1"));
        assert!(arrive("192.0.2.1"));
        assert!(!arrive("::ffff:192.0.2.1"), "the same address in another dress");
        assert!(arrive("192.0.2.2"));
    }

    #[test]
    fn each_server_fetches_for_itself() {
        let options = LimitOptions { federation_downloads: Rate::new(2, 60), ..LimitOptions::default() };
        let limits = Limits::new(options, WallTime::manual(1_000_000));
        let fetch = |server: &str| limits.of_server(<&ServerName>::try_from(server).unwrap());
        assert!(fetch("a.test").is_ok() && fetch("a.test").is_ok());
        assert_eq!(retry_after_ms(fetch("a.test")), Some(1000));
        assert!(fetch("b.test").is_ok());
    }

    #[test]
    fn only_wrong_passwords_count() {
        let limits = limits(&WallTime::manual(1_000_000));
        for _ in 0..10 {
            limits.try_password("alice").expect("a try").was_right();
        }
        drop(limits.try_password("@Alice:example.org").expect("a try"));
        drop(limits.try_password("alice").expect("a try"));
        assert!(limits.try_password("ALICE").is_err());
        assert!(limits.try_password("bob").is_ok());
    }
}

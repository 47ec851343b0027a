//! The keys: name, kind, default, and the sentence that the reference shows. One list per section.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hearth_api::serve::Bind;
use hearth_api::{LimitOptions, Rate, Resource};
use hearth_matrix::ruma::{OwnedServerName, RoomVersionId};
use ipnet::IpNet;

use super::load::{Key, Kind, Reader, Setting};
use super::values::{
    ByteSize, ClamAv, Database, LogFormat, LogLevel, MediaStorage, Period, PublicUrl, Secret, Terms, address_ranges,
    default_server_name,
};

/// Makes a section's struct, its defaults, and what reader and reference need, from one list.
macro_rules! section {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $sentence:literal])+ $key:ident: $type:ty = $default:expr,)* }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $sentence])+ pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl Setting for $name {
            fn kind() -> Kind {
                let defaults = Self::default();
                Kind::Table {
                    about: concat!($($about),+).trim(),
                    keys: vec![$(Key {
                        name: stringify!($key),
                        kind: <$type as Setting>::kind(),
                        default: Setting::show(&defaults.$key),
                        sentence: concat!($($sentence),+).trim(),
                    },)*],
                }
            }

            fn read(value: &toml::Value, reader: &mut Reader<'_>) -> Option<Self> {
                let table = reader.table(value, &[$(stringify!($key)),*])?;
                let defaults = Self::default();
                Some(Self { $($key: reader.key(table, stringify!($key), defaults.$key),)* })
            }

            fn show(&self) -> Option<String> {
                None
            }
        }
    };
}

section! {
    /// The server.
    Settings {
        /// Name of this server in the federation: what comes after the colon in its users' names. It can never be changed.
        server_name: OwnedServerName = default_server_name(),
        /// Directory of the signing key, the admin socket, and by default of database and media.
        data_dir: PathBuf = PathBuf::from("hearth-data"),
        /// Where clients reach this server; `/.well-known/matrix/client` tells them.
        public_url: Option<PublicUrl> = None,
        /// The database.
        database: DatabaseSettings = DatabaseSettings::default(),
        /// Where the server listens. Without any, on `127.0.0.1:8008`.
        listeners: Vec<Listener> = Vec::new(),
        /// Connections to others.
        outbound: Outbound = Outbound::default(),
        /// Talking to other servers.
        federation: Federation = Federation::default(),
        /// Who may have an account.
        registration: RegistrationSettings = RegistrationSettings::default(),
        /// New rooms.
        rooms: RoomSettings = RoomSettings::default(),
        /// The list of public rooms.
        directory: Directory = Directory::default(),
        /// Limits on what one user or address may ask in a time.
        rate_limits: RateLimits = RateLimits::default(),
        /// Application services: bridges and bots.
        appservices: Appservices = Appservices::default(),
        /// Servers that vouch for the signing keys of others, by name: a table of key id to public key; if that is empty, what such a server says of itself is believed.
        trusted_key_servers: BTreeMap<OwnedServerName, BTreeMap<String, String>> = BTreeMap::new(),
        /// Images and other files.
        media: Media = Media::default(),
        /// Sending e-mail.
        email: Email = Email::default(),
        /// Previews of linked pages.
        url_previews: UrlPreviews = UrlPreviews::default(),
        /// Who is online.
        presence: Presence = Presence::default(),
        /// The log, on standard error.
        logging: Logging = Logging::default(),
    }
}

section! {
    /// The database.
    DatabaseSettings {
        /// The database; without it, the SQLite file `hearth.db` in `data_dir`.
        url: Option<Database> = None,
        /// Threads that read (SQLite) or work (PostgreSQL) at once; without it, a number that suits the machine.
        threads: Option<u16> = None,
    }
}

section! {
    /// A place where the server listens.
    Listener {
        /// Address and port, or a unix socket.
        bind: Bind = Bind::Tcp(([127, 0, 0, 1], 8008).into()),
        /// TLS; without it the listener speaks plain HTTP, for a reverse proxy.
        tls: Option<Tls> = None,
        /// What the listener offers.
        resources: Vec<Resource> =
            vec![Resource::Client, Resource::Federation, Resource::Media, Resource::Admin, Resource::Health],
        /// Addresses of the proxies whose `X-Forwarded-For` is believed.
        trusted_proxies: Vec<IpNet> = Vec::new(),
    }
}

section! {
    /// TLS of a listener.
    Tls {
        /// The certificate, followed by those that lead to its authority.
        certificate: PathBuf = PathBuf::new(),
        /// The certificate's private key.
        key: PathBuf = PathBuf::new(),
    }
}

section! {
    /// Connections to others.
    Outbound {
        /// Certificates of authorities that are trusted beside the system's.
        trusted_ca: Vec<PathBuf> = Vec::new(),
        /// Addresses that may be connected to although a range below forbids them.
        ip_range_allow: Vec<IpNet> = Vec::new(),
        /// Addresses that are never connected to.
        ip_range_deny: Vec<IpNet> = address_ranges(),
    }
}

section! {
    /// Talking to other servers.
    Federation {
        /// Talk to other servers.
        enabled: bool = true,
        /// Host and port where other servers reach this one, if that is not port 8448 of `server_name`; `/.well-known/matrix/server` tells them.
        address: Option<OwnedServerName> = None,
        /// Servers to talk with, by patterns of their names such as `*.example.org`; without any, all but those below.
        allowed_servers: Option<Vec<String>> = None,
        /// Servers never to talk with, by such patterns.
        denied_servers: Vec<String> = Vec::new(),
        /// Seconds that the policy server of a room has to sign an event; who sends one waits so long.
        policy_server_timeout_seconds: u16 = 10,
    }
}

section! {
    /// Who may have an account.
    RegistrationSettings {
        /// Anybody may make an account.
        enabled: bool = false,
        /// Whoever knows this secret may make accounts through `/_synapse/admin/v1/register`.
        shared_secret: Option<Secret> = None,
        /// Making an account takes a registration token.
        token_required: bool = false,
        /// Guests may look at rooms that let them.
        guests: bool = false,
        /// Documents that newcomers must accept: `terms.privacy = { version = "1.2", en = { name = "Privacy", url = "https://…" } }`, with as many documents and languages as there are.
        terms: Terms = Terms::default(),
    }
}

section! {
    /// New rooms.
    RoomSettings {
        /// Version of new rooms whose creator asks for none.
        default_version: RoomVersionId = RoomVersionId::V12,
    }
}

section! {
    /// The list of public rooms.
    Directory {
        /// Whoever comes may read the list; otherwise only users of this server.
        open: bool = true,
        /// Other servers may read the list.
        open_to_federation: bool = false,
    }
}

section! {
    /// Limits on what one user or address may ask in a time: `burst` at once, and `per_minute` in the long run. Whoever asks more is told when to come back. The defaults are such that no person meets them. Users share an address behind a proxy that `trusted_proxies` does not name.
    RateLimits {
        /// Enforce them.
        enabled: bool = true,
        /// All requests of an address; of an IPv6 address the first 64 bits count, here and below.
        address: Rate = LimitOptions::default().address,
        /// Requests of an address without an access token, or with a wrong one.
        anonymous: Rate = LimitOptions::default().anonymous,
        /// Logins of an address.
        login: Rate = LimitOptions::default().login,
        /// Wrong passwords for one account, from wherever they come.
        login_failures: Rate = LimitOptions::default().login_failures,
        /// Requests of an address to register; one registration takes two or three.
        registration: Rate = LimitOptions::default().registration,
        /// Events that a user sends.
        sends: Rate = LimitOptions::default().sends,
        /// Rooms that a user joins, knocks on or creates.
        joins: Rate = LimitOptions::default().joins,
        /// Users that a user invites.
        invites: Rate = LimitOptions::default().invites,
        /// Invites that come from one other server.
        server_invites: Rate = LimitOptions::default().server_invites,
        /// Invites that come from one other server for one user.
        server_invites_to_user: Rate = LimitOptions::default().server_invites_to_user,
        /// Servers whose keys this server looks for because of an address: those that are asked about from there, and unknown ones
        /// that send from there. A question about many counts once more for each hundred of them.
        key_lookups: Rate = LimitOptions::default().key_lookups,
        /// Files that a user uploads, or reserves places for.
        uploads: Rate = LimitOptions::default().uploads,
        /// Files and thumbnails that a user downloads.
        downloads: Rate = LimitOptions::default().downloads,
        /// Files and thumbnails that another server fetches.
        federation_downloads: Rate = LimitOptions::default().federation_downloads,
        /// All other requests of a user.
        requests: Rate = LimitOptions::default().requests,
    }
}

section! {
    /// Application services: bridges and bots. Not built yet: its keys are taken, and change nothing.
    Appservices {
        /// Their registration files (YAML).
        files: Vec<PathBuf> = Vec::new(),
    }
}

section! {
    /// Images and other files.
    Media {
        /// Where files are kept that are too large for the database; without it, in the directory `media` in `data_dir`.
        storage: Option<MediaStorage> = None,
        /// How a bucket is reached.
        s3: S3 = S3::default(),
        /// Largest file that can be uploaded.
        max_upload_size: ByteSize = ByteSize::mib(100),
        /// Largest file that is fetched from another server.
        max_remote_size: ByteSize = ByteSize::mib(100),
        /// Servers whose files are neither fetched nor shown, by patterns of their names such as `*.example.org`.
        denied_servers: Vec<String> = Vec::new(),
        /// Pictures with more pixels get no thumbnails. A picture takes 3 or 4 bytes of memory per pixel while its thumbnail is made.
        max_picture_pixels: u32 = 48_000_000,
        /// Tell clients that ask for it the blurhash of a picture that they upload (MSC2448), and that of a page's picture in its preview: what can be shown until the picture comes.
        blurhash: bool = false,
        /// How much a user may upload in all; without it, there is no limit.
        user_quota: Option<ByteSize> = None,
        /// How many files a user may upload; without it, there is no limit.
        user_quota_files: Option<u32> = None,
        /// Delete what users have uploaded when nobody has looked at it for so long; without it, nothing is deleted.
        keep_local: Option<Period> = None,
        /// Delete files of other servers, and pictures of previewed pages, when nobody has looked at them for so long. They are fetched again when somebody does; without it, nothing is deleted.
        keep_remote: Option<Period> = Some(Period::days(90)),
        /// When there is more than this of other servers, what was not looked at for longest is deleted; without it, there is no limit.
        max_remote_cache: Option<ByteSize> = None,
        /// ClamAV, which looks at each file that comes in; nothing comes in while it can't be asked. Encrypted files look harmless to it.
        clamav: Option<ClamAv> = None,
        /// Serve all media also on the old paths that need no access token. What is uploaded while this is on stays there when it is turned off.
        unauthenticated_legacy: bool = false,
    }
}

section! {
    /// How a bucket is reached, if `media.storage` is one.
    S3 {
        /// The object store; without it, that of Amazon.
        endpoint: Option<PublicUrl> = None,
        /// Where the bucket is.
        region: String = "us-east-1".to_owned(),
        /// The access key.
        access_key: Option<Secret> = None,
        /// The secret key.
        secret_key: Option<Secret> = None,
    }
}

section! {
    /// Sending e-mail. Not built yet: its keys are taken, and change nothing.
    Email {
        /// The mail server, as `smtp://user:password@host:port`.
        smtp: Option<Secret> = None,
        /// Sender of the mails.
        from: Option<String> = None,
    }
}

section! {
    /// Previews of linked pages.
    UrlPreviews {
        /// Fetch the pages that users link to and preview them. The server then learns which pages are talked about where messages are not encrypted, and their owners learn its address.
        enabled: bool = false,
        /// Domains of which no page is fetched, nor of those below them. Addresses that `outbound.ip_range_deny` names are never connected to.
        denied_domains: Vec<String> = Vec::new(),
    }
}

section! {
    /// Who is online.
    Presence {
        /// Tell users who is online, of those they share a room with. It costs little, but much of the traffic of quiet servers.
        enabled: bool = true,
    }
}

section! {
    /// The log, on standard error.
    Logging {
        /// How much is logged; parts of the program can differ, as in `info,hearth_store=debug`, or `info,http=warn` for no line per request.
        level: LogLevel = LogLevel::default(),
        /// Lines for people or for programs.
        format: LogFormat = LogFormat::Text,
    }
}

impl Settings {
    /// What no single value shows to be wrong.
    pub(super) fn contradictions(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (at, listener) in self.listeners.iter().enumerate() {
            if let Some(tls) = &listener.tls
                && [&tls.certificate, &tls.key].iter().any(|path| path.as_os_str().is_empty())
            {
                found.push((format!("listeners[{at}].tls"), "needs both `certificate` and `key`".to_owned()));
            }
            if self.listeners[..at].iter().any(|other| other.bind == listener.bind && !has_port_zero(&other.bind)) {
                found
                    .push((format!("listeners[{at}].bind"), format!("{} is taken by another listener", listener.bind)));
            }
        }
        let is_bucket = matches!(self.media.storage, Some(MediaStorage::Bucket { .. }));
        if is_bucket && (self.media.s3.access_key.is_none() || self.media.s3.secret_key.is_none()) {
            found.push(("media.s3".to_owned(), "needs both `access_key` and `secret_key`".to_owned()));
        }
        for (server, keys) in &self.trusted_key_servers {
            for (id, _) in keys.iter().filter(|(id, key)| hearth_remote::Notary::key(id, key).is_none()) {
                let place = format!("trusted_key_servers.\"{server}\".\"{id}\"");
                found.push((place, "is no Ed25519 key: an id `ed25519:…`, and 32 bytes in base64".to_owned()));
            }
        }
        found
    }

    /// The database's place, worked out.
    pub fn database(&self) -> Database {
        self.database.url.clone().unwrap_or_else(|| Database::sqlite(self.data_dir.join("hearth.db")))
    }

    /// The listeners, worked out.
    pub fn listeners(&self) -> Vec<Listener> {
        if self.listeners.is_empty() { vec![Listener::default()] } else { self.listeners.clone() }
    }
}

fn has_port_zero(bind: &Bind) -> bool {
    matches!(bind, Bind::Tcp(address) if address.port() == 0)
}

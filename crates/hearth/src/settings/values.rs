//! The kinds of values: what is allowed, how they are read from TOML, how their defaults are shown.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hearth_api::serve::Bind;
use hearth_api::{Rate, Resource};
use hearth_matrix::ruma::{OwnedServerName, RoomVersionId, ServerName};
use hearth_store::DatabaseUrl;
use ipnet::IpNet;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::load::{Kind, Reader, Setting};

/// A text that no log and no error may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The database's place. Its text may hold a password: it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct Database(DatabaseUrl);

impl Database {
    pub(super) fn sqlite(path: PathBuf) -> Self {
        Self(DatabaseUrl::Sqlite(path))
    }

    /// A PostgreSQL database at a URL.
    pub fn postgres(url: String) -> Self {
        Self(DatabaseUrl::Postgres(url))
    }

    /// The place.
    pub fn url(&self) -> &DatabaseUrl {
        &self.0
    }
}

impl Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            DatabaseUrl::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            DatabaseUrl::Inline => f.write_str("sqlite in memory"),
            DatabaseUrl::Postgres(_) => f.write_str("postgres"),
        }
    }
}

/// Where clients reach the server. Without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(())?;
        if rest.is_empty() || rest.starts_with('/') || rest.contains(char::is_whitespace) {
            return Err(());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Where files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaStorage {
    /// In a directory.
    Directory(PathBuf),
    /// In a bucket, with what names in it begin with.
    Bucket {
        /// The bucket.
        name: String,
        /// Nothing, or a path with a slash at its end.
        prefix: String,
    },
}

/// Where ClamAV is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClamAv {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// A length of time: some hours or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(Duration);

impl Period {
    /// The time.
    pub fn duration(self) -> Duration {
        self.0
    }

    /// So many days.
    pub const fn days(count: u64) -> Self {
        Self(Duration::from_secs(count * 24 * 60 * 60))
    }
}

impl FromStr for Period {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, hours) = match text.strip_suffix('d') {
            Some(days) => (days, 24),
            None => (text.strip_suffix('h').ok_or(())?, 1),
        };
        let count: u64 = digits.trim_end().parse().map_err(|_| ())?;
        let seconds = count.checked_mul(hours * 60 * 60).filter(|_| (1..100_000).contains(&count)).ok_or(())?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.0.as_secs() / 3600;
        if hours.is_multiple_of(24) { write!(f, "{}d", hours / 24) } else { write!(f, "{hours}h") }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count * 1024 * 1024)
    }
}

/// Units of sizes, the largest first.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl FromStr for ByteSize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (digits, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
            .unwrap_or((text, 0));
        let count: u64 = digits.parse().map_err(|_| ())?;
        let bytes = count.checked_mul(1 << shift).filter(|bytes| (1..1 << 50).contains(bytes));
        bytes.map(Self).ok_or(())
    }
}

impl Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, shift)| self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{} {unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

/// How much is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// As tracing's filter reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

/// How lines are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Documents that newcomers must accept, as `m.login.terms` shows them: by name, each with its version and by language a name
/// and a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms(serde_json::Map<String, serde_json::Value>);

impl Terms {
    /// The documents, if there are any.
    pub fn policies(&self) -> Option<&serde_json::Map<String, serde_json::Value>> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

fn policy(table: &toml::Table) -> Option<serde_json::Value> {
    let mut policy = serde_json::Map::new();
    policy.insert("version".to_owned(), table.get("version")?.as_str()?.into());
    for (language, document) in table.iter().filter(|(key, _)| *key != "version") {
        let document = document.as_table().filter(|document| document.len() == 2)?;
        let (name, url) = (document.get("name")?.as_str()?, document.get("url")?.as_str()?);
        url.parse::<PublicUrl>().ok()?;
        policy.insert(language.clone(), serde_json::json!({ "name": name, "url": url }));
    }
    (policy.len() > 1).then_some(policy.into())
}

impl Setting for Terms {
    fn kind() -> Kind {
        Kind::value(
            "a table of documents, each a table with its `version` and by language a table `{ name = …, url = … }`",
        )
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let is_name = |name: &str| {
            (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~_".contains(&b))
        };
        let documents = value.as_table().and_then(|documents| {
            let documents = documents.iter().map(|(name, document)| {
                is_name(name).then_some(())?;
                Some((name.clone(), policy(document.as_table()?)?))
            });
            documents.collect::<Option<_>>().map(Self)
        });
        reader.expect(documents, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        self.0.is_empty().then(|| "{}".to_owned())
    }
}

/// `localhost`, for trying the server out.
pub(super) fn default_server_name() -> OwnedServerName {
    ServerName::parse("localhost").unwrap_or_else(|_| unreachable!("a fixed name that is valid"))
}

/// Addresses that are not of the public Internet: private, local, reserved, multicast.
pub(super) fn address_ranges() -> Vec<IpNet> {
    const RANGES: [&str; 27] = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/32",
        "2001:db8::/32",
        "2002::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    ];
    RANGES.iter().filter_map(|range| range.parse().ok()).collect()
}

fn quoted(text: impl Display) -> String {
    Value::String(text.to_string()).to_string()
}

impl Setting for bool {
    fn kind() -> Kind {
        Kind::value("`true` or `false`")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.as_bool();
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u16 {
    fn kind() -> Kind {
        Kind::value("a number from 1 to 65535")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.as_integer().and_then(|number| Self::try_from(number).ok()).filter(|number| *number > 0);
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for u32 {
    fn kind() -> Kind {
        Kind::value("a number from 1 to 4294967295")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.as_integer().and_then(|number| Self::try_from(number).ok()).filter(|number| *number > 0);
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for ByteSize {
    fn kind() -> Kind {
        Kind::value("a number of bytes, or a string such as `\"50 MiB\"`")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let text = value.as_integer().map(|number| number.to_string()).or_else(|| value.as_str().map(str::to_owned));
        let read = text.and_then(|text| text.parse().ok());
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for Rate {
    fn kind() -> Kind {
        Kind::value("a table `{ burst = …, per_minute = … }` of two numbers from 1 to 4294967295")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let number = |table: &toml::Table, key: &str| {
            table.get(key)?.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
        };
        let read = value
            .as_table()
            .filter(|table| table.len() == 2)
            .and_then(|table| Some(Self { burst: number(table, "burst")?, per_minute: number(table, "per_minute")? }));
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        Some(format!("{{ burst = {}, per_minute = {} }}", self.burst, self.per_minute))
    }
}

/// Implements [`Setting`] for a value that is written as a string.
macro_rules! text {
    ($type:ty, $allowed:expr, |$text:ident, $reader:ident| $read:expr, |$this:ident| $show:expr) => {
        impl Setting for $type {
            fn kind() -> Kind {
                Kind::value($allowed)
            }

            fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
                let read: Option<Self> = value.as_str().and_then(|$text| {
                    let $reader = &*reader;
                    let _ = $reader;
                    $read
                });
                reader.expect(read, value, &Self::kind())
            }

            fn show(&self) -> Option<String> {
                let $this = self;
                $show
            }
        }
    };
}

text!(String, "a string", |text, reader| Some(text.to_owned()), |this| Some(quoted(this)));

text!(Secret, "a string", |text, reader| (!text.is_empty()).then(|| Self(text.to_owned())), |_this| None);

text!(OwnedServerName, "a string `host` or `host:port`", |text, reader| ServerName::parse(text).ok(), |this| Some(
    quoted(this)
));

text!(
    PathBuf,
    "a path; a relative one starts at the file it stands in",
    |text, reader| (!text.is_empty()).then(|| reader.base().join(text)),
    |this| (!this.as_os_str().is_empty()).then(|| quoted(this.display()))
);

text!(PublicUrl, "a URL `https://…` or `http://…`", |text, reader| text.parse().ok(), |this| Some(quoted(&this.0)));

text!(
    Database,
    "`sqlite:PATH` or `postgres://…`",
    |text, reader| {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            Some(Self::sqlite(reader.base().join(path)))
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Some(Self::postgres(text.to_owned()))
        } else {
            None
        }
    },
    |this| Some(quoted(this))
);

text!(
    MediaStorage,
    "`file:PATH` or `s3://BUCKET` or `s3://BUCKET/PREFIX`",
    |text, reader| match (text.strip_prefix("file:"), text.strip_prefix("s3://")) {
        (Some(path), _) if !path.is_empty() => Some(Self::Directory(reader.base().join(path))),
        (_, Some(rest)) => {
            let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_matches('/');
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            (!name.is_empty()).then(|| Self::Bucket { name: name.to_owned(), prefix })
        }
        _ => None,
    },
    |this| match this {
        Self::Directory(path) => Some(quoted(format!("file:{}", path.display()))),
        Self::Bucket { name, prefix } => Some(quoted(format!("s3://{name}/{prefix}"))),
    }
);

text!(
    ClamAv,
    "`unix:PATH` or `tcp:HOST:PORT`",
    |text, reader| match (text.strip_prefix("unix:"), text.strip_prefix("tcp:")) {
        (Some(path), _) if !path.is_empty() => Some(Self::Unix(reader.base().join(path))),
        (_, Some(address)) if address.contains(':') => Some(Self::Tcp(address.to_owned())),
        _ => None,
    },
    |this| match this {
        Self::Unix(path) => Some(quoted(format!("unix:{}", path.display()))),
        Self::Tcp(address) => Some(quoted(format!("tcp:{address}"))),
    }
);

text!(Period, "a string such as `\"90d\"` or `\"12h\"`", |text, reader| text.parse().ok(), |this| Some(quoted(this)));

text!(
    Bind,
    "`IP:PORT` or `unix:PATH`",
    |text, reader| match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Self::Unix(reader.base().join(path))),
        None => SocketAddr::from_str(text).ok().map(Self::Tcp),
    },
    |this| Some(quoted(this))
);

text!(
    Resource,
    Resource::ALL.map(|resource| quoted(resource.name())).join(", "),
    |text, reader| Self::ALL.into_iter().find(|resource| resource.name() == text),
    |this| Some(quoted(this.name()))
);

text!(
    IpNet,
    "a range of addresses such as `10.0.0.0/8`, or an address",
    |text, reader| text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(Self::from)),
    |this| Some(quoted(this))
);

text!(
    RoomVersionId,
    "a room version from `\"1\"` to `\"12\"`",
    |text, reader| text
        .parse::<u8>()
        .ok()
        .filter(|number| (1..=12).contains(number) && !text.starts_with('0') && !text.starts_with('+'))
        .and_then(|_| Self::try_from(text).ok()),
    |this| Some(quoted(this))
);

text!(
    LogLevel,
    "`error`, `warn`, `info`, `debug` or `trace`, with exceptions by module",
    |text, reader| {
        let names_a_level =
            |part: &str| part.contains('=') || ["error", "warn", "info", "debug", "trace", "off"].contains(&part);
        (EnvFilter::try_new(text).is_ok() && text.split(',').all(|part| names_a_level(part.trim())))
            .then(|| Self(text.to_owned()))
    },
    |this| Some(quoted(&this.0))
);

text!(
    LogFormat,
    "`text` or `json`",
    |text, reader| match text {
        "text" => Some(Self::Text),
        "json" => Some(Self::Json),
        _ => None,
    },
    |this| Some(quoted(match this {
        Self::Text => "text",
        Self::Json => "json",
    }))
);

impl<T: Setting> Setting for Option<T> {
    fn kind() -> Kind {
        T::kind()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(value, reader).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn kind() -> Kind {
        match T::kind() {
            Kind::Value { allowed } => Kind::Value { allowed: format!("a list; each of it {allowed}") },
            Kind::Table { about, keys } | Kind::Tables { about, keys } => Kind::Tables { about, keys },
        }
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let items = reader.expect(value.as_array(), value, &Self::kind())?;
        items.iter().enumerate().map(|(at, item)| reader.item(at, item)).collect()
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(T::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

impl Setting for BTreeMap<OwnedServerName, BTreeMap<String, String>> {
    fn kind() -> Kind {
        Kind::value("a table of server names, each with a table of key ids and public keys")
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let read = value.as_table().and_then(|servers| {
            let keys = |keys: &Value| -> Option<BTreeMap<String, String>> {
                keys.as_table()?.iter().map(|(id, key)| Some((id.clone(), key.as_str()?.to_owned()))).collect()
            };
            servers.iter().map(|(name, table)| Some((ServerName::parse(name).ok()?, keys(table)?))).collect()
        });
        reader.expect(read, value, &Self::kind())
    }

    fn show(&self) -> Option<String> {
        self.is_empty().then(|| "{}".to_owned())
    }
}

//! `hearth config`, and what is refused.

use std::path::Path;

use crate::process::{failure, hearth, run, stdout};

fn check(text: &str) -> Result<String, String> {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("hearth.toml"), text).unwrap();
    let output = run(home.path(), &["config", "check", "--config", "hearth.toml"]);
    if output.status.success() { Ok(stdout(&output)) } else { Err(failure(&output)) }
}

/// All the keys that other tools write.
const EVERY_KEY: &str = r#"
server_name = "example.org:8448"
data_dir = "data"
public_url = "https://matrix.example.org"

[database]
url = "postgres://hearth:password@localhost/hearth"

[[listeners]]
bind = "0.0.0.0:8008"
resources = ["client", "federation", "media", "admin", "metrics", "health"]
trusted_proxies = ["10.0.0.0/8", "::1/128"]

[[listeners]]
bind = "[::]:8448"
tls = { certificate = "cert.pem", key = "key.pem" }

[[listeners]]
bind = "unix:hearth.sock"

[outbound]
trusted_ca = ["ca.crt"]
ip_range_allow = ["10.0.0.0/8"]
ip_range_deny = ["192.168.0.0/16"]

[federation]
enabled = true

[registration]
enabled = true
shared_secret = "secret"
token_required = true
guests = true

[rooms]
default_version = "10"

[directory]
open = true
open_to_federation = true

[rate_limits]
enabled = false

[appservices]
files = ["bridge.yaml"]

[trusted_key_servers]
"matrix.org" = { "ed25519:auto" = "Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw" }
"example.com" = {}

[media]
storage = "s3://bucket/prefix"
max_upload_size = "50 MiB"
user_quota = 1000000000
user_quota_files = 1000
max_remote_size = "1 GiB"
max_remote_cache = "10 GiB"
max_picture_pixels = 10000000
blurhash = true
keep_local = "365d"
keep_remote = "12h"
clamav = "tcp:localhost:3310"
denied_servers = ["*.example.com"]
s3.endpoint = "https://s3.example.org"
s3.region = "eu-west-1"
s3.access_key = "key"
s3.secret_key = "secret"
unauthenticated_legacy = true

[email]
smtp = "smtp://user:password@mail.example.org"
from = "Hearth <hearth@example.org>"

[url_previews]
enabled = true
denied_domains = ["example.com"]

[presence]
enabled = false

[logging]
level = "debug"
"#;

#[test]
fn all_fixed_keys_are_taken() {
    assert_eq!(check(EVERY_KEY), Ok("The settings of example.org:8448 are fine.\n".to_owned()));
    assert_eq!(check(""), Ok("The settings of localhost are fine.\n".to_owned()));
}

#[test]
fn what_is_wrong_is_named_with_file_key_and_what_is_allowed() {
    let cases = [
        ("nonsense = 1", "hearth.toml: `nonsense` is unknown; known here: server_name, data_dir"),
        ("[registration]\nopen = true", "`registration.open` is unknown; known here: enabled, shared_secret"),
        ("[registration]\nenabled = \"yes\"", "`registration.enabled` must be `true` or `false`, but is \"yes\""),
        ("[[listeners]]\nbind = \"8008\"", "`listeners[0].bind` must be `IP:PORT` or `unix:PATH`, but is \"8008\""),
        ("[[listeners]]\nresources = [\"clients\"]", "`listeners[0].resources[0]` must be \"client\", \"federation\""),
        ("[[listeners]]\ntls = {}", "`listeners[0].tls` needs both `certificate` and `key`"),
        ("[[listeners]]\nport = 1", "`listeners[0].port` is unknown; known here: bind, tls"),
        ("server_name = \"not a name\"", "`server_name` must be a string `host` or `host:port`"),
        ("public_url = \"example.org\"", "`public_url` must be a URL"),
        ("[rooms]\ndefault_version = \"13\"", "`rooms.default_version` must be a room version"),
        ("[database]\nurl = \"mysql://x:hidden@y\"", "`database.url` must be `sqlite:PATH` or `postgres://…`"),
        ("[outbound]\nip_range_deny = [\"10.0.0.0/33\"]", "`outbound.ip_range_deny[0]` must be a range of addresses"),
        ("[logging]\nlevel = \"loud\"", "`logging.level` must be `error`"),
        ("registration = 5", "`registration` must be a table, but is 5"),
        ("server_name = ", "hearth.toml: "),
    ];
    for (text, reason) in cases {
        let got = check(text).unwrap_err();
        assert!(got.contains(reason), "{text}\n{got}");
        assert!(!got.contains("hidden"), "{got}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let reason = check("nonsense = 1\n[presence]\nenabled = 2\n[media]\nstorage = 3").unwrap_err();
    assert_eq!(reason.lines().count(), 3, "{reason}");
}

#[test]
fn the_environment_wins_over_the_file() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("hearth.toml"), "server_name = \"file.example\"").unwrap();
    let check = |variables: &[(&str, &str)], options: &[&str]| {
        let mut command = hearth(home.path(), &["config", "check", "--config", "hearth.toml"]);
        command.args(options).envs(variables.iter().copied()).output().unwrap()
    };
    assert!(stdout(&check(&[], &[])).contains("file.example"));
    assert!(stdout(&check(&[("HEARTH__SERVER_NAME", "env.example")], &[])).contains("env.example"));
    let options = ["--server-name", "option.example"];
    assert!(stdout(&check(&[("HEARTH__SERVER_NAME", "env.example")], &options)).contains("option.example"));
    stdout(&check(
        &[
            ("HEARTH__REGISTRATION__ENABLED", "true"),
            ("HEARTH__REGISTRATION__SHARED_SECRET", "12345"),
            ("HEARTH__DATABASE__URL", "sqlite:x.db"),
            ("HEARTH__LISTENERS", r#"[{ bind = "127.0.0.1:9", resources = ["health"] }]"#),
            ("HEARTH_OTHER", "not ours"),
        ],
        &[],
    ));
    let reason = failure(&check(&[("HEARTH__REGISTRATION__ENABLED", "maybe")], &[]));
    assert!(reason.contains("HEARTH__REGISTRATION__ENABLED: `registration.enabled` must be"), "{reason}");
    let reason = failure(&check(&[("HEARTH__NONSENSE", "1")], &[]));
    assert!(reason.contains("HEARTH__NONSENSE: `nonsense` is unknown"), "{reason}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let reason = failure(&run(Path::new("/"), &["config", "check", "--config", "/nonexistent.toml"]));
    assert!(reason.starts_with("hearth: /nonexistent.toml: "), "{reason}");
}

#[test]
fn the_reference_knows_every_fixed_key() {
    let markdown = stdout(&run(Path::new("/"), &["config", "reference", "--markdown"]));
    let text = stdout(&run(Path::new("/"), &["config", "reference"]));
    let keys = EVERY_KEY.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.trim_matches('"'));
    for key in keys.filter(|key| !key.contains("example") && !key.contains("matrix.org")) {
        assert!(markdown.contains(&format!("| `{key}")), "{key}");
        assert!(text.lines().any(|line| line.starts_with(key)), "{key}");
    }
}

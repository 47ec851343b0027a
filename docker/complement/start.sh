#!/bin/sh
# A homeserver as Complement wants it: named by SERVER_NAME, with a certificate from Complement's authority, open to
# registration and without rate limits. It runs again on the data of an earlier run.
set -eu
data=/data
ca=/complement/ca
mkdir -p "$data"

if [ ! -e "$data/tls.crt" ]; then
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$SERVER_NAME" -keyout "$data/tls.key" -out "$data/tls.csr" 2>/dev/null
    echo "subjectAltName=DNS:$SERVER_NAME" >"$data/tls.ext"
    openssl x509 -req -in "$data/tls.csr" -extfile "$data/tls.ext" -days 365 -out "$data/tls.crt" \
        -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -set_serial "0x$(openssl rand -hex 16)" 2>/dev/null
fi

appservices=
for file in /complement/appservice/*.yaml; do
    [ ! -e "$file" ] || appservices="$appservices\"$file\", "
done

cat >"$data/hearth.toml" <<TOML
server_name = "$SERVER_NAME"
data_dir = "$data"
public_url = "http://$SERVER_NAME:8008"

[database]
url = "sqlite:$data/hearth.db"

[[listeners]]
bind = "0.0.0.0:8008"

[[listeners]]
bind = "0.0.0.0:8448"
tls = { certificate = "$data/tls.crt", key = "$data/tls.key" }

[outbound]
trusted_ca = ["$ca/ca.crt"]
ip_range_allow = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fc00::/7", "fe80::/10"]

[registration]
enabled = true
token_required = false
guests = true
shared_secret = "complement"

[rooms]
default_version = "10"

[directory]
open = true
open_to_federation = true

[media]
unauthenticated_legacy = true

[url_previews]
enabled = true

[rate_limits]
enabled = false

[appservices]
files = [$appservices]

[logging]
level = "${HEARTH_LOG:-info}"
TOML

exec hearth serve --config "$data/hearth.toml"

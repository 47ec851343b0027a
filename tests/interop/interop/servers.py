"""The two servers: certificates of one authority, configuration, processes, and the links between them."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.client import HTTPSConnection
from pathlib import Path

from signedjson.key import decode_signing_key_base64
from signedjson.sign import sign_json

from .client import User, until


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Link:
    """The way to a server's federation port. It can be cut and healed, for all who come or for one."""

    def __init__(self, target_port):
        self.target_port = target_port
        self.is_cut = False
        self.shut_out = set()
        self.open = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self.listener.accept()
            if self.is_cut or any(_is_from(near, server) for server in self.shut_out):
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            self.open.discard(end)
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        self.is_cut = True
        self._end(self.open)

    def cut_from(self, server):
        """The one server does not come through any more."""
        self.shut_out.add(server)
        self._end(end for end in list(self.open) if _is_from(end, server))

    def heal(self):
        self.is_cut = False
        self.shut_out.clear()

    @staticmethod
    def _end(connections):
        for end in list(connections):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _is_from(connection, server):
    """Whether the other end of a connection over loopback is held by a server's process."""
    try:
        port = connection.getpeername()[1]
    except OSError:
        return False
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    held = {f"socket:[{fields[9]}]" for fields in lines if int(fields[1].split(":")[1], 16) == port}
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            if os.readlink(descriptor) in held:
                return True
        except OSError:
            continue
    return False


class Authority:
    """A certificate authority of our own."""

    def __init__(self, directory):
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                      "-subj", "/CN=Interop authority", "-keyout", "ca.key", "-out", "ca.crt",
                      "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def certify(self, name):
        (self.directory / f"{name}.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                      "-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-extfile", f"{name}.ext", "-days", "30", "-out", f"{name}.crt",
                      "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)


class Server:
    """A homeserver at work."""

    kind = ""
    host = "localhost"

    def __init__(self, directory, authority, label=None):
        self.label = label or self.kind
        self.directory = directory / self.label
        self.directory.mkdir()
        self._crowd = []
        self.client_port = free_port()
        self.federation_port = free_port()
        self.link = Link(self.federation_port)
        self.name = f"{self.host}:{self.link.port}"
        self.log = self.directory / "log"
        self.process = None
        self.trust = ssl.create_default_context(cafile=authority.certificate)
        self.configure(authority)

    def configure(self, authority):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), cwd=self.directory, stdout=log, stderr=log)
        until(f"{self.label} answers", self._answers, 60)

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.label} ended with {self.process.returncode}:\n{self.last_words()}")
        with socket.create_connection(("127.0.0.1", self.client_port), timeout=1):
            pass
        with socket.create_connection(("127.0.0.1", self.federation_port), timeout=1):
            return True

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self):
        self.stop(signal.SIGKILL)

    def crowd(self, count):
        """Many users, always the same."""
        while len(self._crowd) < count:
            self._crowd.append(User(self, f"crowd{len(self._crowd)}"))
        return self._crowd[:count]

    def ask(self, other, method, path, body=None):
        """What another server answers to a request that is signed with this one's key: status and content."""
        kind, version, seed = self._key_file().read_text().split()
        request = {"method": method, "uri": path, "origin": self.name, "destination": other.name}
        if body is not None:
            request["content"] = body
        signed = sign_json(request, self.name, decode_signing_key_base64(kind, version, seed))
        (key_id, signature), = signed["signatures"][self.name].items()
        header = f'X-Matrix origin="{self.name}",destination="{other.name}",key="{key_id}",sig="{signature}"'
        connection = HTTPSConnection("localhost", other.federation_port, timeout=60, context=other.trust)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Authorization": header, "Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _key_file(self):
        raise NotImplementedError

    def last_words(self, lines=40):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Hearth(Server):
    kind = "hearth"

    def configure(self, authority):
        certificate, key = authority.certify(self.label)
        (self.directory / "hearth.toml").write_text(f"""
server_name = "{self.name}"
data_dir = "{self.directory}/data"
public_url = "http://127.0.0.1:{self.client_port}"

[[listeners]]
bind = "127.0.0.1:{self.client_port}"

[[listeners]]
bind = "127.0.0.1:{self.federation_port}"
tls = {{ certificate = "{certificate}", key = "{key}" }}

[outbound]
trusted_ca = ["{authority.certificate}"]
ip_range_allow = ["127.0.0.0/8", "::1/128"]

[registration]
enabled = true
token_required = false

[directory]
open_to_federation = true

[rate_limits]
enabled = false

[logging]
level = "{os.environ.get("HEARTH_LOG", "info")}"
""")

    def _key_file(self):
        return self.directory / "data" / "signing.key"

    def command(self):
        return [os.environ["HEARTH_BINARY"], "serve", "--config", str(self.directory / "hearth.toml")]


class Synapse(Server):
    kind = "synapse"
    # Access control lists see no ports: the two need hosts of their own.
    host = "127.0.0.1"

    def configure(self, authority):
        certificate, key = authority.certify(self.label)
        (self.directory / "log.yaml").write_text("""
version: 1
formatters: {plain: {format: '%(asctime)s %(levelname)s %(name)s %(message)s'}}
handlers: {console: {class: logging.StreamHandler, formatter: plain}}
root: {level: INFO, handlers: [console]}
disable_existing_loggers: false
""")
        limit = "{per_second: 100000, burst_count: 100000}"
        (self.directory / "homeserver.yaml").write_text(f"""
server_name: "{self.name}"
pid_file: {self.directory}/pid
report_stats: false
signing_key_path: {self.directory}/signing.key
log_config: {self.directory}/log.yaml
media_store_path: {self.directory}/media
database: {{name: sqlite3, args: {{database: {self.directory}/homeserver.db}}}}
listeners:
  - {{port: {self.client_port}, bind_addresses: [127.0.0.1], type: http, tls: false, resources: [{{names: [client]}}]}}
  - {{port: {self.federation_port}, bind_addresses: [127.0.0.1], type: http, tls: true, resources: [{{names: [federation]}}]}}
tls_certificate_path: {certificate}
tls_private_key_path: {key}
federation_custom_ca_list: [{authority.certificate}]
ip_range_blacklist: []
federation_ip_range_blacklist: []
trusted_key_servers: []
suppress_key_server_warning: true
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
registration_shared_secret: interop
macaroon_secret_key: interop
form_secret: interop
allow_public_rooms_over_federation: true
allow_public_rooms_without_auth: true
room_list_publication_rules: [{{action: allow}}]
federation: {{destination_min_retry_interval: 500, destination_max_retry_interval: 1s, destination_retry_multiplier: 1, max_short_retries: 1, max_short_retry_delay: 500, max_long_retry_delay: 500}}
caches: {{sync_response_cache_duration: 0s}}
rc_message: {limit}
rc_registration: {limit}
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}}
rc_joins: {{local: {limit}, remote: {limit}}}
rc_joins_per_room: {limit}
rc_invites: {{per_room: {limit}, per_user: {limit}, per_issuer: {limit}}}
rc_login: {{address: {limit}, account: {limit}, failed_attempts: {limit}}}
rc_admin_redaction: {limit}
rc_presence: {{per_user: {limit}}}
""")
        subprocess.run([sys.executable, "-m", "synapse.app.homeserver", "--generate-keys", "--config-path",
                        str(self.directory / "homeserver.yaml")], check=True, capture_output=True)

    def _key_file(self):
        return self.directory / "signing.key"

    def command(self):
        return [sys.executable, "-m", "synapse.app.homeserver", "--config-path", str(self.directory / "homeserver.yaml")]


class Town:
    """Both servers, running, and a second Hearth for scenarios that want a third."""

    def __init__(self, directory):
        self.directory = Path(directory).resolve()
        self.authority = Authority(self.directory)
        self.servers = []
        self._third = None

    def start(self):
        for kind in (Hearth, Synapse):
            self._add(kind(self.directory, self.authority))
        return self.servers[:2]

    def third(self):
        if not self._third:
            self._third = self._add(Hearth(self.directory, self.authority, "third"))
        return self._third

    def _add(self, server):
        self.servers.append(server)
        server.start()
        return server

    def mend(self):
        """After a failure: all run, and nothing is cut. Tells who had ended."""
        ended = []
        for server in self.servers:
            server.link.heal()
            if server.process.poll() is not None:
                ended.append(f"{server.label} ended with {server.process.returncode}")
                server.start()
        return ended

    def stop(self):
        for server in self.servers:
            server.stop()


def pause(seconds):
    """For what must *not* happen, there is no condition to wait for."""
    time.sleep(seconds)

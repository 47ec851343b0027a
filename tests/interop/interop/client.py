"""A client of one user, over plain HTTP. What a server refuses is raised as `Refused`."""

import http.client
import itertools
import json
import time
from urllib.parse import quote, urlencode

PASSWORD = "correct horse battery staple"
DEADLINE_S = 40


class Refused(Exception):
    def __init__(self, status, body):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


def until(what, find, deadline_s=DEADLINE_S):
    """Asks until there is an answer that is true; what does not come in time fails the scenario."""
    end = time.monotonic() + deadline_s
    last = None
    while time.monotonic() < end:
        try:
            found = find()
            if found:
                return found
        except (Refused, OSError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {what}" + (f" (last: {last})" if last else ""))


class User:
    _txn = itertools.count()

    def __init__(self, server, localpart):
        self.server = server
        self.token = None
        answer = self.call("POST", "/v3/register", {
            "username": localpart, "password": PASSWORD, "auth": {"type": "m.login.dummy"},
        })
        self.token = answer["access_token"]
        self.user_id = answer["user_id"]

    def call(self, method, path, body=None, query=None, timeout=60):
        data = None if body is None else json.dumps(body)
        text, _ = self._ask(method, path, data, "application/json", query, timeout)
        return json.loads(text)

    def _ask(self, method, path, data, content_type, query=None, timeout=60):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.client_port, timeout=timeout)
        try:
            url = path if path.startswith("/_matrix/") else "/_matrix/client" + path
            if query:
                url += "?" + urlencode(query, doseq=True)
            headers = {"Content-Type": content_type}
            if self.token:
                headers["Authorization"] = f"Bearer {self.token}"
            connection.request(method, url, data, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status != 200:
            try:
                answer = json.loads(text)
            except ValueError:
                answer = {"error": text.decode(errors="replace")}
            raise Refused(response.status, answer)
        return text, response.headers

    # Files.

    def upload(self, content, content_type, name):
        """Server and media id of a new file, as in a path."""
        query = {"filename": name}
        answer, _ = self._ask("POST", "/_matrix/media/v3/upload", content, content_type, query)
        return json.loads(answer)["content_uri"].removeprefix("mxc://")

    def get_file(self, path, **query):
        """A file and the headers that it comes with."""
        return self._ask("GET", path, None, "application/json", query)

    def room(self, method, room_id, rest, body=None, query=None):
        return self.call(method, f"/v3/rooms/{quote(room_id, safe='')}/{rest}", body, query)

    # Rooms.

    def create(self, version, **options):
        options.setdefault("preset", "public_chat")
        return self.call("POST", "/v3/createRoom", {"room_version": version, **options})["room_id"]

    def join(self, room, via=None):
        query = {"via": [via], "server_name": [via]} if via else None
        return self.call("POST", f"/v3/join/{quote(room, safe='')}", {}, query)["room_id"]

    def knock(self, room, via):
        return self.call("POST", f"/v3/knock/{quote(room, safe='')}", {}, {"via": [via], "server_name": [via]})

    def leave(self, room_id):
        self.room("POST", room_id, "leave", {})

    def act(self, room_id, action, user_id, **more):
        self.room("POST", room_id, action, {"user_id": user_id, **more})

    def send(self, room_id, text):
        return self.send_event(room_id, "m.room.message", {"msgtype": "m.text", "body": text})

    def send_event(self, room_id, kind, content):
        return self.room("PUT", room_id, f"send/{quote(kind, safe='')}/t{next(self._txn)}", content)["event_id"]

    def set_state(self, room_id, kind, content, state_key=""):
        path = f"state/{quote(kind, safe='')}/{quote(state_key, safe='')}"
        return self.room("PUT", room_id, path, content)["event_id"]

    def redact(self, room_id, event_id):
        return self.room("PUT", room_id, f"redact/{quote(event_id, safe='')}/t{next(self._txn)}", {})["event_id"]

    # What is seen.

    def state(self, room_id):
        return self.room("GET", room_id, "state")

    def state_content(self, room_id, kind, state_key=""):
        return self.room("GET", room_id, f"state/{kind}/{quote(state_key, safe='')}")

    def membership(self, room_id, user_id):
        return self.state_content(room_id, "m.room.member", user_id).get("membership")

    def joined(self, room_id):
        return set(self.room("GET", room_id, "joined_members")["joined"])

    def event(self, room_id, event_id):
        return self.room("GET", room_id, f"event/{quote(event_id, safe='')}")

    def has(self, room_id, event_id):
        try:
            return self.event(room_id, event_id)
        except Refused:
            return None

    def history(self, room_id, most=2000):
        """The timeline as the server tells it, newest first."""
        events, token = [], None
        while len(events) < most:
            query = {"dir": "b", "limit": 100}
            if token:
                query["from"] = token
            page = self.room("GET", room_id, "messages", query=query)
            events += page["chunk"]
            token = page.get("end")
            if not token:
                break
        return events

    def sync(self, since=None, timeout_ms=0):
        query = {"timeout": timeout_ms}
        if since:
            query["since"] = since
        return self.call("GET", "/v3/sync", query=query, timeout=timeout_ms / 1000 + 60)

    def section(self, room_id):
        """In which part of an initial sync a room is: join, invite, knock, leave or none."""
        rooms = self.sync().get("rooms", {})
        return next((name for name in ("join", "invite", "knock", "leave") if room_id in rooms.get(name, {})), None)

    # What passes.

    def read(self, room_id, event_id, kind="m.read", **body):
        self.room("POST", room_id, f"receipt/{kind}/{quote(event_id, safe='')}", body)

    def type(self, room_id, is_typing=True):
        body = {"typing": is_typing, "timeout": 20000} if is_typing else {"typing": False}
        self.room("PUT", room_id, f"typing/{quote(self.user_id, safe='')}", body)

    def show(self, presence, **more):
        self.call("PUT", f"/v3/presence/{quote(self.user_id, safe='')}/status", {"presence": presence, **more})

    def set_profile(self, key, value):
        self.call("PUT", f"/v3/profile/{quote(self.user_id, safe='')}/{key}", {key: value})

    def ephemeral(self, since, room_id, kind):
        """News of a kind in a room since a token, and the next token."""
        answer = self.sync(since, 500)
        room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
        found = [event for event in room.get("ephemeral", {}).get("events", []) if event["type"] == kind]
        return found, answer["next_batch"], answer

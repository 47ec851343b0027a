"""What the two servers do with each other. Each scenario runs with either server as the one that has the room.

A scenario takes a `Pair`: `here` has the room, `there` comes from the other server. After it, `agree` asks both for the same
state, members and timeline: each is the other's second opinion.
"""

import io
import itertools
import threading
from http.client import HTTPSConnection
from urllib.parse import quote

from PIL import Image

from .client import DEADLINE_S, Refused, User, until
from .servers import pause

SCENARIOS = []
_names = itertools.count(1)


class Pair:
    """Two servers and what a scenario may vary."""

    def __init__(self, here, there, version, long):
        self.here, self.there, self.version, self.long = here, there, version, long

    def people(self, *sides):
        """New users: `h` on the server that has the room, `t` on the other."""
        number = next(_names)
        servers = {"h": self.here, "t": self.there}
        return [User(servers[side], f"user{number}{letter}") for side, letter in zip(sides, "abcdef")]


def scenario(versions="short", since=1, long_only=False, directions=True):
    """Marks a scenario: for all versions (`all`) or a few, from a room version on; without directions if it goes both ways."""
    def mark(run):
        SCENARIOS.append((run.__name__, run, versions, since, long_only, directions))
        return run
    return mark


def shape(event):
    """What both servers must say alike of an event."""
    return (event["type"], event.get("state_key"), event["sender"], event["event_id"])


def agree(room, *users, timeline=True):
    """Both servers show the same state, members and newest messages."""
    def same(see):
        views = [see(user) for user in users]
        return all(view == views[0] for view in views)

    def state(user):
        return sorted(map(str, map(shape, user.state(room))))

    def messages(user):
        kinds = ("m.room.message", "m.room.redaction")
        # What was said at the same time each server may order as it came.
        return sorted(event["event_id"] for event in user.history(room, 200) if event["type"] in kinds)

    views = [("state", state), ("members", lambda user: user.joined(room))]
    if timeline:
        views.append(("timeline", messages))
    for what, see in views:
        try:
            until(f"the same {what}", lambda see=see: same(see))
        except AssertionError as error:
            views = [see(user) for user in users]
            raise AssertionError(f"{error}\n" + "\n".join(f"{user.user_id}: {view}" for user, view in zip(users, views)))


def arrives(user, room, event_id, deadline_s=DEADLINE_S):
    return until(f"{event_id} arrives at {user.user_id}", lambda: user.has(room, event_id), deadline_s)


def is_member(user, room, user_id, membership, deadline_s=DEADLINE_S):
    until(f"{user.user_id} sees that {user_id} is {membership}",
          lambda: user.membership(room, user_id) == membership, deadline_s)


@scenario(versions="all")
def a_public_room_is_joined_and_talked_in(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, name="Public", topic="All may come")
    before = alice.send(room, "before you came")
    bob.join(room, pair.here.name)
    assert bob.room("GET", room, "state/m.room.name/")["name"] == "Public"
    until("what was said before is fetched", lambda: before in [event["event_id"] for event in bob.history(room)])
    is_member(alice, room, bob.user_id, "join")
    arrives(bob, room, alice.send(room, "hello"))
    arrives(alice, room, bob.send(room, "hello yourself"))
    for number in range(5):
        alice.send(room, f"a{number}")
        bob.send(room, f"b{number}")
    agree(room, alice, bob)


@scenario()
def an_alias_leads_to_the_room(pair):
    alice, bob = pair.people("h", "t")
    local = f"alias{next(_names)}"
    room = alice.create(pair.version, room_alias_name=local, visibility="public", name=local)
    alias = f"#{local}:{pair.here.name}"
    assert bob.call("GET", f"/v3/directory/room/{alias.replace('#', '%23')}")["room_id"] == room
    # Synapse remembers for half a minute what another server answered to the same question.
    limit = 100 + next(_names)
    listed = bob.call("GET", "/v3/publicRooms", query={"server": pair.here.name, "limit": limit})["chunk"]
    assert room in [entry["room_id"] for entry in listed], listed
    found = bob.call("POST", "/v3/publicRooms", {"filter": {"generic_search_term": local}}, {"server": pair.here.name})
    assert [entry["room_id"] for entry in found["chunk"]] == [room], found
    assert bob.join(alias) == room
    agree(room, alice, bob)


@scenario(versions="all")
def an_invite_is_accepted(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, preset="private_chat", name="Private")
    alice.act(room, "invite", bob.user_id)
    until("the invite shows", lambda: bob.section(room) == "invite")
    invited = bob.sync()["rooms"]["invite"][room]["invite_state"]["events"]
    assert any(event["type"] == "m.room.name" for event in invited), invited
    bob.join(room)
    arrives(alice, room, bob.send(room, "thanks"))
    agree(room, alice, bob)


@scenario()
def an_invite_is_declined(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, preset="private_chat")
    alice.act(room, "invite", bob.user_id)
    until("the invite shows", lambda: bob.section(room) == "invite")
    bob.leave(room)
    is_member(alice, room, bob.user_id, "leave")
    assert bob.section(room) != "invite"


@scenario()
def an_invite_is_taken_back(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, preset="private_chat")
    alice.act(room, "invite", bob.user_id)
    until("the invite shows", lambda: bob.section(room) == "invite")
    alice.act(room, "kick", bob.user_id)
    until("the invite is gone", lambda: bob.section(room) != "invite")
    try:
        bob.join(room, pair.here.name)
        raise AssertionError("the invite was still good")
    except Refused as refusal:
        assert refusal.status == 403, refusal


@scenario(since=7)
def a_knock_is_answered(pair):
    alice, bob = pair.people("h", "t")
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create(pair.version, preset="private_chat", name="Knock", initial_state=[rules])
    bob.knock(room, pair.here.name)
    is_member(alice, room, bob.user_id, "knock")
    until("the knock shows", lambda: bob.section(room) == "knock")
    alice.act(room, "invite", bob.user_id)
    until("the invite shows", lambda: bob.section(room) == "invite")
    bob.join(room)
    is_member(alice, room, bob.user_id, "join")
    agree(room, alice, bob)


@scenario(since=7)
def a_knock_is_taken_back(pair):
    if pair.there.kind == "synapse":
        return  # Synapse takes a knock back on its own side only.
    alice, bob = pair.people("h", "t")
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = alice.create(pair.version, preset="private_chat", initial_state=[rules])
    bob.knock(room, pair.here.name)
    is_member(alice, room, bob.user_id, "knock")
    until("the knock shows", lambda: bob.section(room) == "knock")
    bob.leave(room)
    is_member(alice, room, bob.user_id, "leave")


@scenario(since=8)
def members_of_a_room_may_join_another(pair):
    alice, bob, eve = pair.people("h", "t", "t")
    gate = alice.create(pair.version)
    allow = [{"type": "m.room_membership", "room_id": gate}]
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "restricted", "allow": allow}}
    room = alice.create(pair.version, preset="private_chat", initial_state=[rules])
    bob.join(gate, pair.here.name)
    is_member(alice, gate, bob.user_id, "join")
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    try:
        eve.join(room, pair.here.name)
        raise AssertionError("a stranger came in")
    except Refused as refusal:
        assert refusal.status == 403, refusal
    agree(room, alice, bob)


@scenario()
def people_go_are_shown_out_and_come_back(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        user.join(room, pair.here.name)
        is_member(alice, room, user.user_id, "join")
    bob.leave(room)
    is_member(alice, room, bob.user_id, "leave")
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    alice.act(room, "kick", bob.user_id)
    is_member(carol, room, bob.user_id, "leave")
    alice.act(room, "ban", carol.user_id)
    is_member(alice, room, carol.user_id, "ban")
    until("the ban is known", lambda: carol.section(room) != "join")
    try:
        carol.join(room, pair.here.name)
        raise AssertionError("who is banned came in")
    except Refused as refusal:
        assert refusal.status == 403, refusal
    alice.act(room, "unban", carol.user_id)
    for user in (bob, carol):
        user.join(room, pair.here.name)
    is_member(alice, room, carol.user_id, "join")
    arrives(bob, room, alice.send(room, "all here again"))
    agree(room, alice, bob)


@scenario(versions="all")
def state_changes_on_both_sides(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    levels = alice.state_content(room, "m.room.power_levels")
    levels.setdefault("users", {})[bob.user_id] = 50
    arrives(bob, room, alice.set_state(room, "m.room.power_levels", levels))
    arrives(alice, room, bob.set_state(room, "m.room.name", {"name": "Bob's"}))
    arrives(bob, room, alice.set_state(room, "m.room.topic", {"topic": "Alice's"}))
    arrives(alice, room, bob.set_state(room, "org.example.thing", {"n": 1, "text": "\u00e4\u2028\u0000"}, "a key"))
    assert alice.state_content(room, "m.room.name")["name"] == "Bob's"
    assert alice.state_content(room, "org.example.thing", "a key")["text"] == "\u00e4\u2028\u0000"
    agree(room, alice, bob)


@scenario(versions="all")
def redactions_cross(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    hers, his = alice.send(room, "hers"), bob.send(room, "his")
    arrives(bob, room, hers)
    arrives(alice, room, his)
    alice.redact(room, hers)
    alice.redact(room, his)
    for event_id in (hers, his):
        for user in (alice, bob):
            until("it is redacted", lambda user=user, event_id=event_id: user.event(room, event_id)["content"] == {})
    agree(room, alice, bob)


@scenario(versions="all")
def changes_made_apart_are_resolved_alike(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    levels = alice.state_content(room, "m.room.power_levels")
    levels.setdefault("users", {})[bob.user_id] = 50
    arrives(bob, room, alice.set_state(room, "m.room.power_levels", levels))
    for server in (pair.here, pair.there):
        server.link.cut()
    try:
        for number in range(3):
            alice.set_state(room, "m.room.name", {"name": f"Alice {number}"})
            bob.set_state(room, "m.room.name", {"name": f"Bob {number}"})
            alice.send(room, f"alone {number}")
            bob.send(room, f"alone, too {number}")
        alice.set_state(room, "m.room.topic", {"topic": "Alice"})
        bob.set_state(room, "org.example.bob", {"by": "Bob"})
    finally:
        for server in (pair.here, pair.there):
            server.link.heal()
    last = alice.send(room, "are you there?"), bob.send(room, "are you?")
    arrives(bob, room, last[0])
    arrives(alice, room, last[1])
    # One more event on top of both branches, so that both servers have resolved the same.
    arrives(alice, room, bob.send(room, "we are"))
    agree(room, alice, bob)


@scenario()
def a_ban_made_apart_holds(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        user.join(room, pair.here.name)
        is_member(alice, room, user.user_id, "join")
    for server in (pair.here, pair.there):
        server.link.cut()
    try:
        alice.act(room, "ban", bob.user_id)
        bob.set_state(room, "m.room.member", {"membership": "join", "displayname": "Bob, still here"}, bob.user_id)
        bob.send(room, "I am not banned")
    finally:
        for server in (pair.here, pair.there):
            server.link.heal()
    until("the ban holds on both sides", lambda: [
        alice.membership(room, bob.user_id), carol.membership(room, bob.user_id)] == ["ban", "ban"])
    arrives(carol, room, alice.send(room, "after"))
    # What he said then, only his own server shows: to the other it came after the ban.
    agree(room, alice, carol, timeline=False)


@scenario()
def history_is_fetched_on_scrolling_back(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    count = 1000 if pair.long else 120
    sent = [alice.send(room, f"message {number}") for number in range(count)]
    bob.join(room, pair.here.name)
    arrives(bob, room, alice.send(room, "the end"))

    def whole():
        seen = {event["event_id"] for event in bob.history(room, count + 200)}
        return all(event_id in seen for event_id in sent)
    until("all of the history", whole, 120)
    seen = [event["event_id"] for event in bob.history(room, count + 200) if event["type"] == "m.room.message"]
    assert seen[::-1][:count] == sent, "the history is in another order"


@scenario()
def history_from_before_an_invite_stays_hidden(pair):
    alice, bob = pair.people("h", "t")
    hidden = {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    room = alice.create(pair.version, initial_state=[hidden])
    secret = alice.send(room, "secret")
    bob.join(room, pair.here.name)
    arrives(bob, room, alice.send(room, "open"))
    assert bob.has(room, secret) is None
    assert all(event["event_id"] != secret for event in bob.history(room))


@scenario()
def receipts_and_typing_cross(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    for reader, writer in ((alice, bob), (bob, alice)):
        event_id = writer.send(room, "read me")
        arrives(reader, room, event_id)
        since = writer.sync()["next_batch"]
        reader.room("POST", room, f"receipt/m.read/{event_id.replace('$', '%24').replace(':', '%3A')}", {})
        state = {"since": since}

        def read():
            found, state["since"], _ = writer.ephemeral(state["since"], room, "m.receipt")
            return any(reader.user_id in event["content"].get(event_id, {}).get("m.read", {}) for event in found)
        until(f"{writer.user_id} sees the receipt", read)
        state["since"] = writer.sync()["next_batch"]
        reader.room("PUT", room, f"typing/{reader.user_id.replace(':', '%3A')}", {"typing": True, "timeout": 20000})

        def types():
            found, state["since"], _ = writer.ephemeral(state["since"], room, "m.typing")
            return any(reader.user_id in event["content"]["user_ids"] for event in found)
        until(f"{writer.user_id} sees the typing", types)


@scenario()
def presence_crosses(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    for seen, viewer in ((alice, bob), (bob, alice)):
        path = f"/v3/presence/{seen.user_id}/status"
        # Synapse forgets what comes while it looks somebody up for the first time.
        viewer.call("GET", path)
        seen.call("PUT", path, {"presence": "unavailable", "status_msg": "at tea"})
        until(f"{viewer.user_id} sees the status",
              lambda: viewer.call("GET", path).get("status_msg") == "at tea")


@scenario()
def profiles_cross(pair):
    alice, bob = pair.people("h", "t")
    bob.call("PUT", f"/v3/profile/{bob.user_id}/displayname", {"displayname": "Bob B."})
    assert alice.call("GET", f"/v3/profile/{bob.user_id}")["displayname"] == "Bob B."
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    bob.call("PUT", f"/v3/profile/{bob.user_id}/displayname", {"displayname": "Bob the Second"})
    until("the new name shows",
          lambda: alice.state_content(room, "m.room.member", bob.user_id).get("displayname") == "Bob the Second")
    agree(room, alice, bob)


@scenario()
def an_acl_shuts_a_server_out(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    denied = pair.there.name.split(":")[0]
    acl = {"allow": ["*"], "deny": [denied], "allow_ip_literals": True}
    alice.set_state(room, "m.room.server_acl", acl)
    pause(1)
    event_id = bob.send(room, "can you hear me?")
    pause(1)
    assert alice.has(room, event_id) is None


@scenario()
def what_was_said_during_an_outage_arrives(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    for server, writer, reader in ((pair.there, alice, bob), (pair.here, bob, alice)):
        server.stop()
        sent = [writer.send(room, f"are you there, {number}?") for number in range(30)]
        server.start()
        for event_id in (sent[-1], sent[0]):
            arrives(reader, room, event_id)
        arrives(writer, room, reader.send(room, "I am"))
    agree(room, alice, bob)


@scenario(directions=False)
def files_are_downloaded_and_shrunk_for_the_other_side(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((640, 480)).convert("RGB").save(picture, "JPEG")
    # Longer than what is read at once, and with what looks like the end of a part.
    text = b"\r\n--boundary--\r\n" + bytes(range(256)) * 4096
    for sender, reader in ((alice, bob), (bob, alice)):
        files = [(picture.getvalue(), "image/jpeg", "a b.jpg"), (text, "text/plain", "\u00e4.txt")]
        if sender.server.kind != "synapse":  # Which never answers when it is asked for a file without bytes.
            files.append((b"", "application/octet-stream", "nothing"))
        for content, kind, name in files:
            media = sender.upload(content, kind, name)
            sender.room("PUT", room, f"send/m.room.message/m{next(_names)}",
                        {"msgtype": "m.file", "body": name, "url": f"mxc://{media}"})
            for _ in range(2):  # Fetched from the other side, and then kept.
                answer, headers = reader.get_file(f"/v1/media/download/{media}")
                assert answer == content, (len(answer), len(content))
                assert headers["Content-Type"].split(";")[0] == kind, headers
                assert quote(name) in headers["Content-Disposition"] or name in headers["Content-Disposition"], headers
            if kind == "image/jpeg":
                answer, _ = reader.get_file(f"/v1/media/thumbnail/{media}", width=96, height=96, method="crop")
                assert Image.open(io.BytesIO(answer)).size == (96, 96)
                answer, _ = reader.get_file(f"/v1/media/thumbnail/{media}", width=320, height=240, method="scale")
                assert Image.open(io.BytesIO(answer)).size == (320, 240)
        # Only a server that signs its request is given anything.
        local = media.split("/")[1]
        assert _status_of(sender.server, f"/_matrix/federation/v1/media/download/{local}") == 401
        refused(404, lambda: reader.get_file(f"/v1/media/download/{sender.server.name}/nothingofthisname"))


def _status_of(server, path):
    connection = HTTPSConnection("localhost", server.federation_port, timeout=20, context=server.trust)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def refused(status, act):
    try:
        act()
    except Refused as refusal:
        assert refusal.status == status, refusal
    else:
        raise AssertionError("it was not refused")


@scenario(long_only=True)
def a_server_killed_in_the_middle_of_a_join_recovers(pair):
    alice, bob = pair.people("h", "t")
    for victim in (pair.there, pair.here):
        # Servers differ in how long a join takes them.
        for delay in (0.005, 0.02, 0.05, 0.1, 0.2, 0.4):
            room = alice.create(pair.version)
            for number in range(20):
                alice.send(room, f"message {number}")
            attempt = threading.Thread(target=_quietly, args=(lambda: bob.join(room, pair.here.name),))
            attempt.start()
            pause(delay)
            victim.kill()
            attempt.join()
            victim.start()
            until("the join succeeds in the end", lambda: bob.join(room, pair.here.name), 90)
            # A killed Synapse holds the events of a room back until a lock of its former life is two minutes old.
            is_member(alice, room, bob.user_id, "join", 240)
            arrives(bob, room, alice.send(room, "are you there?"), 240)
            arrives(alice, room, bob.send(room, "at last"), 240)
            agree(room, alice, bob)


def _quietly(act):
    try:
        act()
    except Exception:  # The server is killed under it: any end is fine.
        pass


@scenario(long_only=True)
def a_thousand_messages_in_a_burst_arrive_whole(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    bob.join(room, pair.here.name)
    is_member(alice, room, bob.user_id, "join")
    sent = [alice.send(room, f"burst {number}") for number in range(1000)]
    arrives(bob, room, sent[-1])

    def is_whole():
        return [event["event_id"] for event in bob.history(room, 1200) if event["type"] == "m.room.message"][::-1] == sent

    # Synapse lets all but the last event of a room go when more than a hundred wait, and fetches them when somebody looks.
    until("all of it is there, in order", is_whole, 120 if pair.there.kind == "synapse" else 0.1)
    agree(room, alice, bob)

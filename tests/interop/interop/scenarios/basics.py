"""What people do with each other every day: they meet, talk, read, and go."""

import io
from http.client import HTTPSConnection
from urllib.parse import quote

from PIL import Image

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_member, names, refused, scenario


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
    refused(403, lambda: bob.join(room, pair.here.name))


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
    comes_in(bob, room, pair.here, alice)
    refused(403, lambda: eve.join(room, pair.here.name))
    agree(room, alice, bob)


@scenario()
def people_go_are_shown_out_and_come_back(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    bob.leave(room)
    is_member(alice, room, bob.user_id, "leave")
    comes_in(bob, room, pair.here, alice)
    alice.act(room, "kick", bob.user_id)
    is_member(carol, room, bob.user_id, "leave")
    alice.act(room, "ban", carol.user_id)
    is_member(alice, room, carol.user_id, "ban")
    until("the ban is known", lambda: carol.section(room) != "join")
    refused(403, lambda: carol.join(room, pair.here.name))
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
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    arrives(alice, room, bob.set_state(room, "m.room.name", {"name": "Bob's"}))
    arrives(bob, room, alice.set_state(room, "m.room.topic", {"topic": "Alice's"}))
    arrives(alice, room, bob.set_state(room, "org.example.thing", {"n": 1, "text": "\u00e4\u2028\u0000"}, "a key"))
    assert alice.state_content(room, "m.room.name")["name"] == "Bob's"
    assert alice.state_content(room, "org.example.thing", "a key")["text"] == "\u00e4\u2028\u0000"
    agree(room, alice, bob)


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
            sender.room("PUT", room, f"send/m.room.message/m{next(names)}",
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


def _quietly(act):
    try:
        act()
    except Exception:  # The server is killed under it: any end is fine.
        pass




@scenario(versions="all", long_only=True)
def edits_reactions_and_threads_cross(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    for writer, other in ((alice, bob), (bob, alice)):
        said = writer.send(room, "Helo")
        arrives(other, room, said)

        def relate(user, kind, relation, **content):
            return user.send_event(room, kind, {"m.relates_to": relation | {"event_id": said}, **content})
        reactions = [relate(user, "m.reaction", {"rel_type": "m.annotation", "key": "\U0001f44d"}) for user in (other, writer)]
        edits = [relate(writer, "m.room.message", {"rel_type": "m.replace"}, msgtype="m.text", body=f"* {text}",
                        **{"m.new_content": {"msgtype": "m.text", "body": text}}) for text in ("Hell", "Hello")]
        # An edit of what somebody else said is none.
        false = relate(other, "m.room.message", {"rel_type": "m.replace"}, msgtype="m.text", body="* Bye",
                       **{"m.new_content": {"msgtype": "m.text", "body": "Bye"}})
        replies = [relate(user, "m.room.message", {"rel_type": "m.thread"}, msgtype="m.text", body="in the thread")
                   for user in (writer, other)]
        for reader in (alice, bob):
            for event_id in (*reactions, *edits, false, *replies):
                arrives(reader, room, event_id)

            def related(rel_type, reader=reader):
                path = f"/v1/rooms/{quote(room, safe='')}/relations/{quote(said, safe='')}/{rel_type}"
                return {event["event_id"] for event in reader.call("GET", path, query={"limit": 50})["chunk"]}
            assert related("m.annotation") == set(reactions), related("m.annotation")
            assert related("m.thread") == set(replies), related("m.thread")
            assert {edits[0], edits[1]} <= related("m.replace"), related("m.replace")
        # A second reaction of the same kind is refused.
        refused(400, lambda: relate(other, "m.reaction", {"rel_type": "m.annotation", "key": "\U0001f44d"}),
                "M_DUPLICATE_ANNOTATION")
    agree(room, alice, bob)

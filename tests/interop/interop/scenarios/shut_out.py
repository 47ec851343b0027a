"""Access control lists: what is refused to a server that a room does not let in."""

from ..client import until
from ..frame import agree, arrives, comes_in, is_member, refused, scenario
from ..servers import pause


def _deny(server):
    return {"allow": ["*"], "deny": [server.name.split(":")[0]], "allow_ip_literals": True}


OPEN = {"allow": ["*"], "allow_ip_literals": True}


@scenario()
def an_acl_shuts_a_server_out(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    before = alice.send(room, "before")
    comes_in(bob, room, pair.here, alice)
    alice.set_state(room, "m.room.server_acl", _deny(pair.there))
    pause(1)
    since = alice.sync()["next_batch"]
    said = bob.send(room, "can you hear me?")
    bob.type(room)
    bob.read(room, before)
    pause(1)
    assert alice.has(room, said) is None
    for kind in ("m.typing", "m.receipt"):
        found, _, _ = alice.ephemeral(since, room, kind)
        assert not any(bob.user_id in str(event) for event in found), found


@scenario(since=7, long_only=True)
def who_is_shut_out_is_refused_to_join_and_knock(pair):
    alice, bob = pair.people("h", "t")
    rules = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    acl = {"type": "m.room.server_acl", "state_key": "", "content": _deny(pair.there)}
    room = alice.create(pair.version, preset="private_chat", initial_state=[rules, acl])
    for act in (lambda: bob.join(room, pair.here.name), lambda: bob.knock(room, pair.here.name)):
        refused(403, act, "M_FORBIDDEN")
    alice.set_state(room, "m.room.server_acl", OPEN)
    bob.knock(room, pair.here.name)
    is_member(alice, room, bob.user_id, "knock")
    alice.act(room, "invite", bob.user_id)
    until("the invite shows", lambda: bob.section(room) == "invite")
    bob.join(room)
    is_member(alice, room, bob.user_id, "join")
    agree(room, alice, bob)


@scenario(long_only=True)
def who_was_shut_out_comes_back(pair):
    """What was said behind the list is not lost: it comes when the list is lifted, as history of what is said then."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, alice.set_state(room, "m.room.server_acl", _deny(pair.there)))
    bob.send(room, "can you hear me?")
    hers = alice.send(room, "hers")
    pause(1)
    arrives(bob, room, alice.set_state(room, "m.room.server_acl", OPEN), 90)
    arrives(bob, room, hers)
    arrives(alice, room, bob.send(room, "and now?"), 90)
    arrives(bob, room, alice.send(room, "now, yes"))
    agree(room, alice, bob, timeline=False)

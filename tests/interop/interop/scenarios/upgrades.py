"""Rooms that end in others, and rooms that are not for other servers."""

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_member, refused, refused_somehow, scenario


def _create_content(user, room):
    return user.state_content(room, "m.room.create")


@scenario(versions="all", long_only=True)
def a_room_is_replaced_by_hand(pair):
    alice, bob = pair.people("h", "t")
    old = alice.create(pair.version, name="Old")
    comes_in(bob, old, pair.here, alice)
    last = alice.send(old, "we move")
    new = alice.create(pair.version, name="New",
                       creation_content={"predecessor": {"room_id": old, "event_id": last}})
    tombstone = {"body": "This room has been replaced", "replacement_room": new}
    arrives(bob, old, alice.set_state(old, "m.room.tombstone", tombstone))
    assert bob.state_content(old, "m.room.tombstone") == tombstone
    comes_in(bob, bob.state_content(old, "m.room.tombstone")["replacement_room"], pair.here, alice)
    assert _create_content(bob, new)["predecessor"]["room_id"] == old
    for room in (old, new):
        arrives(alice, room, bob.send(room, "hello"))
        agree(room, alice, bob)


@scenario(long_only=True)
def a_room_is_upgraded(pair):
    """By somebody of either server, to the version tried, from an older one."""
    alice, bob, carol = pair.people("h", "t", "t")
    old = alice.create("9", name="Old", topic="All of it moves")
    for user in (bob, carol):
        comes_in(user, old, pair.here, alice)
    arrives(bob, old, give_power(old, alice, 100, bob))
    alice.act(old, "ban", carol.user_id)
    is_member(bob, old, carol.user_id, "ban")
    for upgrader, other in ((alice, bob), (bob, alice)):
        if upgrader.server.kind == "hearth":
            continue  # Which has no `/upgrade` yet.
        new = upgrader.room("POST", old, "upgrade", {"new_version": pair.version})["replacement_room"]
        until("the tombstone shows", lambda: other.state_content(old, "m.room.tombstone").get("replacement_room") == new)
        comes_in(other, new, upgrader.server, upgrader)
        create = _create_content(other, new)
        assert create["room_version"] == pair.version and create["predecessor"]["room_id"] == old, create
        for kind in ("m.room.name", "m.room.topic", "m.room.join_rules", "m.room.history_visibility"):
            assert other.state_content(new, kind) == other.state_content(old, kind), kind
        assert other.membership(new, carol.user_id) == "ban"
        refused(403, lambda: carol.join(new, upgrader.server.name))
        arrives(upgrader, new, other.send(new, "hello"))
        arrives(upgrader, new, other.set_state(new, "m.room.topic", {"topic": "Higher power came along"}))
        agree(new, alice, bob)
        agree(old, alice, bob)


@scenario(versions="all", long_only=True)
def a_room_may_be_for_its_own_server_alone(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, creation_content={"m.federate": False})
    for act in (lambda: bob.join(room, pair.here.name), lambda: alice.act(room, "invite", bob.user_id)):
        refusal = refused_somehow(act)
        assert refusal.status in (400, 403, 404) and refusal.errcode in ("M_FORBIDDEN", "M_NOT_FOUND"), refusal
    if pair.at_least(7):
        refused_somehow(lambda: bob.knock(room, pair.here.name))
    dan, = pair.people("h")
    dan.join(room, pair.here.name)
    assert bob.section(room) is None
    agree(room, alice, dan)

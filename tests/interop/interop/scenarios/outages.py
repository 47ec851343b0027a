"""One server is stopped, killed or flooded while the other goes on."""

import threading

from ..client import until
from ..frame import (
    SHARED_POWER, agree, arrives, comes_in, give_power, is_member, is_redacted, refused_somehow, scenario, settle,
)
from ..servers import pause


@scenario()
def what_was_said_during_an_outage_arrives(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    for server, writer, reader in ((pair.there, alice, bob), (pair.here, bob, alice)):
        server.stop()
        sent = [writer.send(room, f"are you there, {number}?") for number in range(30)]
        server.start()
        for event_id in (sent[-1], sent[0]):
            arrives(reader, room, event_id)
        arrives(writer, room, reader.send(room, "I am"))
    agree(room, alice, bob)


@scenario(long_only=True)
def all_that_was_done_during_an_outage_arrives(pair):
    """Messages, state, redactions, joins, leaves, kicks, bans, and new powers, on the side that lives."""
    people = alice, bob, carol, dan, eve, fred = pair.people("h", "t", "h", "t", "h", "t")
    room = alice.create(pair.version, topic="Old", power_level_content_override=SHARED_POWER)
    for user in people[1:]:
        user.join(room, pair.here.name)
    for user in people[1:]:
        for watcher in (alice, bob):
            is_member(watcher, room, user.user_id, "join")
    arrives(bob, room, give_power(room, alice, 90, bob))
    for down, writer, leaver, reader, kicked, banned in (
        (pair.there, alice, carol, bob, dan, fred),
        (pair.here, bob, dan, alice, carol, eve),
    ):
        old = writer.send(room, "before the outage")
        arrives(reader, room, old)
        down.stop()
        new, = pair.people("h" if down is pair.there else "t")
        said = [writer.send(room, f"message {number}") for number in range(15)]
        taken_back = [old, said[0], said[14]]
        for event_id in taken_back:
            writer.redact(room, event_id)
        writer.set_state(room, "m.room.topic", {"topic": f"While {down.kind} is away"})
        writer.set_state(room, "org.example.thing", {"away": down.kind})
        leaver.leave(room)
        new.join(room, writer.server.name)
        new.set_profile("displayname", "New here")
        writer.act(room, "kick", kicked.user_id)
        writer.act(room, "ban", banned.user_id)
        give_power(room, writer, 10, new)
        last = new.send(room, "hello")
        down.start()
        arrives(reader, room, last)
        for event_id in said:
            arrives(reader, room, event_id)
        for event_id in taken_back:
            is_redacted(reader, room, event_id)
        assert not {leaver.user_id, kicked.user_id, banned.user_id} & reader.joined(room)
        settle(room, reader, writer)
        agree(room, alice, bob)
        for user in (leaver, kicked):
            comes_in(user, room, writer.server, writer, reader)
        writer.act(room, "unban", banned.user_id)
        is_member(reader, room, banned.user_id, "leave")
        comes_in(banned, room, writer.server, writer, reader)
    agree(room, alice, bob)


@scenario(long_only=True)
def who_cannot_be_reached_is_not_invited(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, preset="private_chat")
    pair.there.stop()
    refused_somehow(lambda: alice.act(room, "invite", bob.user_id))
    pair.there.start()
    assert bob.section(room) is None
    until("he is invited", lambda: alice.act(room, "invite", bob.user_id) or True)
    until("the invite shows", lambda: bob.section(room) == "invite")
    bob.join(room)
    is_member(alice, room, bob.user_id, "join")
    agree(room, alice, bob)


@scenario(long_only=True)
def a_server_killed_in_the_middle_of_a_join_recovers(pair):
    alice, bob = pair.people("h", "t")
    for victim in (pair.there, pair.here):
        # Servers differ in how long a join takes them.
        for delay in (0.005, 0.02, 0.05, 0.1, 0.2, 0.4):
            room = alice.create(pair.version)
            for number in range(20):
                alice.send(room, f"message {number}")
            _join_under_the_knife(bob, room, pair.here, victim, delay)
            # A killed Synapse holds the events of a room back until a lock of its former life is two minutes old.
            is_member(alice, room, bob.user_id, "join", 240)
            arrives(bob, room, alice.send(room, "are you there?"), 240)
            arrives(alice, room, bob.send(room, "at last"), 240)
            agree(room, alice, bob)


def _join_under_the_knife(user, room, via, victim, delay, end=None):
    """A server ends while somebody joins; then it starts again, and he joins if he did not yet."""
    attempt = threading.Thread(target=_quietly, args=(lambda: user.join(room, via.name),))
    attempt.start()
    pause(delay)
    (end or victim.kill)()
    attempt.join()
    victim.start()
    until("the join succeeds in the end", lambda: user.join(room, via.name), 90)


def _quietly(act):
    try:
        act()
    except Exception:  # The server is killed under it: any end is fine.
        pass


CROWD = 250


@scenario(long_only=True)
def a_server_killed_in_the_middle_of_a_join_of_a_large_room_recovers(pair):
    """While it has the room, but does not know all members of it yet."""
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    crowd = pair.here.crowd(CROWD)
    for member in crowd:
        member.join(room, pair.here.name)
    for round, (victim, delay) in enumerate((
        (pair.there, 0.1), (pair.there, 0.4), (pair.there, 1), (pair.here, 0.1), (pair.here, 0.4),
    )):
        end = victim.kill if round % 2 else victim.stop
        _join_under_the_knife(bob, room, pair.here, victim, delay, end)
        arrives(bob, room, alice.send(room, "are you there?"), 240)
        arrives(alice, room, bob.send(room, "at last"), 240)
        agree(room, alice, bob, deadline_s=240)
        assert len(bob.joined(room)) == CROWD + 2
        # So that the next join is one from outside again.
        bob.leave(room)
        is_member(alice, room, bob.user_id, "leave", 240)
    comes_in(carol, room, pair.here, alice)
    agree(room, alice, carol, deadline_s=240)


@scenario(long_only=True)
def the_link_breaks_before_all_members_are_known(pair):
    """The joining server has the room without its members, and is killed; then all of it comes."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    crowd = pair.here.crowd(CROWD)
    for member in crowd:
        member.join(room, pair.here.name)
    for end in (pair.there.stop, pair.there.kill):
        bob.join(room, pair.here.name)
        with pair.apart():
            alice.set_state(room, "m.room.topic", {"topic": "Meanwhile"})
            crowd[0].leave(room)
            crowd[1].set_profile("displayname", "Another name")
            his = bob.send(room, "is anybody here?")
            end()
            pair.there.start()
            hers = alice.send(room, "many")
        crowd[2].send(room, "very many")
        arrives(alice, room, his, 240)
        arrives(bob, room, hers, 240)
        agree(room, alice, bob, deadline_s=240)
        settle(room, alice, bob)
        crowd[0].join(room, pair.here.name)
        is_member(bob, room, crowd[0].user_id, "join", 240)
        agree(room, alice, bob, deadline_s=240)
        bob.leave(room)
        is_member(alice, room, bob.user_id, "leave", 240)


@scenario(long_only=True)
def a_thousand_messages_in_a_burst_arrive_whole(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    sent = [alice.send(room, f"burst {number}") for number in range(1000)]
    arrives(bob, room, sent[-1])

    def is_whole():
        return [event["event_id"] for event in bob.history(room, 1200) if event["type"] == "m.room.message"][::-1] == sent

    # Synapse lets all but the last event of a room go when more than a hundred wait, and fetches them when somebody looks.
    until("all of it is there, in order", is_whole, 120 if pair.there.kind == "synapse" else 0.1)
    agree(room, alice, bob)

"""A second Hearth is in the room, too, and not everybody reaches everybody."""

from contextlib import contextmanager

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_member, refused, scenario, settle


@contextmanager
def _apart(one, other):
    """These two don't reach each other; the third reaches both."""
    one.link.cut_from(other)
    other.link.cut_from(one)
    try:
        yield
    finally:
        one.link.heal()
        other.link.heal()


def _all_in(pair, *sides, **options):
    people = alice, *others = pair.people(*sides)
    room = alice.create(pair.version, **options)
    for user in others:
        user.join(room, pair.here.name)
    for user in others:
        for watcher in people:
            is_member(watcher, room, user.user_id, "join")
    return room, people


@scenario(versions="all", long_only=True)
def three_servers_share_a_room(pair):
    room, people = _all_in(pair, "h", "t", "x", topic="For three")
    alice, bob, xenia = people
    levels = give_power(room, alice, 50, bob, xenia)
    for user in (bob, xenia):
        arrives(user, room, levels)
    for writer in people:
        changes = [writer.send(room, "hello"), writer.set_state(room, "m.room.topic", {"topic": writer.user_id})]
        for reader in people:
            for event_id in changes:
                arrives(reader, room, event_id)
    dan, eve = pair.people("t", "x")
    # Through each other's server, not that of who made the room.
    comes_in(dan, room, pair.third, *people)
    comes_in(eve, room, pair.there, *people)
    xenia.act(room, "kick", dan.user_id)
    bob.act(room, "ban", eve.user_id)
    for user in people:
        is_member(user, room, dan.user_id, "leave")
        is_member(user, room, eve.user_id, "ban")
    refused(403, lambda: eve.join(room, pair.there.name))
    # Who made it goes; the others go on.
    alice.leave(room)
    for user in (bob, xenia):
        is_member(user, room, alice.user_id, "leave")
    arrives(bob, room, xenia.send(room, "she is gone"))
    comes_in(dan, room, pair.third, bob, xenia)
    comes_in(alice, room, pair.third, bob, xenia)
    settle(room, alice, bob, xenia)
    agree(room, *people, dan)


@scenario(versions="all", long_only=True)
def a_third_server_tells_what_two_don_t_tell_each_other(pair):
    room, people = _all_in(pair, "h", "t", "x")
    alice, bob, xenia = people
    arrives(bob, room, give_power(room, alice, 50, bob, xenia))
    trios = ((alice, bob, xenia), (bob, xenia, alice), (xenia, alice, bob))
    for one, other, between in trios:
        with _apart(one.server, other.server):
            for number in range(3):
                said = [writer.send(room, f"{writer.user_id} {number}") for writer in (one, other)]
                for event_id in said:
                    arrives(between, room, event_id)
                one.set_state(room, "m.room.topic", {"topic": f"{one.user_id} {number}"})
                other.set_state(room, "m.room.name", {"name": f"{other.user_id} {number}"})
            for event_id in (one.send(room, "one"), other.send(room, "other")):
                arrives(between, room, event_id)
            # It follows what both said: each asks for the other's.
            last = between.send(room, "from between")
            for user in (one, other):
                arrives(user, room, last)
                for event_id in said:
                    arrives(user, room, event_id)
            agree(room, *people)
        settle(room, *people)
        agree(room, *people)


@scenario(versions="all", long_only=True)
def joins_and_bans_reach_the_third_way_round(pair):
    room, people = _all_in(pair, "h", "t", "x")
    alice, bob, xenia = people
    arrives(bob, room, give_power(room, alice, 50, bob, xenia))
    dan, eve = pair.people("t", "x")
    with _apart(pair.here, pair.there):
        comes_in(dan, room, pair.third, xenia)
        comes_in(eve, room, pair.here, xenia, alice, bob)
        # Of what they do now they hear when the third speaks.
        bob.act(room, "kick", eve.user_id)
        alice.set_state(room, "m.room.name", {"name": "Alice"})
        is_member(xenia, room, eve.user_id, "leave")
        until("the name shows", lambda: xenia.state_content(room, "m.room.name")["name"] == "Alice")
        last = xenia.send(room, "from between")
        for user in (alice, bob):
            arrives(user, room, last)
        is_member(alice, room, dan.user_id, "join")
        is_member(alice, room, eve.user_id, "leave")
        agree(room, *people)
        arrives(xenia, room, alice.send(room, "a"))
        redacted = bob.send(room, "b")
        arrives(xenia, room, redacted)
        xenia.redact(room, redacted)
        last = xenia.send(room, "c")
        for user in (alice, bob):
            arrives(user, room, last)
        until("it is redacted", lambda: alice.event(room, redacted)["content"] == {})
    settle(room, *people)
    agree(room, *people, dan)


@scenario(long_only=True)
def history_comes_from_whoever_has_it(pair):
    """The server that has the room is away: who joins finds all of it with the third."""
    room, people = _all_in(pair, "h", "t", "x")
    alice, bob, xenia = people
    sent = [alice.send(room, f"message {number}") for number in range(60)]
    for user in (bob, xenia):
        arrives(user, room, sent[-1])
    dan, = pair.people("x")
    bob.leave(room)
    for user in (alice, xenia):
        is_member(user, room, bob.user_id, "leave")
    pair.here.stop()
    try:
        comes_in(bob, room, pair.third, xenia)
        comes_in(dan, room, pair.third, bob)
        until("all of the history", lambda: set(sent) <= {event["event_id"] for event in bob.history(room)}, 90)
        last = bob.send(room, "without them")
        arrives(xenia, room, last)
    finally:
        pair.here.start()
    arrives(alice, room, last)
    settle(room, *people)
    agree(room, *people, dan)

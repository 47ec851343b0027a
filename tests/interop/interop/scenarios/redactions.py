"""What is taken back, by whom, and when the other server hears of it."""

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_redacted, refused, scenario, settle


@scenario(versions="all")
def redactions_cross(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    hers, his = alice.send(room, "hers"), bob.send(room, "his")
    arrives(bob, room, hers)
    arrives(alice, room, his)
    alice.redact(room, hers)
    alice.redact(room, his)
    for event_id in (hers, his):
        for user in (alice, bob):
            is_redacted(user, room, event_id)
    agree(room, alice, bob)


@scenario(versions="many")
def state_is_redacted(pair):
    """By both sides: a topic, a name in a room, join rules, power levels, and an unknown type."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, topic="Secret")
    comes_in(bob, room, pair.here, alice)
    bob.set_profile("displayname", "Bob B.")
    until("the name shows",
          lambda: alice.state_content(room, "m.room.member", bob.user_id).get("displayname") == "Bob B.")
    arrives(bob, room, give_power(room, alice, 50, bob))
    # Beside what must stay, something that must go.
    levels = alice.state_content(room, "m.room.power_levels") | {"invite": 0, "notifications": {"room": 20}, "org.example": 1}
    arrives(bob, room, alice.set_state(room, "m.room.power_levels", levels))
    arrives(bob, room, alice.set_state(room, "m.room.join_rules", {"join_rule": "public", "reason": "Why not?"}))
    arrives(alice, room, bob.set_state(room, "org.example.thing", {"a": 1}, "key"))
    ids = {(event["type"], event["state_key"]): event["event_id"] for event in alice.state(room)}

    def goes(who, kind, state_key, left):
        arrives(alice, room, who.redact(room, ids[kind, state_key]))
        for user in (alice, bob):
            until(f"{user.user_id} sees {kind} redacted", lambda: user.state_content(room, kind, state_key) == left)

    goes(bob, "m.room.topic", "", {})
    goes(bob, "org.example.thing", "key", {})
    goes(alice, "m.room.member", bob.user_id, {"membership": "join"})
    goes(alice, "m.room.join_rules", "", {"join_rule": "public"})
    kept = {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
    if pair.at_least(11):
        kept.add("invite")
    goes(alice, "m.room.power_levels", "", {key: value for key, value in levels.items() if key in kept})
    agree(room, alice, bob)
    # What allows is as good as before.
    carol, = pair.people("t")
    comes_in(carol, room, pair.here, alice, bob)
    arrives(alice, room, bob.set_state(room, "m.room.topic", {"topic": "Open"}))
    agree(room, alice, bob, carol)


@scenario(versions="all", long_only=True)
def moderators_redact_what_the_other_side_says(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    hers, his = alice.send(room, "hers"), carol.send(room, "his")
    for user in (alice, bob):
        arrives(user, room, his)
        arrives(user, room, hers)
    refused(403, lambda: bob.redact(room, hers))
    arrives(bob, room, give_power(room, alice, 50, bob))
    for event_id in (hers, his):
        bob.redact(room, event_id)
        for user in (alice, bob):
            is_redacted(user, room, event_id)
    # To take back what a moderator said, and the redaction itself.
    said = bob.send(room, "only I")
    arrives(alice, room, said)
    redaction = alice.redact(room, said)
    is_redacted(bob, room, said)
    agree(room, alice, bob, carol)
    alice.redact(room, redaction)
    until("the redaction is redacted", lambda: bob.event(room, redaction).get("unsigned", {}).get("redacted_because"))
    assert bob.event(room, said)["content"] == {}
    agree(room, alice, bob, carol)


@scenario(versions="all", long_only=True)
def redactions_made_apart_hold(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, topic="Old")
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    said = [writer.send(room, f"before {number}") for number in range(4) for writer in (alice, bob)]
    for user in (alice, bob):
        arrives(user, room, said[-1])
        arrives(user, room, said[-2])
    topic, = (event["event_id"] for event in alice.state(room) if event["type"] == "m.room.topic")
    with pair.apart():
        for number, event_id in enumerate(said):
            (alice, bob)[number // 2 % 2].redact(room, event_id)
        # Both take the same back, and one puts something else in its place.
        alice.redact(room, said[-1])
        bob.redact(room, topic)
        alice.set_state(room, "m.room.topic", {"topic": "New"})
        alone = [writer.send(room, "alone") for writer in (alice, bob)]
        for writer, event_id in zip((alice, bob), alone):
            writer.redact(room, event_id)
    settle(room, alice, bob)
    for event_id in (*said, *alone):
        for user in (alice, bob):
            is_redacted(user, room, event_id)
    agree(room, alice, bob)


@scenario(long_only=True)
def a_redaction_comes_before_what_it_redacts(pair):
    """Who scrolls back meets the redaction first."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, topic="Old")
    said = [alice.send(room, f"message {number}") for number in range(60)]
    taken_back = said[3], said[30], said[57]
    for event_id in taken_back:
        alice.redact(room, event_id)
    for number in range(30):
        alice.send(room, f"more {number}")
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, alice.send(room, "the end"))
    until("all of the history", lambda: set(said) <= {event["event_id"] for event in bob.history(room)})
    for event_id in taken_back:
        is_redacted(bob, room, event_id)
    for event in bob.history(room):
        assert (event["content"] == {}) == (event["event_id"] in taken_back), event
    agree(room, alice, bob)


@scenario(long_only=True)
def a_redaction_of_what_was_missed_during_an_outage(pair):
    """The server that was away hears of the redaction, and fetches what it redacts, in whatever order."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    pair.there.stop()
    said = [alice.send(room, f"message {number}") for number in range(130)]
    taken_back = said[1], said[60], said[128]
    for event_id in taken_back:
        last = alice.redact(room, event_id)
    pair.there.start()
    arrives(bob, room, last)
    until("all that was missed", lambda: set(said) <= {event["event_id"] for event in bob.history(room)}, 90)
    for event_id in taken_back:
        is_redacted(bob, room, event_id)
    settle(room, alice, bob)
    agree(room, alice, bob)

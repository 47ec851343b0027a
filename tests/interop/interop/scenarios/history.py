"""What was before somebody came, and what of it he may see."""

from ..client import until
from ..frame import agree, arrives, comes_in, is_member, scenario


def _visibility(value):
    return {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": value}}


def _sees(user, room, wanted):
    """Which of some events somebody finds when he scrolls back, and when he asks for each."""
    shown = {event["event_id"] for event in user.history(room, 400)} & set(wanted)
    return shown, {event_id for event_id in wanted if user.has(room, event_id)}


def _comes_to_see(user, room, seen, hidden):
    """Exactly this, once what is far away is fetched."""
    until("all that may be seen is there", lambda: _sees(user, room, seen)[0] == set(seen))
    shown, found = _sees(user, room, [*seen, *hidden])
    assert shown == set(seen), f"hidden, but shown: {shown - set(seen)}"
    assert found == set(seen), f"shown, but not found: {set(seen) - found}; hidden, but found: {found - set(seen)}"


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
    agree(room, alice, bob)


@scenario()
def history_from_before_an_invite_stays_hidden(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, initial_state=[_visibility("joined")])
    secret = alice.send(room, "secret")
    bob.join(room, pair.here.name)
    arrives(bob, room, alice.send(room, "open"))
    assert bob.has(room, secret) is None
    assert all(event["event_id"] != secret for event in bob.history(room))


@scenario(long_only=True)
def who_comes_late_sees_what_the_room_allows(pair):
    for visibility in ("joined", "invited", "shared", "world_readable"):
        alice, carol, bob = pair.people("h", "t", "t")
        room = alice.create(pair.version, preset="private_chat", initial_state=[_visibility(visibility)])
        # With somebody of the other server inside, and without.
        for guest in (bob, carol):
            before = [alice.send(room, f"before {number}") for number in range(3)]
            alice.act(room, "invite", guest.user_id)
            until("the invite shows", lambda: guest.section(room) == "invite")
            invited = [alice.send(room, f"while invited {number}") for number in range(3)]
            # What comes after a join is shown to who has joined, whatever it was sent beside: so all comes before it.
            arrives(alice if guest is bob else bob, room, invited[-1])
            comes_in(guest, room, pair.here, alice)
            joined = [alice.send(room, f"joined {number}") for number in range(3)]
            arrives(guest, room, joined[-1])
            if visibility == "joined":
                seen, hidden = joined, before + invited
            elif visibility == "invited":
                seen, hidden = invited + joined, before
            else:
                seen, hidden = before + invited + joined, []
            try:
                _comes_to_see(guest, room, seen, hidden)
            except AssertionError as error:
                raise AssertionError(f"{visibility}, {guest.user_id}: {error}") from None
        agree(room, alice, bob, carol, timeline=visibility in ("shared", "world_readable"))


@scenario(long_only=True)
def a_change_of_what_may_be_seen_counts_from_then_on(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, initial_state=[_visibility("joined")])
    hidden = [alice.send(room, f"hidden {number}") for number in range(3)]
    alice.set_state(room, "m.room.history_visibility", {"history_visibility": "shared"})
    seen = [alice.send(room, f"shared {number}") for number in range(3)]
    alice.set_state(room, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden += [alice.send(room, f"hidden again {number}") for number in range(3)]
    comes_in(bob, room, pair.here, alice)
    seen.append(alice.send(room, "now"))
    arrives(bob, room, seen[-1])
    _comes_to_see(bob, room, seen, hidden)


@scenario(long_only=True)
def who_has_left_sees_nothing_new(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version, initial_state=[_visibility("shared")])
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    seen = [alice.send(room, "for all")]
    for user in (bob, carol):
        arrives(user, room, seen[0])
    bob.leave(room)
    is_member(alice, room, bob.user_id, "leave")
    hidden = [alice.send(room, "after you went")]
    arrives(carol, room, hidden[0])
    _comes_to_see(bob, room, seen, hidden)
    assert alice.user_id in {event["state_key"] for event in bob.state(room) if event["type"] == "m.room.member"}
    comes_in(bob, room, pair.here, alice, carol)
    # In a room whose history is shared, what happened in between is there again.
    _comes_to_see(bob, room, seen + hidden, [])
    agree(room, alice, bob, carol)


@scenario(long_only=True)
def what_was_missed_is_shown_to_who_was_in_all_along(pair):
    """More than comes by itself after an outage: the rest is fetched, and members see it whatever the visibility."""
    alice, bob = pair.people("h", "t")
    rooms = {value: alice.create(pair.version, initial_state=[_visibility(value)]) for value in ("joined", "invited")}
    for room in rooms.values():
        comes_in(bob, room, pair.here, alice)
    pair.there.stop()
    sent = {room: [alice.send(room, f"message {number}") for number in range(120)] for room in rooms.values()}
    pair.there.start()
    for room in rooms.values():
        arrives(bob, room, alice.send(room, "the last"))
        _comes_to_see(bob, room, sent[room], [])
        agree(room, alice, bob)

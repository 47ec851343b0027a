"""What happens on both sides while the link is cut, and what is left of it afterwards."""

import random

from ..client import Refused, until
from ..frame import SHARED_POWER, agree, arrives, comes_in, give_power, is_member, scenario, settle


@scenario(versions="all")
def changes_made_apart_are_resolved_alike(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    with pair.apart():
        for number in range(3):
            alice.set_state(room, "m.room.name", {"name": f"Alice {number}"})
            bob.set_state(room, "m.room.name", {"name": f"Bob {number}"})
            alice.send(room, f"alone {number}")
            bob.send(room, f"alone, too {number}")
        alice.set_state(room, "m.room.topic", {"topic": "Alice"})
        bob.set_state(room, "org.example.bob", {"by": "Bob"})
    settle(room, alice, bob)
    agree(room, alice, bob)


@scenario()
def a_ban_made_apart_holds(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    with pair.apart():
        alice.act(room, "ban", bob.user_id)
        bob.set_state(room, "m.room.member", {"membership": "join", "displayname": "Bob, still here"}, bob.user_id)
        bob.send(room, "I am not banned")
    until("the ban holds on both sides", lambda: [
        alice.membership(room, bob.user_id), carol.membership(room, bob.user_id)] == ["ban", "ban"])
    arrives(carol, room, alice.send(room, "after"))
    # What he said then, only his own server shows: to the other it came after the ban.
    agree(room, alice, carol, timeline=False)


@scenario(versions="all", long_only=True)
def power_levels_changed_apart(pair):
    """Two with the same power lower each other's helpers, and who is lowered goes on with what he could."""
    alice, carol, bob, dan = pair.people("h", "h", "t", "t")
    room = alice.create(pair.version, power_level_content_override=SHARED_POWER)
    carol.join(room)
    for user in (bob, dan):
        comes_in(user, room, pair.here, alice, carol)
    arrives(bob, room, give_power(room, alice, 75, bob))
    arrives(bob, room, give_power(room, alice, 50, carol, dan))
    with pair.apart():
        give_power(room, alice, 0, dan)
        alice.set_state(room, "m.room.topic", {"topic": "Alice"})
        carol.set_state(room, "m.room.name", {"name": "Carol"})
        give_power(room, bob, 0, carol)
        bob.set_state(room, "m.room.topic", {"topic": "Bob"})
        dan.set_state(room, "m.room.name", {"name": "Dan"})
        dan.set_state(room, "org.example.dan", {"by": "Dan"})
        carol.set_state(room, "org.example.carol", {"by": "Carol"})
    settle(room, alice, bob, carol, dan)
    agree(room, alice, bob, carol, dan)


@scenario(versions="all", long_only=True)
def who_is_lowered_apart_loses_what_he_did(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version, power_level_content_override=SHARED_POWER)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 60, bob))
    with pair.apart():
        give_power(room, alice, 0, bob)
        give_power(room, bob, 50, carol)
        carol.set_state(room, "m.room.name", {"name": "Carol"})
        bob.act(room, "kick", carol.user_id)
        bob.set_state(room, "m.room.topic", {"topic": "Bob"})
    settle_all_but_the_lost(room, alice, bob)
    agree(room, alice, bob, timeline=False)


def settle_all_but_the_lost(room, first, *others):
    """Like `settle`, where what others write may come to nothing: only what the first writes must arrive."""
    for user in others:
        try:
            user.send(room, "am I still here?")
        except Refused:
            pass
    for number in range(2):
        event_id = first.send(room, f"who is here? {number}")
        for user in others:
            arrives(user, room, event_id)


@scenario(versions="all", long_only=True)
def a_join_meets_join_rules_changed_apart(pair):
    alice, bob, carol, dan = pair.people("h", "t", "t", "h")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    with pair.apart():
        alice.set_state(room, "m.room.join_rules", {"join_rule": "invite"})
        carol.join(room, pair.there.name)
        carol.send(room, "I am in")
        bob.set_state(room, "m.room.topic", {"topic": "Carol is in"})
        alice.act(room, "invite", dan.user_id)
        dan.join(room)
    settle_all_but_the_lost(room, alice, bob)
    settle_all_but_the_lost(room, bob, alice)
    agree(room, alice, bob, dan, timeline=False)


@scenario(versions="all", long_only=True)
def bans_and_joins_made_apart(pair):
    alice, bob, carol, dan, eve = pair.people("h", "t", "t", "h", "t")
    room = alice.create(pair.version)
    dan.join(room)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    carol.leave(room)
    is_member(alice, room, carol.user_id, "leave")
    with pair.apart():
        alice.act(room, "ban", carol.user_id)
        alice.act(room, "ban", eve.user_id)
        carol.join(room, pair.there.name)
        carol.send(room, "back again")
        eve.join(room, pair.there.name)
        eve.send(room, "here for the first time")
        bob.act(room, "ban", dan.user_id)
        dan.set_state(room, "m.room.member", {"membership": "join", "displayname": "Dan, still here"}, dan.user_id)
        dan.send(room, "I am not banned")
    settle_all_but_the_lost(room, alice, bob)
    settle_all_but_the_lost(room, bob, alice)
    agree(room, alice, bob, timeline=False)
    states = {user.user_id: bob.membership(room, user.user_id) for user in (carol, dan, eve)}
    assert set(states.values()) == {"ban"}, states


@scenario(versions="all", long_only=True)
def both_sides_do_the_same_apart(pair):
    """The same kick, ban, invite and join by both, and a leave beside a kick."""
    alice, bob, carol, dan, eve = pair.people("h", "t", "t", "h", "t")
    room = alice.create(pair.version)
    dan.join(room)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    with pair.apart():
        for judge in (alice, bob):
            judge.act(room, "kick", carol.user_id, reason=judge.user_id)
            judge.act(room, "ban", "@nobody:example.org", reason=judge.user_id)
            judge.set_state(room, "m.room.topic", {"topic": "The same"})
        bob.act(room, "kick", dan.user_id)
        dan.leave(room)
        eve.join(room, pair.there.name)
        eve.leave(room)
        eve.join(room, pair.there.name)
    settle(room, alice, bob, eve)
    agree(room, alice, bob, eve)


@scenario(versions="all", long_only=True)
def again_and_again_apart(pair):
    """Branches over branches: each time the link heals, only one side speaks before it is cut again."""
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    for number in range(4):
        with pair.apart():
            for writer in (alice, bob):
                writer.set_state(room, "m.room.topic", {"topic": f"{writer.user_id} {number}"})
                writer.set_state(room, "org.example.thing", {"number": number, "by": writer.user_id}, str(number % 2))
                writer.send(room, f"alone {number}")
        writer, reader = (alice, bob) if number % 2 else (bob, alice)
        arrives(reader, room, writer.send(room, f"for a moment {number}"))
    settle(room, alice, bob)
    agree(room, alice, bob)


SEEDS = 3


@scenario(versions="all", long_only=True)
def whatever_is_done_apart_is_resolved_alike(pair):
    """By chance, but always the same: three people a side, who do what they may."""
    for seed in range(SEEDS):
        chance = random.Random(f"{seed} {pair.version} {pair.here.kind}")
        try:
            _by_chance(pair, chance)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None


def _by_chance(pair, chance):
    people = alice, bob, *_ = pair.people("h", "t", "h", "t", "h", "t")
    room = alice.create(pair.version, power_level_content_override=SHARED_POWER)
    for user in people[1:]:
        user.join(room, pair.here.name)
    for user in people[1:]:
        for watcher in (alice, bob):
            is_member(watcher, room, user.user_id, "join")
    levels = alice.state_content(room, "m.room.power_levels")
    levels.setdefault("users", {}).update({user.user_id: chance.choice((0, 50, 50, 75)) for user in people[2:]})
    levels["users"][bob.user_id] = 90
    arrives(bob, room, alice.set_state(room, "m.room.power_levels", levels))
    for _ in range(2):
        with pair.apart():
            for number in range(24):
                actor, other = chance.sample(people, 2)
                _act_by_chance(chance, room, actor, other, number, stays=(alice, bob))
        _speak_until_heard(room, alice, bob)
        agree(room, alice, bob, timeline=False)


def _act_by_chance(chance, room, actor, other, number, stays):
    def lower():
        levels = actor.state_content(room, "m.room.power_levels")
        levels.setdefault("users", {})[other.user_id] = chance.choice((0, 10, 50, 60))
        actor.set_state(room, "m.room.power_levels", levels)

    acts = {
        "send": lambda: actor.send(room, f"message {number}"),
        "topic": lambda: actor.set_state(room, "m.room.topic", {"topic": f"{actor.user_id} {number}"}),
        "thing": lambda: actor.set_state(room, "org.example.thing", {"n": number}, chance.choice("ab")),
        "rules": lambda: actor.set_state(room, "m.room.join_rules", {"join_rule": chance.choice(("public", "invite"))}),
        "kick": lambda: actor.act(room, "kick", other.user_id),
        "ban": lambda: actor.act(room, "ban", other.user_id),
        "unban": lambda: actor.act(room, "unban", other.user_id),
        "invite": lambda: actor.act(room, "invite", other.user_id),
        "leave": lambda: actor.leave(room),
        "join": lambda: actor.join(room, actor.server.name),
        "lower": lower,
    }
    kind = chance.choice([*acts, "topic", "thing", "thing", "lower", "join", "rules"])
    # The two who listen at the end stay, whatever the others think.
    if kind in ("kick", "ban") and other in stays or kind == "leave" and actor in stays:
        return
    try:
        acts[kind]()
    except Refused:
        pass


def _speak_until_heard(room, *users):
    """What somebody writes may be lost with his power or place: each tries until all others hear him, or he is out."""
    for _ in range(2):
        for writer in users:
            try:
                event_id = writer.send(room, "who is here?")
            except Refused:
                continue
            for reader in users:
                arrives(reader, room, event_id)

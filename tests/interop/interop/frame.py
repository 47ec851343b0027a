"""What scenarios are made of. Each runs with either server as the one that has the room.

A scenario takes a `Pair`: `here` has the room, `there` comes from the other server. After it, `agree` asks both for the same
state, members and timeline: each is the other's second opinion.
"""

import itertools
import json
from contextlib import contextmanager

from .client import DEADLINE_S, Refused, User, until

SCENARIOS = []
# Where moderators, too, may change who has which power.
SHARED_POWER = {"events": {"m.room.power_levels": 50}}
names = itertools.count(1)


class Pair:
    """Two servers, a third if it is asked for, and what a scenario may vary."""

    def __init__(self, town, here, there, version, long):
        self.town, self.here, self.there, self.version, self.long = town, here, there, version, long

    def people(self, *sides):
        """New users: `h` on the server that has the room, `t` on the other, `x` on the third."""
        number = next(names)
        return [User(self._server(side), f"user{number}{letter}") for side, letter in zip(sides, "abcdefgh")]

    def _server(self, side):
        return {"h": self.here, "t": self.there}[side] if side in "ht" else self.third

    @property
    def third(self):
        return self.town.third()

    def at_least(self, version):
        return int(self.version) >= version

    @contextmanager
    def apart(self):
        """While it lasts, the two servers don't reach each other."""
        for server in (self.here, self.there):
            server.link.cut()
        try:
            yield
        finally:
            for server in (self.here, self.there):
                server.link.heal()


def scenario(versions="few", since=1, long_only=False, directions=True):
    """Marks a scenario: for a `few` room versions, for `all`, or for `many`, which are all in the long form alone; from a version
    on; without directions if it goes both ways."""
    def mark(run):
        name = f"{run.__module__.rpartition('.')[2]}.{run.__name__}"
        SCENARIOS.append((name, run, versions, since, long_only, directions))
        return run
    return mark


def shape(event):
    """What both servers must say alike of an event."""
    content = json.dumps(event["content"], sort_keys=True)
    return (event["type"], event.get("state_key"), event["sender"], event["event_id"], event["origin_server_ts"], content)


def shown_state(user, room):
    return {shape(event) for event in user.state(room)}


def shown_members(user, room):
    return user.joined(room)


def shown_messages(user, room):
    kinds = ("m.room.message", "m.room.redaction")
    # What was said at the same time each server may order as it came.
    return {shape(event) for event in user.history(room, 200) if event["type"] in kinds}


def agree(room, *users, timeline=True, deadline_s=DEADLINE_S):
    """All servers show the same state, members and newest messages."""
    views = [("state", shown_state), ("members", shown_members)]
    if timeline:
        views.append(("timeline", shown_messages))
    for what, see in views:
        def same(see=see):
            first, *others = [see(user, room) for user in users]
            return all(other == first for other in others)
        try:
            until(f"the same {what}", same, deadline_s)
        except AssertionError as error:
            seen = [see(user, room) for user in users]
            alike = set.intersection(*seen)
            raise AssertionError(f"{error}\n" + "\n".join(
                f"only {user.user_id}: {sorted(map(str, view - alike))}" for user, view in zip(users, seen))) from None


def settle(room, first, *others):
    """After servers were apart: each hears of the others, and one event comes on top of all branches."""
    users = (first, *others)
    for writer in users:
        event_id = writer.send(room, "are you there?")
        for reader in users:
            arrives(reader, room, event_id)
    event_id = first.send(room, "all here")
    for reader in others:
        arrives(reader, room, event_id)


def arrives(user, room, event_id, deadline_s=DEADLINE_S):
    return until(f"{event_id} arrives at {user.user_id}", lambda: user.has(room, event_id), deadline_s)


def is_member(user, room, user_id, membership, deadline_s=DEADLINE_S):
    until(f"{user.user_id} sees that {user_id} is {membership}",
          lambda: user.membership(room, user_id) == membership, deadline_s)


def comes_in(user, room, via, *watchers):
    """Somebody joins through a server, and those inside see it."""
    user.join(room, via.name)
    for watcher in watchers:
        is_member(watcher, room, user.user_id, "join")


def is_redacted(user, room, event_id, left=None):
    until(f"{user.user_id} sees {event_id} redacted", lambda: user.event(room, event_id)["content"] == (left or {}))


def give_power(room, giver, level, *users):
    """Raises users to a level; gives the event."""
    levels = giver.state_content(room, "m.room.power_levels")
    for user in users:
        levels.setdefault("users", {})[user.user_id] = level
    return giver.set_state(room, "m.room.power_levels", levels)


def refused(status, act, errcode=None):
    """The refusal of what must not succeed."""
    refusal = refused_somehow(act)
    assert refusal.status == status and errcode in (None, refusal.errcode), refusal
    return refusal


def refused_somehow(act):
    try:
        act()
    except Refused as refusal:
        return refusal
    raise AssertionError("it was not refused")
